// The convolution trio. C(x, w) is bilinear; conv2d_input_grad and conv2d_weight_grad are its adjoints in x
// and in w, so ⟨g, C(x, w)⟩ = ⟨C_x(g, w), x⟩ = ⟨C_w(x, g), w⟩ and each derivative below is again one of the
// three. A bias and a residual may be added to C and a ReLU follow, which spares passes over its result.
#include "autograd/joint_jvp.hpp"
#include "autograd/ops.hpp"
#include "autograd/walk.hpp"
#include "core/kernels/channel.hpp"
#include "core/kernels/conv_sums.hpp"

namespace goshawk {
namespace {

const Op& kConv2d = register_op("conv2d", Linearity::bilinear);
const Op& kConv2dInputGrad = register_op("conv2d_input_grad", Linearity::bilinear);
const Op& kConv2dWeightGrad = register_op("conv2d_weight_grad", Linearity::bilinear);
const Op& kShiftGrad = register_op("shift_grad", Linearity::linear);

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

/// For each direction the tangent of product(a, b), which is product(a, db) + product(da, b) and undefined
/// where neither moves. `sums` computes such sums of several directions at once.
template <class Product, class Sums>
std::vector<Variable> product_tangents(std::span<const Forward> directions, const Variable& a,
                                       const Variable& b, const Product& product, const Sums& sums) {
  std::vector<Variable> tangents(directions.size());
  std::vector<kernels::ConvPairs> moving;
  std::vector<std::size_t> which;
  for (std::size_t k = 0; k < directions.size(); ++k) {
    const Variable &da = directions[k].tangent(0), &db = directions[k].tangent(1);
    if (recording()) {
      if (db.defined()) accumulate(tangents[k], product(a, db));
      if (da.defined()) accumulate(tangents[k], product(da, b));
      continue;
    }
    // What all directions have in common stands at the same place in each.
    kernels::ConvPairs pairs;
    if (db.defined()) pairs.push_back({a.value(), db.value()});
    if (da.defined()) pairs.push_back({da.value(), b.value()});
    if (pairs.empty()) continue;
    moving.push_back(std::move(pairs));
    which.push_back(k);
  }
  const std::vector<Tensor> values = sums(moving);
  for (std::size_t i = 0; i < values.size(); ++i) tangents[which[i]] = values[i];
  return tangents;
}

/// One output a direction.
std::vector<JointJvp::Tangents> as_outputs(std::vector<Variable> tangents) {
  std::vector<JointJvp::Tangents> outputs;
  for (Variable& tangent : tangents) outputs.push_back({std::move(tangent)});
  return outputs;
}

/// How y = relu?(z + shift? + residual?) moves when what it is the sum of does. y undefined: there is no
/// ReLU. z's tangent must be nobody else's.
Variable shifted_tangent(const Variable& dz, const Variable& shift, const Variable& residual, const Tensor& y,
                         const Shape& shape) {
  if (!recording() && dz.defined()) {
    if (!shift.defined() && !residual.defined() && !y.defined()) return dz;
    return kernels::shift_tangent(dz.value(), shift.value(), residual.value(), y, true);
  }
  Variable sum = dz;
  if (shift.defined()) sum = sum.defined() ? channel_shift(sum, shift) : broadcast_to(shift, shape);
  if (residual.defined()) sum = sum.defined() ? add(sum, residual) : residual;
  return sum.defined() && y.defined() ? mask_positive(sum, y) : sum;
}

/// The gradient of y = relu(z + shift + residual) with respect to z and to the shift: gy where the ReLU
/// passed, and its sum over each channel.
std::vector<Variable> shift_grad(const Variable& gy, const Tensor& y) {
  const kernels::ShiftGradient first = kernels::shift_backward(gy.value(), y);
  return record(
      kShiftGrad, {gy}, {first.g, first.sum},
      [y](const Backward& d) {
        const Variable &g = d.grad(0), &sum = d.grad(1);
        if (!g.defined())
          return std::vector{sum.defined() ? mask_positive(broadcast_to(sum, y.shape()), y) : sum};
        if (recording() || !sum.defined()) {
          return std::vector{mask_positive(sum.defined() ? channel_shift(g, sum) : g, y)};
        }
        return std::vector{Variable(kernels::shift_tangent(g.value(), sum.value(), {}, y, false))};
      },
      [y](const Forward& d) {
        if (recording()) return shift_grad(d.tangent(), y);
        const Variable dgy = d.take();
        const kernels::ShiftGradient moving = kernels::shift_backward(dgy.value(), y, dgy.value().unique());
        return std::vector<Variable>{moving.g, moving.sum};
      });
}

}  // namespace

Variable conv2d(const Variable& x, const Variable& w, const ConvParams& params, const Variable& bias,
                const Epilogue& epilogue) {
  const Tensor y = kernels::conv2d(x.value(), w.value(), params, {},
                                   {bias.value(), epilogue.residual.value(), epilogue.relu});
  const Tensor mask = epilogue.relu ? y : Tensor();
  return record(
      kConv2d, {x, w, bias, epilogue.residual}, y,
      [x, w, params, mask](const Backward& d) {
        Variable g = d.grad(), sum;
        if (mask.defined()) {
          std::vector<Variable> first = shift_grad(g, mask);
          g = std::move(first[0]);
          sum = std::move(first[1]);
        }
        std::vector<Variable> grads(4);
        if (d.needs(0)) grads[0] = add_input_grad(d.take_collected(0), g, w, x.shape(), params);
        if (d.needs(1)) grads[1] = conv2d_weight_grad(x, g, w.shape(), params);
        if (d.needs(2)) grads[2] = sum.defined() ? sum : channel_sum(g);
        if (d.needs(3)) grads[3] = g;
        return grads;
      },
      JointJvp([x, w, params, mask, shape = y.shape()](std::span<const Forward> directions) {
        std::vector<Variable> tangents = product_tangents(
            directions, x, w, [&](const Variable& a, const Variable& b) { return conv2d(a, b, params); },
            [&](const auto& pairs) { return kernels::conv2d_sums(pairs, params); });
        for (std::size_t k = 0; k < tangents.size(); ++k) {
          tangents[k] =
              shifted_tangent(tangents[k], directions[k].tangent(2), directions[k].tangent(3), mask, shape);
        }
        return as_outputs(std::move(tangents));
      }));
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
      JointJvp([gy, w, x_shape, params](std::span<const Forward> directions) {
        return as_outputs(product_tangents(
            directions, gy, w,
            [&](const Variable& a, const Variable& b) { return conv2d_input_grad(a, b, x_shape, params); },
            [&](const auto& pairs) { return kernels::conv2d_input_grad_sums(pairs, x_shape, params); }));
      }));
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
      JointJvp([x, gy, w_shape, params](std::span<const Forward> directions) {
        return as_outputs(product_tangents(
            directions, x, gy,
            [&](const Variable& a, const Variable& b) { return conv2d_weight_grad(a, b, w_shape, params); },
            [&](const auto& pairs) { return kernels::conv2d_weight_grad_sums(pairs, w_shape, params); }));
      }));
}

}  // namespace goshawk
