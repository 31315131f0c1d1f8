// The convolution trio. C(x, w) is bilinear; conv2d_input_grad and conv2d_weight_grad are its adjoints in x
// and in w, so ⟨g, C(x, w)⟩ = ⟨C_x(g, w), x⟩ = ⟨C_w(x, g), w⟩ and each derivative below is again one of the
// three.
#include "autograd/ops.hpp"

namespace goshawk {
namespace {

const Op& kConv2d = register_op("conv2d");
const Op& kConv2dInputGrad = register_op("conv2d_input_grad");
const Op& kConv2dWeightGrad = register_op("conv2d_weight_grad");

/// The gradients with respect to a convolution's images, added to what was collected of them where that is
/// possible.
Variable input_grad(const Backward& d, int input, const Variable& gy, const Variable& w, const Shape& x_shape,
                    const ConvParams& params) {
  if (recording()) return conv2d_input_grad(gy, w, x_shape, params);
  return kernels::conv2d_input_grad(gy.value(), w.value(), x_shape, params, d.take_collected(input));
}
Variable output_grad(const Backward& d, int input, const Variable& x, const Variable& w,
                     const ConvParams& params) {
  if (recording()) return conv2d(x, w, params);
  return kernels::conv2d(x.value(), w.value(), params, d.take_collected(input));
}

}  // namespace

Variable conv2d(const Variable& x, const Variable& w, const ConvParams& params) {
  return record(
      kConv2d, {x, w}, kernels::conv2d(x.value(), w.value(), params), [x, w, params](const Backward& d) {
        return std::vector{d.needs(0) ? input_grad(d, 0, d.grad(), w, x.shape(), params) : Variable(),
                           d.needs(1) ? conv2d_weight_grad(x, d.grad(), w.shape(), params) : Variable()};
      });
}

Variable conv2d_input_grad(const Variable& gy, const Variable& w, const Shape& x_shape,
                           const ConvParams& params) {
  return record(kConv2dInputGrad, {gy, w}, kernels::conv2d_input_grad(gy.value(), w.value(), x_shape, params),
                [gy, w, params](const Backward& d) {
                  return std::vector{
                      d.needs(0) ? output_grad(d, 0, d.grad(), w, params) : Variable(),
                      d.needs(1) ? conv2d_weight_grad(d.grad(), gy, w.shape(), params) : Variable()};
                });
}

Variable conv2d_weight_grad(const Variable& x, const Variable& gy, const Shape& w_shape,
                            const ConvParams& params) {
  return record(
      kConv2dWeightGrad, {x, gy}, kernels::conv2d_weight_grad(x.value(), gy.value(), w_shape, params),
      [x, gy, params](const Backward& d) {
        return std::vector{d.needs(0) ? input_grad(d, 0, gy, d.grad(), x.shape(), params) : Variable(),
                           d.needs(1) ? output_grad(d, 1, x, d.grad(), params) : Variable()};
      });
}

}  // namespace goshawk
