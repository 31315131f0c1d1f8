// Elementwise ops. Each: the kernel call and, beside it, the VJP and the JVP.
#include "core/kernels/elementwise.hpp"

#include <cmath>

#include "autograd/ops.hpp"
#include "autograd/walk.hpp"

namespace goshawk {
namespace {

const Op& kAdd = register_op("add", Linearity::linear);
const Op& kSub = register_op("sub", Linearity::linear);
const Op& kMul = register_op("mul", Linearity::bilinear);
const Op& kDiv = register_op("div");
const Op& kScale = register_op("scale", Linearity::linear);
const Op& kAddScalar = register_op("add_scalar", Linearity::linear);
const Op& kExp = register_op("exp");
const Op& kLog = register_op("log");
const Op& kSqrt = register_op("sqrt");
const Op& kRsqrt = register_op("rsqrt");
const Op& kTanh = register_op("tanh");
const Op& kSigmoid = register_op("sigmoid");
const Op& kSoftplus = register_op("softplus");
const Op& kRelu = register_op("relu", Linearity::linear);
const Op& kMaskPositive = register_op("mask_positive", Linearity::linear);

// NumPy's rule for the shape of a binary op's result.
Shape broadcast_shape(const Shape& a, const Shape& b, const char* op) {
  std::vector<std::int64_t> dims(static_cast<std::size_t>(std::max(a.size(), b.size())));
  for (int i = 1; i <= static_cast<int>(dims.size()); ++i) {
    const std::int64_t da = i <= a.size() ? a[a.size() - i] : 1;
    const std::int64_t db = i <= b.size() ? b[b.size() - i] : 1;
    check(da == db || da == 1 || db == 1, "[{}] shapes {} and {} do not broadcast: extents {} and {} differ",
          op, a, b, da, db);
    dims[dims.size() - static_cast<std::size_t>(i)] = da == 1 ? db : da;
  }
  return Shape(dims);
}

// a − b, where an undefined operand is zero; not both are.
Variable difference(const Variable& a, const Variable& b) {
  if (!b.defined()) return a;
  return a.defined() ? sub(a, b) : neg(b);
}

// Calls f(a, b) with both operands brought to one shape.
template <class F>
Variable broadcasting(const Variable& a, const Variable& b, const char* op, F f) {
  check(a.dtype() == b.dtype(), "[{}] the operands must have one type but are {} and {}", op, a.dtype(),
        b.dtype());
  if (a.shape() == b.shape()) return f(a, b);
  const Shape shape = broadcast_shape(a.shape(), b.shape(), op);
  return f(a.shape() == shape ? a : broadcast_to(a, shape), b.shape() == shape ? b : broadcast_to(b, shape));
}

}  // namespace

Variable add(const Variable& a, const Variable& b) {
  return broadcasting(a, b, "add", [](const Variable& x, const Variable& y) {
    return record(
        kAdd, {x, y}, kernels::zip(x.value(), y.value(), "add", [](auto l, auto r) { return l + r; }),
        [](const Backward& d) {
          return std::vector{d.grad(), d.grad()};
        },
        [](const Forward& d) {
          Variable sum = d.take(0);
          accumulate(sum, d.tangent(1));
          return std::vector{sum};
        });
  });
}

Variable sub(const Variable& a, const Variable& b) {
  return broadcasting(a, b, "sub", [](const Variable& x, const Variable& y) {
    return record(
        kSub, {x, y}, kernels::zip(x.value(), y.value(), "sub", [](auto l, auto r) { return l - r; }),
        [](const Backward& d) {
          return std::vector{d.grad(), d.needs(1) ? neg(d.grad()) : Variable()};
        },
        [](const Forward& d) { return std::vector{difference(d.tangent(0), d.tangent(1))}; });
  });
}

Variable mul(const Variable& a, const Variable& b) {
  return broadcasting(a, b, "mul", [](const Variable& x, const Variable& y) {
    return record(
        kMul, {x, y}, kernels::zip(x.value(), y.value(), "mul", [](auto l, auto r) { return l * r; }),
        [x, y](const Backward& d) {
          return std::vector{d.needs(0) ? mul(d.grad(), y) : Variable(),
                             d.needs(1) ? mul(d.grad(), x) : Variable()};
        },
        [x, y](const Forward& d) {
          Variable sum;
          if (d.tangent(0).defined()) sum = mul(d.tangent(0), y);
          if (d.tangent(1).defined()) accumulate(sum, mul(x, d.tangent(1)));
          return std::vector{sum};
        });
  });
}

Variable div(const Variable& a, const Variable& b) {
  return broadcasting(a, b, "div", [](const Variable& x, const Variable& y) {
    const Tensor quotient = kernels::zip(x.value(), y.value(), "div", [](auto l, auto r) { return l / r; });
    return record(
        kDiv, {x, y}, quotient,
        [y, quotient](const Backward& d) {
          const Variable gx = div(d.grad(), y);
          return std::vector{gx, d.needs(1) ? neg(mul(gx, d.output(quotient))) : Variable()};
        },
        [y, quotient](const Forward& d) {
          const Variable& dy = d.tangent(1);
          const Variable moved = dy.defined() ? mul(d.output(quotient), dy) : Variable();
          return std::vector{div(difference(d.tangent(0), moved), y)};
        });
  });
}

Variable scale(const Variable& x, double factor) {
  return record(
      kScale, {x},
      kernels::map(x.value(), "scale", [factor](auto v) { return static_cast<decltype(v)>(factor) * v; }),
      [factor](const Backward& d) { return std::vector{scale(d.grad(), factor)}; }, symmetric);
}

Variable add_scalar(const Variable& x, double offset) {
  return record(
      kAddScalar, {x},
      kernels::map(x.value(), "add_scalar",
                   [offset](auto v) { return v + static_cast<decltype(v)>(offset); }),
      [](const Backward& d) { return std::vector{d.grad()}; }, symmetric);
}

Variable neg(const Variable& x) {
  return scale(x, -1);
}

Variable exp(const Variable& x) {
  const Tensor y = kernels::map(x.value(), "exp", [](auto v) { return std::exp(v); });
  return record(
      kExp, {x}, y, [y](const Backward& d) { return std::vector{mul(d.grad(), d.output(y))}; }, symmetric);
}

Variable log(const Variable& x) {
  return record(
      kLog, {x}, kernels::map(x.value(), "log", [](auto v) { return std::log(v); }),
      [x](const Backward& d) { return std::vector{div(d.grad(), x)}; }, symmetric);
}

Variable sqrt(const Variable& x) {
  const Tensor y = kernels::map(x.value(), "sqrt", [](auto v) { return std::sqrt(v); });
  return record(
      kSqrt, {x}, y, [y](const Backward& d) { return std::vector{scale(div(d.grad(), d.output(y)), 0.5)}; },
      symmetric);
}

Variable rsqrt(const Variable& x) {
  const Tensor y = kernels::map(x.value(), "rsqrt", [](auto v) { return 1 / std::sqrt(v); });
  return record(
      kRsqrt, {x}, y,
      [x, y](const Backward& d) { return std::vector{scale(div(mul(d.grad(), d.output(y)), x), -0.5)}; },
      symmetric);
}

Variable tanh(const Variable& x) {
  const Tensor y = kernels::map(x.value(), "tanh", [](auto v) { return std::tanh(v); });
  return record(
      kTanh, {x}, y,
      [y](const Backward& d) {
        const Variable t = d.output(y);
        return std::vector{mul(d.grad(), add_scalar(neg(mul(t, t)), 1))};
      },
      symmetric);
}

Variable sigmoid(const Variable& x) {
  const Tensor y = kernels::map(x.value(), "sigmoid", [](auto v) { return 1 / (1 + std::exp(-v)); });
  return record(
      kSigmoid, {x}, y,
      [y](const Backward& d) {
        const Variable s = d.output(y);
        return std::vector{mul(d.grad(), mul(s, add_scalar(neg(s), 1)))};
      },
      symmetric);
}

Variable softplus(const Variable& x) {
  const Tensor y = kernels::map(x.value(), "softplus", [](auto v) {
    return std::max(v, decltype(v){0}) + std::log1p(std::exp(-std::abs(v)));
  });
  return record(
      kSoftplus, {x}, y, [x](const Backward& d) { return std::vector{mul(d.grad(), sigmoid(x))}; },
      symmetric);
}

Variable relu(const Variable& x) {
  // Written so that NaN passes, here and in the mask.
  const Tensor y =
      kernels::map(x.value(), "relu", [](auto v) { return v <= decltype(v){0} ? decltype(v){0} : v; });
  // The output's sign is the mask: nothing else is kept.
  return record(
      kRelu, {x}, y, [y](const Backward& d) { return std::vector{mask_positive(d.grad(), y)}; }, symmetric);
}

Variable mask_positive(const Variable& x, const Tensor& positive) {
  Tensor y = kernels::zip(x.value(), positive, "mask_positive",
                          [](auto v, auto p) { return p <= decltype(p){0} ? decltype(v){0} : v; });
  return record(
      kMaskPositive, {x}, std::move(y),
      [positive](const Backward& d) { return std::vector{mask_positive(d.grad(), positive)}; }, symmetric);
}

}  // namespace goshawk
