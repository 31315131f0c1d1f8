#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>

#include "core/error.hpp"
#include "nn/init.hpp"
#include "nn/layers.hpp"

using namespace goshawk;

namespace {

struct Sample {
  double mean, variance, largest;
};
Sample sample(const Tensor& t) {
  double sum = 0, squares = 0, largest = 0;
  for (const float x : t.span<float>()) {
    sum += x;
    squares += static_cast<double>(x) * x;
    largest = std::max(largest, std::abs(static_cast<double>(x)));
  }
  const double n = static_cast<double>(t.numel());
  return {sum / n, squares / n, largest};
}

}  // namespace

TEST_CASE("fans of convolution and linear weights") {
  CHECK(fan_of(Tensor::zeros({3, 3, 16, 32}, DType::f32), Fan::in) == 144);
  CHECK(fan_of(Tensor::zeros({3, 3, 16, 32}, DType::f32), Fan::out) == 288);
  // Of 64 channels in 16 groups, an output sees four.
  CHECK(fan_of(Conv2d({.in = 64, .out = 32, .kernel = 3, .groups = 16}).weight.value(), Fan::in) == 36);
  CHECK(fan_of(Tensor::zeros({64, 10}, DType::f32), Fan::in) == 64);
  CHECK(fan_of(Tensor::zeros({64, 10}, DType::f32), Fan::out) == 10);
  CHECK_THROWS_AS(fan_of(Tensor::zeros({64}, DType::f32), Fan::in), Error);
  CHECK_THROWS_WITH_AS(fan_of(Tensor::zeros({3, 0}, DType::f32), Fan::in),
                       "[fan_of] a weight of shape [3, 0] has no elements, so no fan", Error);
  CHECK_THROWS_AS(fan_of(Tensor::zeros({0, 3}, DType::f32), Fan::out), Error);
}

TEST_CASE("Kaiming weights have the variance of the paper, within four standard errors") {
  const Variable w = Variable::leaf(Tensor::zeros({3, 3, 64, 128}, DType::f32));
  const double n = static_cast<double>(w.numel());
  Random random(1);
  for (const Fan fan : {Fan::in, Fan::out}) {
    const double variance = 2.0 / (fan == Fan::in ? 576 : 1152);
    kaiming_normal(w, random, {.fan = fan});
    Sample s = sample(w.value());
    CHECK(std::abs(s.mean) < 4 * std::sqrt(variance / n));
    CHECK(std::abs(s.variance / variance - 1) < 4 * std::sqrt(2 / n));
    kaiming_uniform(w, random, {.fan = fan});
    s = sample(w.value());
    CHECK(std::abs(s.mean) < 4 * std::sqrt(variance / n));
    CHECK(std::abs(s.variance / variance - 1) < 4 * std::sqrt(0.8 / n));  // kurtosis 9/5
    CHECK(s.largest <= std::sqrt(3 * variance) * (1 + 1e-6));
  }
  kaiming_normal(w, random, {.gain = 1});
  CHECK(std::abs(sample(w.value()).variance * 576 - 1) < 4 * std::sqrt(2 / n));
}

TEST_CASE("the default of PyTorch is uniform within 1/sqrt(fan_in), bias included; seeds decide") {
  Sequential net;
  net.add<Conv2d>({.in = 16, .out = 64, .kernel = 3, .bias = true});
  auto& linear = net.add<Linear>({.in = 100, .out = 200});
  Random random(3);
  pytorch_default_init(net, random);
  const double n = static_cast<double>(linear.weight.numel());
  CHECK(std::abs(sample(linear.weight.value()).variance * 300 - 1) < 4 * std::sqrt(0.8 / n));
  CHECK(sample(linear.weight.value()).largest <= 0.1F);
  CHECK(sample(linear.bias.value()).largest <= 0.1F);
  CHECK(sample(linear.bias.value()).largest > 0.09);
  auto& conv = static_cast<Conv2d&>(net[0]);
  CHECK(sample(conv.weight.value()).largest <= 1 / 12.0F);
  CHECK(sample(conv.bias.value()).largest > 0.9 / 12);

  const auto before = linear.weight.value().to_vector<float>();
  pytorch_default_init(net, random);
  CHECK(linear.weight.value().to_vector<float>() != before);
  Random again(3);
  pytorch_default_init(net, again);
  CHECK(linear.weight.value().to_vector<float>() == before);
}
