// Convolutions of more than one group, whose shapes have been checked. f32 and f64; the same bits for any
// number of threads. A group is an image of its own for the direct kernels; where a group has few output
// channels, which would leave vectors mostly empty, the convolution is instead a sum of depthwise ones:
//   y[co] = sum over i of depthwise(x_i, w[:, :, i, :]), x_i[co] = x[first channel of co's group + i].
#pragma once

#include "core/kernels/conv.hpp"

namespace goshawk::kernels {

/// y = conv(x, w) + bias (which may be undefined), or added to y; the epilogue takes a pass of its own.
void grouped_conv2d(const Tensor& x, const Tensor& w, const ConvParams& params, const Tensor& bias,
                    const Tensor& y, bool add, const ConvEpilogue& epilogue = {});
/// The gradient with respect to x, written or added to gx, and what follows.
void grouped_input_grad(const Tensor& gy, const Tensor& w, const ConvParams& params, const Tensor& gx,
                        bool add, const ConvEpilogue& epilogue = {});
/// The gradient with respect to w, written to gw.
void grouped_weight_grad(const Tensor& x, const Tensor& gy, const ConvParams& params, const Tensor& gw);

}  // namespace goshawk::kernels
