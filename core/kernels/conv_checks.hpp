// The checks that the fast convolutions and the reference share.
#pragma once

#include <string_view>

#include "core/kernels/conv.hpp"

namespace goshawk::kernels {

/// Output shape of the convolution `op`; throws Error naming `op` when the shapes or parameters do not fit.
Shape checked_output_shape(const Shape& x, const Shape& w, const ConvParams& params, std::string_view op);

/// Throws Error naming `op` unless a and b are defined and both f32 or both f64.
void check_dtypes(const Tensor& a, const Tensor& b, std::string_view op);

/// Throws Error naming `op` unless gy has the shape of the output.
void check_output_grad(const Tensor& gy, const Shape& expected, std::string_view op);

}  // namespace goshawk::kernels
