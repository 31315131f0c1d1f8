#include <cmath>
#include <doctest/doctest.h>

#include "autograd/grad.hpp"
#include "autograd/ops.hpp"
#include "core/random.hpp"
#include "quant/dorefa.hpp"
#include "quant/fake_quantize.hpp"

using namespace goshawk;

namespace {

std::vector<double> values(const Tensor& t) {
  return t.to(DType::f64).to_vector<double>();
}

// Weights whose tanh are these.
Tensor with_tanh(const std::vector<double>& t) {
  std::vector<double> w;
  for (double v : t) w.push_back(std::atanh(v));
  return Tensor::from(w, {static_cast<std::int64_t>(w.size()), 1});
}

WeightSpec dorefa(int bits) {
  return {.bits = bits, .scheme = WeightScheme::dorefa};
}

}  // namespace

TEST_CASE("DoReFa weights: by hand") {
  // tanh/max = −1, 0.25, 0.5, −0.25; with r = v/2 + ½, 3r = 0, 1.875, 2.25, 1.125.
  const Tensor w = with_tanh({-0.8, 0.2, 0.4, -0.2});
  const QuantizedTensor q = quantize_weights(w, dorefa(2));
  const std::vector<double> expected = {-1, 1.0 / 3, 1.0 / 3, -1.0 / 3};
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(values(q.dequantized)[i] == doctest::Approx(expected[i]).epsilon(1e-14));
  CHECK(values(q.codes) == std::vector<double>{-2, 0, 0, -1});
}

TEST_CASE("DoReFa weights: the paper's formula in plain arithmetic, and at most 2^b levels") {
  Random random(4);
  const Tensor w = random_normal({3, 3, 4, 8}, DType::f64, random);
  double most = 0;
  for (double v : values(w)) most = std::max(most, std::abs(std::tanh(v)));
  for (int bits = 2; bits <= 8; ++bits) {
    const double n = (1 << bits) - 1;
    const Tensor q = quantize_weights(w, dorefa(bits)).dequantized;
    for (std::int64_t i = 0; i < w.numel(); ++i) {
      const double r = std::tanh(w.data<double>()[i]) / (2 * most) + 0.5;
      CHECK(q.data<double>()[i] == doctest::Approx(2 * std::nearbyint(n * r) / n - 1).epsilon(1e-13));
    }
    CHECK(distinct_levels(q, Granularity::layer) <= (1 << bits));
    CHECK(distinct_levels(quantize_weights(w.to(DType::f32), dorefa(bits)).dequantized, Granularity::layer) <=
          (1 << bits));
  }
}

TEST_CASE("DoReFa's one bit is sign(w)·mean|w| and passes every gradient") {
  const Tensor w = Tensor::from<double>({-1, 3, 0.5, -1.5}, {4, 1});
  CHECK(values(quantize_weights(w, dorefa(1)).dequantized) == std::vector<double>{-1.5, 1.5, 1.5, -1.5});
  const Variable x = Variable::leaf(w);
  const Variable g = grad(sum(fake_quantize(x, dorefa(1), choose_grid(w, dorefa(1)))), std::vector{x})[0];
  CHECK(values(g.value()) == std::vector<double>{1, 1, 1, 1});
}

TEST_CASE("DoReFa gradients: by hand, through tanh and through the maximum") {
  const std::vector<double> t = {-0.8, 0.2, 0.4, -0.2}, u = {5, 1, 2, 3};
  const Variable w = Variable::leaf(with_tanh(t));
  const Variable y = fake_quantize(w, dorefa(2), choose_grid(w.value(), dorefa(2)));
  const Variable g = grad(std::vector{y}, std::vector{w}, {.grad_outputs = {Tensor::from(u, {4, 1})}})[0];
  double at_maximum = 0;
  for (std::size_t i = 1; i < 4; ++i) {
    CHECK(values(g.value())[i] == doctest::Approx(u[i] * (1 - t[i] * t[i]) / 0.8).epsilon(1e-13));
    // v_i = t_i/|t_0| and ∂|t_0|/∂t_0 = −1; v_0 = −1 whatever t_0 is.
    at_maximum += u[i] * t[i] / (0.8 * 0.8);
  }
  CHECK(values(g.value())[0] == doctest::Approx((1 - 0.64) * at_maximum).epsilon(1e-12));
}

TEST_CASE("DoReFa's perturbation is up to scale, and weights of zero stay finite") {
  // Already on the levels up to a factor of tanh: 0.01·{−1, −⅓, ⅓, 1} to first order.
  const Tensor w = Tensor::from<double>({-0.01, -0.01 / 3, 0.01 / 3, 0.01}, {4, 1});
  CHECK(perturbation(w, dorefa(2)) < 1e-12);
  CHECK(perturbation(w, dorefa(1)) > 1e-5);
  const Tensor zero = Tensor::zeros({4, 2}, DType::f32);
  CHECK(values(dorefa_normalize(zero).value()) == std::vector<double>(8, 0));
  for (int bits = 1; bits <= 8; ++bits) {
    for (double v : values(quantize_weights(zero, dorefa(bits)).dequantized)) CHECK(std::isfinite(v));
  }
}
