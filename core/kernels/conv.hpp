// Two-dimensional convolution and its two gradients, on NHWC images and HWIO weights.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"

namespace goshawk::kernels {

/// Strides in pixels, and the rows and columns of zeros added on both sides of the input. The input and the
/// output channels fall into `groups` runs of equal length; an output channel sees only the input channels of
/// its own run (Krizhevsky et al. 2012; depthwise where a run has one input channel).
struct ConvParams {
  std::int64_t stride_h = 1;
  std::int64_t stride_w = 1;
  std::int64_t pad_h = 0;
  std::int64_t pad_w = 0;
  std::int64_t groups = 1;
};

/// Whether f32 convolutions of 3 x 3 and stride 1 may use Winograd's F(4x4, 3x3), which is up to 2.7 times as
/// fast and rounds two to four times as coarsely (norm-wise below 1e-6 on random data with up to 64 channels,
/// and below sqrt(C / 64) times that with more), and which spreads a not-a-number over its tile of 4 x 4
/// pixels. For the whole process; on by default. f64 never does.
void set_winograd(bool enabled);
bool winograd_enabled();

/// Shape [N, OH, OW, Co] of the convolution of x [N, H, W, Ci] with w [KH, KW, Ci / groups, Co], where
/// OH = floor((H + 2 pad_h - KH) / stride_h) + 1 and OW likewise. Throws Error when the shapes do not fit
/// together, channels are not divisible by groups, the kernel is larger than the padded image, or a stride or
/// pad is out of range.
Shape conv2d_output_shape(const Shape& x, const Shape& w, const ConvParams& params);

/// What is done to an image [N, H, W, C] before it is written: relu?(y + bias? + residual?) where the mask is
/// not ≤ 0, and 0 elsewhere.
struct ConvEpilogue {
  Tensor bias = {};      ///< [C], or undefined
  Tensor residual = {};  ///< of y's shape, or undefined
  bool relu = false;
  Tensor mask = {};  ///< of y's shape, or undefined

  bool empty() const { return !bias.defined() && !residual.defined() && !relu && !mask.defined(); }
};

/// y[n, oy, ox, co] = sum over ky, kx, ci of
///   x[n, oy*stride_h + ky - pad_h, ox*stride_w + kx - pad_w, co / (Co/groups) * (Ci/groups) + ci] *
///   w[ky, kx, ci, co],
/// a cross-correlation, x being zero outside the image. x: [N, H, W, Ci], w: [KH, KW, Ci / groups, Co], both
/// f32 or both f64. Returns [N, OH, OW, Co], or `sum`, which has that shape, with the result added
/// in place, and through the epilogue, which takes no pass of its own unless there are groups; its residual
/// and `sum` exclude each other. Same bits for any number of threads.
Tensor conv2d(const Tensor& x, const Tensor& w, const ConvParams& params, const Tensor& sum = {},
              const ConvEpilogue& epilogue = {});

/// The gradient of <gy, conv2d(x, w)> with respect to x. gy: [N, OH, OW, Co], w: [KH, KW, Ci / groups, Co].
/// Returns x_shape = [N, H, W, Ci], or `sum` with the result added in place. Throws Error when gy is not of
/// the output shape that x_shape, w and params give.
Tensor conv2d_input_grad(const Tensor& gy, const Tensor& w, const Shape& x_shape, const ConvParams& params,
                         const Tensor& sum = {});

/// The gradient of <gy, conv2d(x, w)> with respect to w. x: [N, H, W, Ci], gy: [N, OH, OW, Co]. Returns
/// w_shape = [KH, KW, Ci / groups, Co]. Throws Error when gy is not of the output shape that x, w_shape and
/// params give.
Tensor conv2d_weight_grad(const Tensor& x, const Tensor& gy, const Shape& w_shape, const ConvParams& params);

/// Plain loops that sum in f64: what the tests compare the fast kernels with.
namespace reference {

Tensor conv2d(const Tensor& x, const Tensor& w, const ConvParams& params);
Tensor conv2d_input_grad(const Tensor& gy, const Tensor& w, const Shape& x_shape, const ConvParams& params);
Tensor conv2d_weight_grad(const Tensor& x, const Tensor& gy, const Shape& w_shape, const ConvParams& params);

}  // namespace reference
}  // namespace goshawk::kernels
