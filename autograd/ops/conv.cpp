// The convolution trio. C(x, w) is bilinear; conv2d_input_grad and conv2d_weight_grad are its adjoints in x
// and in w, so ⟨g, C(x, w)⟩ = ⟨C_x(g, w), x⟩ = ⟨C_w(x, g), w⟩ and each derivative below is again one of the
// three. A bias may be added to C, which spares a pass over its result.
#include "autograd/joint_jvp.hpp"
#include "autograd/ops.hpp"
#include "autograd/walk.hpp"
#include "core/kernels/conv_sums.hpp"

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
      JointJvp([x, w, params, shape = y.shape()](std::span<const Forward> directions) {
        std::vector<Variable> sums = product_tangents(
            directions, x, w, [&](const Variable& a, const Variable& b) { return conv2d(a, b, params); },
            [&](const auto& pairs) { return kernels::conv2d_sums(pairs, params); });
        for (std::size_t k = 0; k < sums.size(); ++k) {
          const Variable& shift = directions[k].tangent(2);
          if (!shift.defined()) continue;
          sums[k] = sums[k].defined() ? channel_shift(sums[k], shift) : broadcast_to(shift, shape);
        }
        return as_outputs(std::move(sums));
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
