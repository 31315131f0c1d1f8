#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <string>

#include "autograd/gradcheck.hpp"
#include "autograd/ops.hpp"
#include "core/random.hpp"

using namespace goshawk;

namespace {

using V = std::vector<Variable>;

// x² with a derivative that is wrong in first order (2.001 x) or, hidden from a first-order check, in second:
// the derivative's value is right but part of it is detached.
Variable wrong_first(const Variable& x) {
  return x * x + scale(x * x, 0.0005) - scale((x * x).detach(), 0.0005);
}
Variable wrong_second(const Variable& x) {
  return scale(x * x.detach(), 2) - (x * x).detach();
}

Tensor point() {
  Random random(1);
  return random_normal({5}, DType::f64, random);
}

}  // namespace

TEST_CASE("a right derivative passes both checks") {
  const auto f = [](const V& v) { return exp(v[0]) * v[0]; };
  CHECK(gradcheck(f, {point()}).ok);
  CHECK(gradgradcheck(f, {point()}).ok);
}

TEST_CASE("a wrong first derivative is caught") {
  const auto f = [](const V& v) { return wrong_first(v[0]); };
  const GradcheckResult result = gradcheck(f, {point()});
  CHECK_FALSE(result.ok);
  CHECK(result.error > 1e-5);
  CHECK(result.message.find("first derivative") == 0);
}

TEST_CASE("a wrong second derivative is caught although the first is right") {
  const auto f = [](const V& v) { return wrong_second(v[0]); };
  CHECK(gradcheck(f, {point()}).ok);
  CHECK_FALSE(gradgradcheck(f, {point()}).ok);
}

TEST_CASE("the surrogate check compares values of both derivatives") {
  const auto straight_through = [](const V& v) { return v[0] * v[0]; };
  CHECK(surrogatecheck(straight_through, [](const V& v) { return v[0] * v[0]; }, {point()}).ok);
  CHECK_FALSE(
      surrogatecheck(straight_through, [](const V& v) { return scale(v[0] * v[0], 1.001); }, {point()}).ok);
  CHECK_FALSE(surrogatecheck(straight_through, [](const V& v) { return wrong_second(v[0]); }, {point()}).ok);
}

TEST_CASE("a NaN fails every check, whatever comes after it") {
  // The derivative of the first element alone.
  Tensor mask = Tensor::full({5}, DType::f64, 1);
  mask.data<double>()[0] = std::numeric_limits<double>::quiet_NaN();
  const auto nan_first = [&](const V& v) { return mul(v[0], mask); };
  const GradcheckResult surrogate =
      surrogatecheck(nan_first, [](const V& v) { return scale(v[0], 1.5); }, {point()}, {.tolerance = 1});
  CHECK_FALSE(surrogate.ok);
  CHECK(std::isnan(surrogate.error));
  CHECK(surrogate.message.find("nan") != std::string::npos);
  CHECK_FALSE(gradcheck(nan_first, {point()}).ok);
  CHECK_FALSE(gradgradcheck(nan_first, {point()}).ok);

  // The tangent of the first input where it moves alone; what is compared after it differs by rounding only.
  static const Op& sum_op = register_op("test_sum_with_a_nan_tangent");
  const auto f = [&](const V& v) {
    return record(
        sum_op, {v[0], v[1]}, add(v[0], v[1]).value(),
        [](const Backward& d) {
          return std::vector{d.grad(), d.grad()};
        },
        [&](const Forward& d) {
          if (!d.tangent(1).defined()) return std::vector{mul(d.tangent(0), mask)};
          return std::vector{d.tangent(0).defined() ? add(d.tangent(0), d.tangent(1)) : d.tangent(1)};
        });
  };
  const GradcheckResult forward = jvpcheck(f, {point(), point()});
  CHECK_FALSE(forward.ok);
  CHECK(std::isnan(forward.error));
}

TEST_CASE("f32 inputs are refused: their differences would prove nothing") {
  CHECK_THROWS_AS(gradcheck([](const V& v) { return v[0]; }, {Tensor::zeros({2}, DType::f32)}), Error);
}
