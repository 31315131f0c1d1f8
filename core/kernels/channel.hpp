// Per-channel kernels on tensors [..., C]: affine maps and reductions over all but the last dimension. f32
// and f64. Every reduction is split into fixed chunks of rows whose partial results are combined in f64 in
// chunk order, so results do not depend on the number of threads.
#pragma once

#include "core/tensor.hpp"

namespace goshawk::kernels {

/// relu?(x · s + t + residual?): x [..., C], s and t [C] (t may be undefined: 0), residual of x's shape or
/// undefined. The ReLU of NaN is NaN.
Tensor channel_affine(const Tensor& x, const Tensor& s, const Tensor& t, const Tensor& residual = {},
                      bool relu = false);
/// x + t: x [..., C], t [C]; in a new tensor or in x itself.
Tensor channel_shift(const Tensor& x, const Tensor& t, bool in_place = false);
/// Σ x over all but the last dimension: [C].
Tensor channel_sum(const Tensor& x);
/// Σ a · b over all but the last dimension: [C].
Tensor channel_dot(const Tensor& a, const Tensor& b);

struct ChannelMoments {
  Tensor mean;  ///< [C]
  Tensor var;   ///< [C], biased: divided by the number of rows
};
/// Mean and variance over all but the last dimension: two passes inside each chunk, chunks merged by the
/// formula of Chan, Golub & LeVeque (1979), so no cancellation for channels with a large mean.
ChannelMoments channel_moments(const Tensor& x);

}  // namespace goshawk::kernels
