// The convolution trio. C(x, w) is bilinear; conv2d_input_grad and conv2d_weight_grad are its adjoints in x
// and in w, so ⟨g, C(x, w)⟩ = ⟨C_x(g, w), x⟩ = ⟨C_w(x, g), w⟩ and each derivative below is again one of the
// three. A bias and a residual may be added to C and a ReLU follow, and a residual may be added to C_x, which
// spares passes over their results.
#include <utility>

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

/// conv2d_input_grad plus a residual, which may be undefined and stays as it is.
Tensor input_grad(const Tensor& gy, const Tensor& w, const Shape& x_shape, const ConvParams& params,
                  const Tensor& residual) {
  if (!residual.defined()) return kernels::conv2d_input_grad(gy, w, x_shape, params);
  return kernels::conv2d_input_grad_sums({{.pairs = {{gy, w}}, .residual = residual}}, x_shape, params)
      .front();
}

/// The convolutions that give images, added to `sum` (undefined: zero): in place where nothing is recorded
/// and nobody else holds the sum's tensor.
Variable add_conv2d(const Variable& sum, const Variable& x, const Variable& w, const ConvParams& params) {
  if (recording()) return conv2d(x, w, params, {}, {.residual = sum});
  if (sum.defined() && sum.value().unique())
    return kernels::conv2d(x.value(), w.value(), params, sum.value());
  return kernels::conv2d(x.value(), w.value(), params, {}, {.residual = sum.value()});
}
Variable add_input_grad(const Variable& sum, const Variable& gy, const Variable& w, const Shape& x_shape,
                        const ConvParams& params) {
  if (recording()) return conv2d_input_grad(gy, w, x_shape, params, sum);
  if (!sum.defined() || sum.value().unique()) {
    return kernels::conv2d_input_grad(gy.value(), w.value(), x_shape, params, sum.value());
  }
  return input_grad(gy.value(), w.value(), x_shape, params, sum.value());
}

/// Where nothing is recorded: the pairs whose products add up to the tangent of product(a, b). None where
/// neither moves; what all directions have in common stands at the same place in each.
kernels::ConvPairs moving_pairs(const Variable& a, const Variable& b, const Forward& direction) {
  const Variable &da = direction.tangent(0), &db = direction.tangent(1);
  kernels::ConvPairs pairs;
  if (db.defined()) pairs.push_back({a.value(), db.value()});
  if (da.defined()) pairs.push_back({da.value(), b.value()});
  return pairs;
}
/// Where it is recorded: the tangent itself.
template <class Product>
Variable product_tangent(const Variable& a, const Variable& b, const Forward& direction,
                         const Product& product) {
  const Variable &da = direction.tangent(0), &db = direction.tangent(1);
  Variable sum;
  if (db.defined()) accumulate(sum, product(a, db));
  if (da.defined()) accumulate(sum, product(da, b));
  return sum;
}

/// How y = relu?(z + shift? + residual?) moves when what it is the sum of does. y undefined: there is no
/// ReLU.
Variable shifted_tangent(const Variable& dz, const Variable& shift, const Variable& residual, const Tensor& y,
                         const Shape& shape) {
  Variable sum = dz;
  if (shift.defined()) sum = sum.defined() ? channel_shift(sum, shift) : broadcast_to(shift, shape);
  if (residual.defined()) sum = sum.defined() ? add(sum, residual) : residual;
  return sum.defined() && y.defined() ? mask_positive(sum, y) : sum;
}

/// For each direction the tangent of y = relu?(product(a, b) + shift? + residual?), whose inputs 0 and 1 are
/// a and b. `rest` takes the tangents of shift and residual; `sums` computes several at once. `mask`: y where
/// there is a ReLU.
template <class Rest, class Product, class Sums>
std::vector<Variable> image_tangents(std::span<const Forward> directions, const Variable& a,
                                     const Variable& b, const Tensor& mask, const Shape& shape,
                                     const Rest& rest, const Product& product, const Sums& sums) {
  std::vector<Variable> tangents(directions.size());
  std::vector<kernels::ConvSum> moving;
  std::vector<std::size_t> which;
  for (std::size_t k = 0; k < directions.size(); ++k) {
    const Forward& d = directions[k];
    const auto [shift, residual] = rest(d);
    if (recording() || (!d.tangent(0).defined() && !d.tangent(1).defined())) {
      tangents[k] = shifted_tangent(product_tangent(a, b, d, product), shift, residual, mask, shape);
      continue;
    }
    const bool own = residual.defined() && residual.value().unique();
    moving.push_back({moving_pairs(a, b, d), shift.value(), residual.value(), mask, own});
    which.push_back(k);
  }
  const std::vector<Tensor> values = sums(moving);
  for (std::size_t i = 0; i < values.size(); ++i) tangents[which[i]] = values[i];
  return tangents;
}

/// For each direction the tangent of conv2d_weight_grad(x, gy).
std::vector<Variable> weight_tangents(std::span<const Forward> directions, const Variable& x,
                                      const Variable& gy, const Shape& w_shape, const ConvParams& params) {
  std::vector<Variable> tangents(directions.size());
  std::vector<kernels::ConvPairs> moving;
  for (std::size_t k = 0; k < directions.size(); ++k) {
    if (recording()) {
      tangents[k] = product_tangent(x, gy, directions[k], [&](const Variable& one, const Variable& other) {
        return conv2d_weight_grad(one, other, w_shape, params);
      });
    } else {
      moving.push_back(moving_pairs(x, gy, directions[k]));
    }
  }
  const std::vector<Tensor> values = kernels::conv2d_weight_grad_sums(moving, w_shape, params);
  for (std::size_t k = 0; k < values.size(); ++k) tangents[k] = values[k];
  return tangents;
}

/// One output a direction.
std::vector<JointJvp::Tangents> as_outputs(std::vector<Variable> tangents) {
  std::vector<JointJvp::Tangents> outputs;
  for (Variable& tangent : tangents) outputs.push_back({std::move(tangent)});
  return outputs;
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
        return as_outputs(image_tangents(
            directions, x, w, mask, shape,
            [](const Forward& d) { return std::pair(d.tangent(2), d.take(3)); },
            [&](const Variable& a, const Variable& b) { return conv2d(a, b, params); },
            [&](const auto& sums) { return kernels::conv2d_sums(sums, params); }));
      }));
}

Variable conv2d_input_grad(const Variable& gy, const Variable& w, const Shape& x_shape,
                           const ConvParams& params, const Variable& residual) {
  return record(
      kConv2dInputGrad, {gy, w, residual},
      input_grad(gy.value(), w.value(), x_shape, params, residual.value()),
      [gy, w, params](const Backward& d) {
        std::vector<Variable> grads(3);
        if (d.needs(0)) grads[0] = add_conv2d(d.take_collected(0), d.grad(), w, params);
        if (d.needs(1)) grads[1] = conv2d_weight_grad(d.grad(), gy, w.shape(), params);
        if (d.needs(2)) grads[2] = d.grad();
        return grads;
      },
      JointJvp([gy, w, x_shape, params](std::span<const Forward> directions) {
        return as_outputs(image_tangents(
            directions, gy, w, {}, x_shape, [](const Forward& d) { return std::pair(Variable(), d.take(2)); },
            [&](const Variable& a, const Variable& b) { return conv2d_input_grad(a, b, x_shape, params); },
            [&](const auto& sums) { return kernels::conv2d_input_grad_sums(sums, x_shape, params); }));
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
        return as_outputs(weight_tangents(directions, x, gy, w_shape, params));
      }));
}

}  // namespace goshawk
