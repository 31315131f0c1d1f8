// The differentiable ops. All take and return Variables of one dtype (f32 or f64), and every derivative is
// written with these same ops, so each can be differentiated to any order.
#pragma once

#include <cstdint>
#include <vector>

#include "autograd/variable.hpp"
#include "core/kernels/conv.hpp"
#include "core/kernels/pool.hpp"

namespace goshawk {

using kernels::ConvParams;

// ---- elementwise (autograd/ops/elementwise.cpp)
// -------------------------------------------------------------- Binary ops broadcast as NumPy does: shapes
// align at the last dimension, extents of 1 are repeated.
Variable add(const Variable& a, const Variable& b);
Variable sub(const Variable& a, const Variable& b);
Variable mul(const Variable& a, const Variable& b);
Variable div(const Variable& a, const Variable& b);
inline Variable operator+(const Variable& a, const Variable& b) {
  return add(a, b);
}
inline Variable operator-(const Variable& a, const Variable& b) {
  return sub(a, b);
}
inline Variable operator*(const Variable& a, const Variable& b) {
  return mul(a, b);
}
inline Variable operator/(const Variable& a, const Variable& b) {
  return div(a, b);
}
/// factor · x
Variable scale(const Variable& x, double factor);
/// x + offset
Variable add_scalar(const Variable& x, double offset);
Variable neg(const Variable& x);
Variable exp(const Variable& x);
/// Natural logarithm.
Variable log(const Variable& x);
Variable sqrt(const Variable& x);
/// 1 / sqrt(x)
Variable rsqrt(const Variable& x);
Variable tanh(const Variable& x);
/// 1 / (1 + e^−x)
Variable sigmoid(const Variable& x);
/// log(1 + e^x), without overflow.
Variable softplus(const Variable& x);
/// max(x, 0), and NaN where x is; the derivative at 0 is 0, and at NaN 1, so that no NaN is lost either way.
Variable relu(const Variable& x);
/// 0 where `positive` ≤ 0, x elsewhere, also where it is NaN. `positive` is a constant of x's shape and
/// dtype.
Variable mask_positive(const Variable& x, const Tensor& positive);

// ---- shape (autograd/ops/shape.cpp)
// --------------------------------------------------------------------------
/// The same elements under another shape; one extent may be -1.
Variable reshape(const Variable& x, std::span<const std::int64_t> dims);
inline Variable reshape(const Variable& x, std::initializer_list<std::int64_t> dims) {
  return reshape(x, std::span(dims.begin(), dims.size()));
}
inline Variable reshape(const Variable& x, const Shape& shape) {
  return reshape(x, std::span(shape.begin(), shape.end()));
}
/// Repeats extents of 1 (and missing leading dimensions) up to `shape`.
Variable broadcast_to(const Variable& x, const Shape& shape);
/// The adjoint of broadcast_to: sums over the dimensions that broadcasting `shape` would repeat.
Variable sum_to(const Variable& x, const Shape& shape);
/// Sum of all elements, a scalar.
Variable sum(const Variable& x);
/// Mean of all elements, a scalar.
Variable mean(const Variable& x);
/// ⟨a, b⟩ over all elements, a scalar.
Variable dot(const Variable& a, const Variable& b);
/// The sub-lattice x[start + step · i] for i < extents, in every dimension.
struct Lattice {
  std::vector<std::int64_t> start, step;
};
Variable slice(const Variable& x, const Lattice& lattice, const Shape& extents);
/// The adjoint of slice: zeros of shape `shape` with x placed on the lattice. With steps of 1 it is zero
/// padding.
Variable unslice(const Variable& x, const Lattice& lattice, const Shape& shape);

// ---- linear algebra (autograd/ops/matmul.cpp)
// ----------------------------------------------------------------
/// op(a) op(b) for matrices, op(m) = mᵀ where transpose_* is set.
Variable matmul(const Variable& a, const Variable& b, bool transpose_a = false, bool transpose_b = false);

// ---- convolution (autograd/ops/conv.cpp): a trio that is closed under differentiation
// ------------------------
/// What follows an affine map, a normalisation or a convolution, as far as possible in the same pass over
/// memory: relu?(y + residual?).
struct Epilogue {
  bool relu = false;
  Variable residual = {};  ///< of y's shape, or undefined
};
/// x [N,H,W,Ci] ∗ w [KH,KW,Ci/groups,Co] → [N,OH,OW,Co], cross-correlation with zero padding; plus bias [Co],
/// where it is defined, at every pixel; then the epilogue.
Variable conv2d(const Variable& x, const Variable& w, const ConvParams& params, const Variable& bias = {},
                const Epilogue& epilogue = {});
/// Its adjoint in x: gy [N,OH,OW,Co], w → x_shape; plus `residual`, of x_shape, where it is
/// defined.
Variable conv2d_input_grad(const Variable& gy, const Variable& w, const Shape& x_shape,
                           const ConvParams& params, const Variable& residual = {});
/// Its adjoint in w: x, gy → w_shape.
Variable conv2d_weight_grad(const Variable& x, const Variable& gy, const Shape& w_shape,
                            const ConvParams& params);

// ---- per-channel (autograd/ops/channel.cpp): x is [..., C], s and t are [C]
// ----------------------------------
/// relu?(x · s + t + residual?)
Variable channel_affine(const Variable& x, const Variable& s, const Variable& t,
                        const Epilogue& epilogue = {});
/// x + t
Variable channel_shift(const Variable& x, const Variable& t);
/// x · s
Variable channel_scale(const Variable& x, const Variable& s);
/// Σ over all but the last dimension: [C]. Fixed chunks of rows are summed in the type of x and the chunks in
/// f64.
Variable channel_sum(const Variable& x);
/// Σ a · b over all but the last dimension: [C].
Variable channel_dot(const Variable& a, const Variable& b);

// ---- normalisation (autograd/ops/norm.cpp)
// -------------------------------------------------------------------
/// A map x · scale + shift per channel.
struct ChannelMap {
  Variable scale, shift;  ///< [C]
};
/// Batch normalisation with given statistics as such a map: scale = gamma / sqrt(var + eps), shift = beta −
/// mean · scale. All are [C]; mean and var are constants.
ChannelMap batch_norm_map(const Variable& gamma, const Variable& beta, const Tensor& mean, const Tensor& var,
                          double eps);
/// Batch normalisation with given statistics (Ioffe & Szegedy 2015): (x − mean) / sqrt(var + eps) · gamma +
/// beta, then the epilogue. x [..., C]; the others [C]; mean and var are constants.
Variable batch_norm_eval(const Variable& x, const Variable& gamma, const Variable& beta, const Tensor& mean,
                         const Tensor& var, double eps, const Epilogue& epilogue = {});
struct BatchNormTrain {
  Variable y;
  Tensor mean;  ///< [C], of this batch
  Tensor var;   ///< [C], biased (divided by the number of elements)
};
/// Batch normalisation with the statistics of the batch itself, through which gradients flow, then the
/// epilogue. One fused op with hand-written first and second derivatives; beyond, it differentiates through a
/// composition.
BatchNormTrain batch_norm_train(const Variable& x, const Variable& gamma, const Variable& beta, double eps,
                                const Epilogue& epilogue = {});
/// The same function from elementary ops: the reference.
Variable batch_norm_train_composed(const Variable& x, const Variable& gamma, const Variable& beta, double eps,
                                   const Epilogue& epilogue = {});

// ---- pooling (autograd/ops/pool.cpp), NHWC
// -------------------------------------------------------------------
using kernels::PoolParams;
/// Mean over each window; padded zeros count, but what hangs over the padding (params.ceil) does not.
Variable avg_pool2d(const Variable& x, const PoolParams& params);
/// Its adjoint: spreads gy over x_shape.
Variable avg_unpool2d(const Variable& gy, const Shape& x_shape, const PoolParams& params);
/// Maximum over each window; padding never wins. The winners' places are constants: it is the window_pick of
/// them.
Variable max_pool2d(const Variable& x, const PoolParams& params);
/// The elements of x [N,H,W,C] that `taps` (u8 or i32 [N,OH,OW,C], see kernels/max_pool.hpp) choose, one of
/// each window.
Variable window_pick(const Variable& x, const Tensor& taps, const PoolParams& params);
/// Its adjoint: gy [N,OH,OW,C] added at these elements to zeros of x_shape.
Variable window_place(const Variable& gy, const Tensor& taps, const Shape& x_shape, const PoolParams& params);
/// [N,H,W,C] → [N,C], the mean over H and W.
Variable global_avg_pool(const Variable& x);
/// Its adjoint: gy [N,C] / (H · W) at every position of x_shape.
Variable global_avg_unpool(const Variable& gy, const Shape& x_shape);

// ---- indexing (autograd/ops/gather.cpp)
// ----------------------------------------------------------------------
/// out[i] = x[index[i]] over the flattened x; `index` is i64 and gives out its shape.
Variable gather(const Variable& x, const Tensor& index);
/// The adjoint of gather: out[index[i]] += x[i] on zeros of shape `shape`, added in the order of i.
Variable scatter_add(const Variable& x, const Tensor& index, const Shape& shape);

// ---- losses (autograd/ops/softmax.cpp)
// -----------------------------------------------------------------------
/// Over the last dimension of logits [N,C].
Variable softmax(const Variable& logits);
Variable log_softmax(const Variable& logits);
enum class Reduction : std::uint8_t { mean, sum, none };
/// −log softmax(logits)[label] per sample ([N]), or its mean or sum. labels: i64 [N], each in [0, C).
/// The gradient p − y is formed without cancellation, so it keeps its relative precision on saturated
/// samples.
Variable softmax_cross_entropy(const Variable& logits, const Tensor& labels,
                               Reduction reduction = Reduction::mean);
/// softmax(logits) − onehot(labels), [N,C], to full relative precision.
Variable softmax_residual(const Variable& logits, const Tensor& labels);

}  // namespace goshawk
