// Maximum pooling on NHWC tensors, f32 and f64: which element of its window won, and the adjoint pair that
// carries values along that choice. The same bits for any number of threads.
#pragma once

#include "core/kernels/pool.hpp"

namespace goshawk::kernels {

struct MaxPool {
  Tensor y;     ///< [N,OH,OW,C]: the maximum of each window
  Tensor taps;  ///< of y's shape: the winner's place in its window, row · kernel_w + column
};

/// Maximum over each window of x [N,H,W,C]; the first of equals; NaN wins; padding never does. The taps are
/// u8, or i32 where a window has more than 256 places. Throws Error as pool_output_shape does.
MaxPool max_pool2d(const Tensor& x, const PoolParams& params);
/// The elements of x [N,H,W,C] that `taps` [N,OH,OW,C] name, one of each window. Every tap must lie inside
/// the image.
Tensor window_pick(const Tensor& x, const Tensor& taps, const PoolParams& params);
/// Its adjoint: zeros of x_shape to which gy [N,OH,OW,C] is added at the elements that `taps` name, window by
/// window.
Tensor window_place(const Tensor& gy, const Tensor& taps, const Shape& x_shape, const PoolParams& params);

}  // namespace goshawk::kernels
