// How conv.cpp splits its work, for kernels that do the same work for another end.
#pragma once

#include "core/kernels/conv.hpp"
#include "core/kernels/conv_simd.hpp"

namespace goshawk::kernels {

/// The direct sums of the weight gradient of y = conv2d(x, w): shapes that fit together, dtype f32 or f64.
/// Row groups n · row_groups to (n + 1) · row_groups are image n.
simd::WeightGrad plan_weight_grad(const Shape& x, const Shape& w, const Shape& y, const ConvParams& params,
                                  DType dtype);

}  // namespace goshawk::kernels
