// An op of one's own, Φ(x) = P(a standard normal number is below x), with its derivative; GELU is made of it.
#include <cmath>
#include <numbers>

#include "autograd/grad.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/ops.hpp"
#include "core/parallel.hpp"
#include "core/random.hpp"

using namespace goshawk;

namespace {

const Op& kNormalCdf = register_op("normal_cdf");

// Φ'(x) = exp(−x²/2)/√(2π), from ops that can be differentiated, which is all that higher derivatives need.
Variable normal_density(const Variable& x) {
  return scale(exp(scale(mul(x, x), -0.5)), 1 / std::sqrt(2 * std::numbers::pi));
}

Variable normal_cdf(const Variable& x) {
  const Tensor value = Tensor::empty_like(x.value());
  dispatch_floating(x.dtype(), "normal_cdf", [&]<class T>() {
    const T* const from = x.value().data<T>();
    T* const to = value.data<T>();
    parallel_for(value.numel(), kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) to[i] = std::erfc(-from[i] / std::numbers::sqrt2_v<T>) / 2;
    });
  });
  return record(
      kNormalCdf, {x}, value,
      [x](const Backward& d) { return std::vector{mul(d.grad(), normal_density(x))}; },
      symmetric);  // elementwise: the tangent rule is the gradient rule
}

Variable gelu(const Variable& x) {
  return mul(x, normal_cdf(x));
}

// In f64, against central differences: the derivative, the derivative's derivative, and tangents.
bool check_derivatives(const char* name, Variable (*op)(const Variable&)) {
  Random random(/*seed=*/1);
  const std::vector<Tensor> inputs{random_normal({3, 4}, DType::f64, random)};
  const CheckedFunction f = [op](const std::vector<Variable>& v) { return op(v[0]); };
  bool ok = true;
  for (const GradcheckResult& result :
       {gradcheck(f, inputs), gradgradcheck(f, inputs), jvpcheck(f, inputs)}) {
    fmt::print("{}: error {:.1e} {}\n", name, result.error, result.ok ? "" : result.message);
    ok = ok && result.ok;
  }
  return ok;
}

}  // namespace

int main() {
  const bool ok = check_derivatives("normal_cdf", normal_cdf) && check_derivatives("gelu", gelu);
  // A closed form as well: GELU''(0) = 2Φ'(0) = √(2/π).
  const Variable zero = Variable::leaf(Tensor::scalar(0, DType::f64));
  const Variable slope = grad(gelu(zero), std::vector{zero}, {.create_graph = true})[0];
  const double bend = grad(slope, std::vector{zero})[0].item();
  fmt::print("GELU''(0) = {:.15f}\n", bend);
  return ok && std::abs(bend - std::sqrt(2 / std::numbers::pi)) < 1e-15 ? 0 : 1;
}
