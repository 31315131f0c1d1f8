// The Hessian of a mean loss over a data set, known by its products with vectors.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "autograd/curvature/microbatches.hpp"
#include "autograd/curvature/operator.hpp"
#include "autograd/grad.hpp"

namespace goshawk {

/// H = Σ_b (n_b / N) ∇² L_b over microbatches b of n_b samples, N = Σ n_b, L_b the mean loss over microbatch
/// b: the Hessian of the mean loss over all samples, whatever the microbatches' sizes. Products by
/// GradientGraph, accumulated over the microbatches in f64 in their order.
class HessianOperator final : public LinearOperator {
 public:
  /// The mean loss over the samples of one microbatch, a scalar Variable that depends on every parameter. It
  /// must give the same bits each time (no dropout or random augmentation; batch norm in eval mode, or in
  /// train mode with one microbatch) and may be called from several threads at once (see
  /// MicrobatchOptions::concurrency). It is called under a MeasuringGuard, so a product leaves the running
  /// statistics as they are.
  using Loss = std::function<Variable(std::size_t microbatch)>;

  /// `parameters`: the leaves (one dtype) that span the operator's blocks, in order. `microbatch_sizes`:
  /// number of samples in each microbatch, all positive. The weights must stay as they are while the operator
  /// lives. `road`: how products are computed; `automatic` measures on the first microbatch, before the first
  /// product, and keeps to what it finds: leave it where results must be the same bits in every run.
  HessianOperator(std::vector<Variable> parameters, std::vector<std::int64_t> microbatch_sizes, Loss loss,
                  MicrobatchOptions options = {}, HvpRoad road = HvpRoad::reverse_over_reverse)
      : HessianOperator(std::move(parameters),
                        MicrobatchSizes(std::move(microbatch_sizes), "HessianOperator"), std::move(loss),
                        options, road) {}
  HessianOperator(std::vector<Variable> parameters, MicrobatchSizes sizes, Loss loss,
                  MicrobatchOptions options, HvpRoad road);

  const std::vector<Shape>& shapes() const override { return shapes_; }
  DType dtype() const override { return parameters_.front().dtype(); }

  /// H v. An undefined tensor in `v` stands for a block of zeros. One product at a time per operator. Throws
  /// Error when a microbatch's loss is not finite or not the same as before, when a parameter (of a block: of
  /// the operator that it was taken from) has changed, or when it normalises by the statistics of its batch
  /// and there are several microbatches.
  Vector apply(const Vector& v) const override;
  /// Each graph that is not kept is built once for all vectors.
  std::vector<Vector> apply_many(std::span<const Vector> vectors) const override;
  /// With the microbatches as subsets. Each graph that is not kept is built once for all vectors.
  std::vector<QuadraticForms> quadratic_forms(std::span<const Vector> vectors) const override;
  std::vector<double> subset_weights() const override;

  /// The diagonal block of the parameters with these indices (in this order, each once): the Hessian with all
  /// others held constant. Its graphs go back no further than these parameters need. Keeps none of this
  /// operator's graphs.
  HessianOperator block(std::span<const std::size_t> indices) const;
  /// The diagonal block of one parameter.
  HessianOperator block(std::size_t index) const { return block(std::span(&index, 1)); }

  /// The mean loss over all samples; known without further work after the first product.
  double loss() const;
  /// Frees the kept graphs; the next product builds them again.
  void release_graphs() const;
  /// Which road products take; measures if that is still to be done.
  HvpRoad road() const;
  /// Number of microbatches whose graphs are kept at present.
  std::size_t kept_graphs() const;

 private:
  GradientGraph build(std::size_t microbatch, HvpRoad road) const;
  static std::vector<Vector> multiply(std::size_t microbatch, const GradientGraph& graph,
                                      std::span<const Vector> vectors);

  std::vector<Variable> parameters_;
  std::vector<Shape> shapes_;
  Loss loss_;
  HvpRoad wanted_road_;
  // What products leave behind for the next ones; never part of a result. Microbatches only touch their own
  // slots.
  mutable MicrobatchGraphs<GradientGraph> graphs_;
  mutable FixedNumbers losses_;
  mutable FixedParameters weights_;
  mutable std::optional<HvpRoad> road_;  // as measured
};

}  // namespace goshawk
