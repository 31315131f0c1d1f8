// Gauss–Newton and Fisher matrices of a classifier, known by their products with vectors.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "autograd/curvature/exact_traces.hpp"
#include "autograd/curvature/microbatches.hpp"
#include "autograd/curvature/operator.hpp"
#include "autograd/curvature/softmax_output.hpp"

namespace goshawk {

/// G = (1/N) Σ_n J_nᵀ M_n J_n with J_n the Jacobian of sample n's logits in the parameters (Schraudolph,
/// "Fast curvature matrix-vector products for second-order gradient descent", Neural Comput. 14(7), 2002). A
/// product is one JVP, M_n in logit space and one VJP on a graph of the logits that is kept between products;
/// nothing per sample is kept. Symmetric positive semidefinite. For one layer's weight in a network that is
/// piecewise linear in it, the Gauss–Newton block *is* the Hessian block (docs/curvature/exact-road.md).
class GaussNewtonOperator final : public LinearOperator {
 public:
  /// `parameters`: the leaves (one dtype) that span the operator's blocks, in order; `pass` gives the graph
  /// of a microbatch (its sites are not needed, nor, for softmax_cross_entropy, its labels) and may be called
  /// from several threads at once. The weights must stay as they are while the operator lives.
  GaussNewtonOperator(std::vector<Variable> parameters, std::vector<std::int64_t> microbatch_sizes,
                      ClassifierPass pass, OutputMetric metric = OutputMetric::softmax_cross_entropy,
                      MicrobatchOptions options = {})
      : GaussNewtonOperator(std::move(parameters),
                            MicrobatchSizes(std::move(microbatch_sizes), "GaussNewtonOperator"),
                            std::move(pass), metric, options) {}
  GaussNewtonOperator(std::vector<Variable> parameters, MicrobatchSizes sizes, ClassifierPass pass,
                      OutputMetric metric, MicrobatchOptions options);

  const std::vector<Shape>& shapes() const override { return shapes_; }
  DType dtype() const override { return parameters_.front().dtype(); }

  /// G v. An undefined tensor in `v` stands for a block of zeros. One product at a time per operator. Throws
  /// Error when a microbatch's logits are not the same as before, or a parameter (of a block: of the operator
  /// that it was taken from) has changed.
  Vector apply(const Vector& v) const override;
  /// Each graph that is not kept is built once for all vectors.
  std::vector<Vector> apply_many(std::span<const Vector> vectors) const override;
  /// With the microbatches as subsets.
  std::vector<QuadraticForms> quadratic_forms(std::span<const Vector> vectors) const override;
  std::vector<double> subset_weights() const override { return graphs_.sizes().weights(); }

  /// The diagonal block of the parameters with these indices (in this order, each once).
  GaussNewtonOperator block(std::span<const std::size_t> indices) const;
  GaussNewtonOperator block(std::size_t index) const { return block(std::span(&index, 1)); }

  /// Frees the kept graphs; the next product builds them again.
  void release_graphs() const { graphs_.release(); }

 private:
  struct Graph {
    Variable logits;
    std::shared_ptr<const SoftmaxOutput> output;
    Tensor residual;  // p − y, for the empirical Fisher
  };
  Graph build(std::size_t microbatch) const;
  std::vector<Vector> multiply(const Graph& graph, std::span<const Vector> vectors) const;

  std::vector<Variable> parameters_;
  std::vector<Shape> shapes_;
  ClassifierPass pass_;
  OutputMetric metric_;
  mutable MicrobatchGraphs<Graph> graphs_;
  mutable FixedNumbers fingerprints_;
  mutable FixedParameters weights_;
};

}  // namespace goshawk
