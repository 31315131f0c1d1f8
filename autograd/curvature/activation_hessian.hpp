// The Hessian of the loss with respect to the input of a layer.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "autograd/curvature/exact_traces.hpp"
#include "autograd/curvature/microbatches.hpp"
#include "autograd/curvature/operator.hpp"
#include "autograd/grad.hpp"

namespace goshawk {

/// ∇²_a of the mean cross-entropy (1/N) Σ_n L_n in the inputs a = (a_1, …, a_N) of one layer to which all
/// images are joined, a block per microbatch. L_n depends on a_n alone (batch norm in eval mode), so it is
/// block-diagonal over images, with ∇²_{a_n} L_n / N for each: one product over the joint vector gives every
/// image's exact quadratic form, and the trace is the mean over images of Tr ∇²_{a_n} L_n (HAWQ-V2, Dong et
/// al., arXiv 1911.03852). By double backward, so it holds for every network; exact_traces has the trace
/// where the exact road holds.
class ActivationHessian final : public LinearOperator {
 public:
  /// `layer`: the name of a recorded site. Throws Error when the pass has no such site (naming those there
  /// are) or when it is used more than once. The weights must stay as they are while the operator lives.
  ActivationHessian(std::string layer, std::vector<std::int64_t> microbatch_sizes, ClassifierPass pass,
                    MicrobatchOptions options = {});

  const std::vector<Shape>& shapes() const override { return shapes_; }
  DType dtype() const override { return dtype_; }
  /// Throws Error, as every product does, when a microbatch's loss is not the same as before, or a recorded
  /// site's weight has changed (unless something computes it, such as a quantizer).
  Vector apply(const Vector& v) const override;
  /// With the microbatches as subsets, whose forms are means over their own images.
  std::vector<QuadraticForms> quadratic_forms(std::span<const Vector> vectors) const override;
  std::vector<double> subset_weights() const override { return graphs_.sizes().weights(); }

  /// v_nᵀ (∇²_{a_n} L_n) v_n for every image n, with the loss of that image alone.
  std::vector<double> per_sample_forms(const Vector& v) const;
  /// ∂L_n/∂a_n for every image, one tensor per microbatch: the first-order term that curvature leaves out.
  Vector per_sample_gradients() const;

  void release_graphs() const { graphs_.release(); }

 private:
  GradientGraph build(std::size_t microbatch) const;

  std::string layer_;
  ClassifierPass pass_;
  std::vector<Shape> shapes_;
  DType dtype_ = DType::f32;
  mutable MicrobatchGraphs<GradientGraph> graphs_;  // of the loss summed over a microbatch's images
  mutable FixedNumbers losses_;
  mutable FixedParameters weights_;
};

}  // namespace goshawk
