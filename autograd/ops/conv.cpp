// The convolution trio. C(x, w) is bilinear; conv2d_input_grad and conv2d_weight_grad are its adjoints in x
// and in w, so ⟨g, C(x, w)⟩ = ⟨C_x(g, w), x⟩ = ⟨C_w(x, g), w⟩ and each derivative below is again one of the
// three. A bias may be added to C, which spares a pass over its result.
#include "autograd/ops.hpp"
#include "autograd/walk.hpp"

namespace goshawk {
namespace {

const Op& kConv2d = register_op("conv2d", Linearity::bilinear);
const Op& kConv2dInputGrad = register_op("conv2d_input_grad", Linearity::bilinear);
const Op& kConv2dWeightGrad = register_op("conv2d_weight_grad", Linearity::bilinear);

/// The convolutions that give images, added to `sum` (undefined: zero) in place where nothing is recorded;
/// the sum's tensor must then be nobody else's.
Variable add_conv2d(Variable sum, const Variable& x, const Variable& w, const ConvParams& params) {
  if (!recording()) return kernels::conv2d(x.value(), w.value(), params, sum.value());
  accumulate(sum, conv2d(x, w, params));
  return sum;
}
Variable add_input_grad(Variable sum, const Variable& gy, const Variable& w, const Shape& x_shape,
                        const ConvParams& params) {
  if (!recording()) return kernels::conv2d_input_grad(gy.value(), w.value(), x_shape, params, sum.value());
  accumulate(sum, conv2d_input_grad(gy, w, x_shape, params));
  return sum;
}

}  // namespace

Variable conv2d(const Variable& x, const Variable& w, const ConvParams& params, const Variable& bias) {
  const Tensor y = kernels::conv2d(x.value(), w.value(), params, {}, bias.value());
  return record(
      kConv2d, {x, w, bias}, y,
      [x, w, params](const Backward& d) {
        std::vector<Variable> grads(3);
        if (d.needs(0)) grads[0] = add_input_grad(d.take_collected(0), d.grad(), w, x.shape(), params);
        if (d.needs(1)) grads[1] = conv2d_weight_grad(x, d.grad(), w.shape(), params);
        if (d.needs(2)) grads[2] = channel_sum(d.grad());
        return grads;
      },
      [x, w, params, shape = y.shape()](const Forward& d) {
        Variable sum;
        if (d.tangent(0).defined()) sum = conv2d(d.tangent(0), w, params);
        if (d.tangent(1).defined()) sum = add_conv2d(std::move(sum), x, d.tangent(1), params);
        if (d.tangent(2).defined()) {
          sum = sum.defined() ? channel_shift(sum, d.tangent(2)) : broadcast_to(d.tangent(2), shape);
        }
        return std::vector{sum};
      });
}

Variable conv2d_input_grad(const Variable& gy, const Variable& w, const Shape& x_shape,
                           const ConvParams& params) {
  return record(
      kConv2dInputGrad, {gy, w}, kernels::conv2d_input_grad(gy.value(), w.value(), x_shape, params),
      [gy, w, params](const Backward& d) {
        std::vector<Variable> grads(2);
        if (d.needs(0)) grads[0] = add_conv2d(d.take_collected(0), d.grad(), w, params);
        if (d.needs(1)) grads[1] = conv2d_weight_grad(d.grad(), gy, w.shape(), params);
        return grads;
      },
      [gy, w, x_shape, params](const Forward& d) {
        Variable sum;
        if (d.tangent(0).defined()) sum = conv2d_input_grad(d.tangent(0), w, x_shape, params);
        if (d.tangent(1).defined()) sum = add_input_grad(std::move(sum), gy, d.tangent(1), x_shape, params);
        return std::vector{sum};
      });
}

Variable conv2d_weight_grad(const Variable& x, const Variable& gy, const Shape& w_shape,
                            const ConvParams& params) {
  return record(
      kConv2dWeightGrad, {x, gy}, kernels::conv2d_weight_grad(x.value(), gy.value(), w_shape, params),
      [x, gy, params](const Backward& d) {
        std::vector<Variable> grads(2);
        if (d.needs(0)) grads[0] = add_input_grad(d.take_collected(0), gy, d.grad(), x.shape(), params);
        if (d.needs(1)) grads[1] = add_conv2d(d.take_collected(1), x, d.grad(), params);
        return grads;
      },
      [x, gy, w_shape, params](const Forward& d) {
        Variable sum;
        if (d.tangent(0).defined()) sum = conv2d_weight_grad(d.tangent(0), gy, w_shape, params);
        if (d.tangent(1).defined()) accumulate(sum, conv2d_weight_grad(x, d.tangent(1), w_shape, params));
        return std::vector{sum};
      });
}

}  // namespace goshawk
