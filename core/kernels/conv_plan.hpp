// What conv.cpp is made of, for kernels that do the same work for another end.
#pragma once

#include <optional>

#include "core/kernels/conv.hpp"
#include "core/kernels/conv_simd.hpp"
#include "core/kernels/conv_winograd.hpp"

namespace goshawk::kernels {

/// The direct sums of the weight gradient of y = conv2d(x, w): shapes of one group that fit together, dtype
/// f32 or f64.
/// Row groups n · row_groups to (n + 1) · row_groups are image n.
simd::WeightGrad plan_weight_grad(const Shape& x, const Shape& w, const Shape& y, const ConvParams& params,
                                  DType dtype);

// The direct sums, whatever Winograd could do. Shapes of one group that have been checked; results are
// written, or added where `add` says so, to tensors that are there. What follows is done to a task's pixels
// as soon as they are complete.
/// `bias`: what each sum begins with.
void direct_conv2d(const Tensor& x, const Tensor& w, const ConvParams& params, const Tensor& bias,
                   const Tensor& y, bool add, const ConvEpilogue& epilogue = {});
void direct_input_grad(const Tensor& gy, const Tensor& w, const ConvParams& params, const Tensor& gx,
                       bool add, const ConvEpilogue& epilogue = {});
void direct_weight_grad(const Tensor& x, const Tensor& gy, const ConvParams& params, const Tensor& gw);

enum class ConvDirection : std::uint8_t { forward, backward };

/// The Winograd problem of the forward convolution (and of the weight gradient), or of the input gradient,
/// when that is the faster way. x, w and y: the shapes of the forward convolution, of one group.
std::optional<winograd::Problem> winograd_problem(DType dtype, const Shape& x, const Shape& w, const Shape& y,
                                                  const ConvParams& params, ConvDirection direction);

}  // namespace goshawk::kernels
