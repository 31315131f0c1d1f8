// Per-channel kernels on tensors [..., C]: affine maps and reductions over all but the last dimension. f32
// and f64. Every reduction is split into fixed chunks of rows whose partial results are combined in f64 in
// chunk order, so results do not depend on the number of threads.
#pragma once

#include "core/kernels/conv.hpp"
#include "core/tensor.hpp"

namespace goshawk::kernels {

/// relu?(x · s + t + residual?): x [..., C], s and t [C] (t may be undefined: 0), residual of x's shape or
/// undefined. The ReLU of NaN is NaN.
Tensor channel_affine(const Tensor& x, const Tensor& s, const Tensor& t, const Tensor& residual = {},
                      bool relu = false);
/// x + t: x [..., C], t [C].
Tensor channel_shift(const Tensor& x, const Tensor& t);

/// The epilogue of a convolution, in place on its result.
void apply_epilogue(const Tensor& y, const ConvEpilogue& epilogue);
/// To the pixels [first, first + pixels) of y, on this thread: for a kernel whose task has just written them.
/// Operands have been checked.
void apply_epilogue(const Tensor& y, const ConvEpilogue& epilogue, std::int64_t first, std::int64_t pixels);

// y = relu?(x + t + residual) for some x that need not be there: x and residual [..., C], t [C]. Like all
// here they throw Error for operands whose shapes or types do not match.
/// How y moves when they do: dx + dt? + dr? where y passed the ReLU (y undefined: there is none); dt and dr
/// may be undefined. Returns a new tensor, or dx with the result in it.
Tensor shift_tangent(const Tensor& dx, const Tensor& dt, const Tensor& dr, const Tensor& y, bool in_place);
struct ShiftGradient {
  Tensor g;    ///< of gy's shape
  Tensor sum;  ///< [C]
};
/// The gradient of y, where it has a ReLU, with respect to x and the residual, g = gy where y passed it, and
/// with respect to t, Σ g. g is a new tensor, or gy with the result in it.
ShiftGradient shift_backward(const Tensor& gy, const Tensor& y, bool in_place = false);

/// Σ x over all but the last dimension: [C].
Tensor channel_sum(const Tensor& x);
/// Σ a · b over all but the last dimension: [C].
Tensor channel_dot(const Tensor& a, const Tensor& b);

struct ChannelMoments {
  Tensor mean;  ///< [C]
  Tensor var;   ///< [C], biased: divided by the number of rows
};
/// Mean and variance over all but the last dimension: two passes inside each chunk, chunks merged by the
/// formula of Chan, Golub & LeVeque (1979), so no cancellation for channels with a large mean. The second
/// pass also corrects the mean of the first.
ChannelMoments channel_moments(const Tensor& x);

}  // namespace goshawk::kernels
