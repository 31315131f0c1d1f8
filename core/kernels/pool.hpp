// Mean pooling on NHWC tensors, f32 and f64, and the windows of all pools.
#pragma once

#include "core/tensor.hpp"

namespace goshawk::kernels {

struct PoolParams {
  std::int64_t kernel_h = 2, kernel_w = 2, stride_h = 2, stride_w = 2, pad_h = 0, pad_w = 0;
  /// Adds windows that hang over the far edge of the padded image until none of it is left out (PyTorch's
  /// ceil_mode). Each still has to start inside the image or the padding before it.
  bool ceil = false;
};

/// [N,H,W,C] → [N,OH,OW,C]. Throws Error when a window lies wholly in the padding or does not fit.
Shape pool_output_shape(const Shape& x, const PoolParams& params, std::string_view op);
/// Mean over each window; padded zeros count, but what hangs over the padding does not (the divisor is
/// kernel_h · kernel_w except where `ceil` added the window).
Tensor avg_pool2d(const Tensor& x, const PoolParams& params);
/// The adjoint of avg_pool2d: gy [N,OH,OW,C] → x_shape.
Tensor avg_unpool2d(const Tensor& gy, const Shape& x_shape, const PoolParams& params);
/// [N,H,W,C] → [N,C]: mean over H and W. Throws Error when there are none.
Tensor global_avg_pool(const Tensor& x);
/// The adjoint of global_avg_pool: gy [N,C] → x_shape.
Tensor global_avg_unpool(const Tensor& gy, const Shape& x_shape);

}  // namespace goshawk::kernels
