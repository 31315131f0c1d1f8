// Per-channel ops, closed under differentiation: every derivative is again one of them (or a per-channel
// vector op).
#include "core/kernels/channel.hpp"

#include "autograd/ops.hpp"
#include "autograd/walk.hpp"

namespace goshawk {
namespace {

const Op& kChannelShift = register_op("channel_shift", Linearity::linear);
const Op& kChannelScale = register_op("channel_scale", Linearity::bilinear);
const Op& kChannelSum = register_op("channel_sum", Linearity::linear);
const Op& kChannelDot = register_op("channel_dot", Linearity::bilinear);

}  // namespace

Variable channel_shift(const Variable& x, const Variable& t) {
  return record(
      kChannelShift, {x, t}, kernels::channel_shift(x.value(), t.value()),
      [](const Backward& d) {
        return std::vector{d.grad(), d.needs(1) ? channel_sum(d.grad()) : Variable()};
      },
      [shape = x.shape()](const Forward& d) {
        const Variable &dx = d.tangent(0), &dt = d.tangent(1);
        if (!dt.defined()) return std::vector{dx};
        return std::vector{dx.defined() ? channel_shift(dx, dt) : broadcast_to(dt, shape)};
      });
}

Variable channel_scale(const Variable& x, const Variable& s) {
  return record(
      kChannelScale, {x, s}, kernels::channel_affine(x.value(), s.value(), {}),
      [x, s](const Backward& d) {
        return std::vector{d.needs(0) ? channel_scale(d.grad(), s) : Variable(),
                           d.needs(1) ? channel_dot(d.grad(), x) : Variable()};
      },
      [x, s](const Forward& d) {
        Variable sum;
        if (d.tangent(0).defined()) sum = channel_scale(d.tangent(0), s);
        if (d.tangent(1).defined()) accumulate(sum, channel_scale(x, d.tangent(1)));
        return std::vector{sum};
      });
}

Variable channel_sum(const Variable& x) {
  return record(
      kChannelSum, {x}, kernels::channel_sum(x.value()),
      [shape = x.shape()](const Backward& d) { return std::vector{broadcast_to(d.grad(), shape)}; },
      [](const Forward& d) { return std::vector{channel_sum(d.tangent())}; });
}

Variable channel_dot(const Variable& a, const Variable& b) {
  return record(
      kChannelDot, {a, b}, kernels::channel_dot(a.value(), b.value()),
      [a, b](const Backward& d) {
        return std::vector{d.needs(0) ? channel_scale(b, d.grad()) : Variable(),
                           d.needs(1) ? channel_scale(a, d.grad()) : Variable()};
      },
      [a, b](const Forward& d) {
        Variable sum;
        if (d.tangent(0).defined()) sum = channel_dot(d.tangent(0), b);
        if (d.tangent(1).defined()) accumulate(sum, channel_dot(a, d.tangent(1)));
        return std::vector{sum};
      });
}

}  // namespace goshawk
