#include "core/kernels/conv_checks.hpp"

#include <limits>

namespace goshawk::kernels {
namespace {

std::int64_t output_extent(std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t pad) {
  return (in + 2 * pad - kernel) / stride + 1;
}

}  // namespace

Shape checked_output_shape(const Shape& x, const Shape& w, const ConvParams& params, std::string_view op) {
  check(x.size() == 4, "[{}] the input has shape {}; give a batch of images [N, H, W, C]", op, x);
  check(w.size() == 4, "[{}] the weights have shape {}; give [KH, KW, C_in, C_out]", op, w);
  check(params.stride_h >= 1 && params.stride_w >= 1, "[{}] strides {} x {} are not positive; use 1 or more",
        op, params.stride_h, params.stride_w);
  // More would only be zeros, and could not be counted.
  constexpr std::int64_t kMostPad = std::numeric_limits<std::int32_t>::max();
  check(params.pad_h >= 0 && params.pad_w >= 0 && params.pad_h <= kMostPad && params.pad_w <= kMostPad,
        "[{}] pads {} x {} are not from 0 to {}", op, params.pad_h, params.pad_w, kMostPad);
  check(params.groups >= 1, "[{}] {} groups are not positive; use 1 or more", op, params.groups);
  check(x[3] % params.groups == 0 && w[3] % params.groups == 0,
        "[{}] {} groups do not divide the {} channels of the input {} and the {} of the output; choose a "
        "common divisor",
        op, params.groups, x[3], x, w[3]);
  check(x[3] == w[2] * params.groups,
        "[{}] the input {} has {} channels but the weights {} expect {}; images are [N, H, W, C] and weights "
        "[KH, KW, C_in / groups, C_out]",
        op, x, x[3], w, w[2] * params.groups);
  check(x[1] >= 1 && x[2] >= 1 && x[3] >= 1 && w[0] >= 1 && w[1] >= 1 && w[3] >= 1,
        "[{}] the input {} or the weights {} have an empty dimension; only the batch may be empty", op, x, w);
  check(x[1] + 2 * params.pad_h >= w[0] && x[2] + 2 * params.pad_w >= w[1],
        "[{}] the kernel {} x {} is larger than the padded image {} x {}; pad more or use a smaller kernel",
        op, w[0], w[1], x[1] + 2 * params.pad_h, x[2] + 2 * params.pad_w);
  return {x[0], output_extent(x[1], w[0], params.stride_h, params.pad_h),
          output_extent(x[2], w[1], params.stride_w, params.pad_w), w[3]};
}

void check_dtypes(const Tensor& a, const Tensor& b, std::string_view op) {
  check(a.defined() && b.defined(), "[{}] an argument is an undefined tensor; give it elements first", op);
  check(is_floating(a.dtype()) && a.dtype() == b.dtype(),
        "[{}] the arguments are {} and {}; both must be f32 or both f64 (convert with Tensor::to)", op,
        a.dtype(), b.dtype());
}

void check_output_grad(const Tensor& gy, const Shape& expected, std::string_view op) {
  check(
      gy.shape() == expected,
      "[{}] the gradient of the output has shape {} but the convolution's output is {}; pass the gradient of "
      "this very convolution",
      op, gy.shape(), expected);
}

}  // namespace goshawk::kernels
