// Squared norms of per-sample weight gradients, without keeping the gradients.
#pragma once

#include <cstdint>
#include <span>

#include "core/kernels/conv.hpp"

namespace goshawk::kernels {

/// How the norm of one image's weight gradient Σ_p x_p g_pᵀ over positions p is formed (x_p: the patch of the
/// input that output position p sees, g_p: the gradient there).
enum class GradNormForm : std::uint8_t {
  automatic,  ///< whichever takes fewer multiplications
  direct,     ///< the gradient in a scratch buffer, then its norm
  gram,  ///< Σ_{p,q} ⟨x_p, x_q⟩ ⟨g_p, g_q⟩: cheap where positions are few; ⟨x_p, x_q⟩ serves all directions
};

/// ‖∂⟨gy_n, conv2d(x_n, w)⟩/∂w‖² for every image n and every direction gy. x: [N, H, W, Ci], w_shape: [KH,
/// KW, Ci, Co], each gy: [N, OH, OW, Co] of x's type, or undefined for zero. Returns f64 [directions, N].
/// Products and their sums over positions are of the type of x, what is summed of these is f64. Same bits for
/// any number of threads, and for an image whatever its place in the batch. Grouped convolutions have one
/// form only. Throws Error when shapes or types do not fit.
Tensor conv2d_weight_grad_norms(const Tensor& x, std::span<const Tensor> gys, const Shape& w_shape,
                                const ConvParams& params, GradNormForm form = GradNormForm::automatic);

/// ‖∂⟨g_n, x_n w⟩/∂w‖² = ‖x_n‖² ‖g_n‖² of a linear layer: x [N, Ci], each g [N, Co] or undefined for zero.
/// Returns f64 [directions, N].
Tensor linear_weight_grad_norms(const Tensor& x, std::span<const Tensor> gys);

/// ‖x_n‖² over all but the first dimension, f64 [N]. x is f32 or f64.
Tensor sample_norms(const Tensor& x);
/// ⟨a_n, b_n⟩ likewise, of two tensors of one shape and type.
Tensor sample_dots(const Tensor& a, const Tensor& b);

namespace reference {

/// Plain loops, one direction: f64 [N].
Tensor conv2d_weight_grad_norms(const Tensor& x, const Tensor& gy, const Shape& w_shape,
                                const ConvParams& params);

}  // namespace reference
}  // namespace goshawk::kernels
