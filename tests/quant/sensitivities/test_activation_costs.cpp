// HAWQ-V2's sensitivity of activations against Hessians in the activations by double backward.
#include <cmath>
#include <doctest/doctest.h>

#include "autograd/curvature/activation_hessian.hpp"
#include "quant/fake_quantize.hpp"
#include "quant/sensitivities/activation_costs.hpp"
#include "tests/quant/sensitivities/small_model.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

double dot(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) sum += a.data<double>()[i] * b.data<double>()[i];
  return sum;
}

}  // namespace

TEST_CASE("activation costs: trace, rounding error, gradient's share and quadratic form of every input") {
  SmallModel model;
  const std::vector<std::int64_t> cut{3, 2};
  const SensitivityData data = small_data(model, cut);
  for (const ActivationScheme scheme : {ActivationScheme::fixed, ActivationScheme::asymmetric}) {
    const auto layers = activation_costs(
        data, {.bits = {4, 2, 32}, .scheme = scheme, .calibration = {.rule = CalibrationRule::max}});
    REQUIRE(layers.size() == 3);
    const ExactTraces traces = exact_traces(data.pass(), cut, {.weights = false});
    for (std::size_t l = 0; l < 3; ++l) {
      const ActivationLayerCosts& layer = layers[l];
      CHECK(layer.name == traces.layers[l].name);
      CHECK(layer.elements == traces.layers[l].activation_elements);
      CHECK(layer.is_signed == (l == 0));
      CHECK(layer.is_picture == (l == 0));
      CHECK(layer.trace.value == doctest::Approx(traces.layers[l].activation.value).epsilon(1e-11));
      CHECK(*layer.trace.subset_error ==
            doctest::Approx(*traces.layers[l].activation.subset_error).epsilon(1e-9));

      // The range of all pictures, then ε of each microbatch from the definition of the levels.
      double low = 0, high = 0;
      std::vector<Tensor> inputs;
      for (std::size_t b = 0; b < 2; ++b) {
        inputs.push_back(data.pass()(b).sites[l].input.value());
        for (double v : inputs.back().span<double>()) {
          low = std::min(low, v);
          high = std::max(high, v);
        }
      }
      double exact_low = inputs[0].data<double>()[0];
      for (const Tensor& x : inputs) {
        for (double v : x.span<double>()) exact_low = std::min(exact_low, v);
      }
      const ActivationHessian hessian(layer.name, cut, data.pass());
      const Vector gradients = hessian.per_sample_gradients();
      for (std::size_t w = 0; w < 2; ++w) {
        const int bits = w == 0 ? 2 : 4;
        CHECK(layer.widths[w].bits == bits);
        const double levels = (1 << bits) - 1;
        const bool even = scheme == ActivationScheme::asymmetric;
        const double alpha = std::max(-low, high);
        const double step = even      ? (high - exact_low) / levels
                            : low < 0 ? alpha / ((1 << (bits - 1)) - 1)
                                      : alpha / levels;
        const double origin = even ? exact_low : 0;
        Vector errors;
        double norm = 0, slope = 0, size = 0;
        for (std::size_t b = 0; b < 2; ++b) {
          const Tensor e = inputs[b].clone();
          for (double& v : e.span<double>()) {
            v = std::nearbyint((v - origin) / step) * step + origin - v;
          }
          errors.push_back(e);
          norm += dot(e, e) / 5;
          for (std::int64_t n = 0; n < cut[b]; ++n) {
            const double s = dot(rows(gradients[b], n, n + 1), rows(e, n, n + 1));
            slope += s / 5;
            size += std::abs(s) / 5;
          }
        }
        double form = 0;
        for (double f : hessian.per_sample_forms(errors)) form += f / 10;
        const ActivationCost& cost = layer.widths[w];
        INFO("layer ", l, " bits ", bits, " scheme ", static_cast<int>(scheme));
        CHECK(cost.perturbation == doctest::Approx(norm).epsilon(1e-9));
        CHECK(cost.hawq_v2 == doctest::Approx(layer.mean_trace() * norm).epsilon(1e-9));
        CHECK(cost.first_order == doctest::Approx(slope).epsilon(1e-8));
        CHECK(cost.first_order_size == doctest::Approx(size).epsilon(1e-8));
        CHECK(cost.second_order == doctest::Approx(form).epsilon(1e-9));
        CHECK(cost.second_order > 0);
        CHECK(cost.first_order_size >= std::abs(cost.first_order));
      }
      CHECK(layer.widths[2].perturbation == 0);
      CHECK(layer.widths[2].second_order == 0);
    }
  }
}

TEST_CASE("activation costs: random directions agree within their noise, and bad options are refused") {
  SmallModel model;
  const SensitivityData data = small_data(model, {6, 6});
  const auto exact = activation_costs(data, {.bits = {3}});
  const auto random = activation_costs(data, {.bits = {3}, .directions = 3000});
  for (std::size_t l = 0; l < 3; ++l) {
    CHECK(random[l].trace.value == doctest::Approx(exact[l].trace.value).epsilon(0.1).scale(0));
    CHECK(random[l].widths[0].second_order ==
          doctest::Approx(exact[l].widths[0].second_order).epsilon(0.1).scale(0));
    CHECK(random[l].widths[0].first_order == exact[l].widths[0].first_order);
  }
  CHECK_THROWS_WITH_AS(activation_costs(data, {.bits = {}}), doctest::Contains("no widths"), Error);
  CHECK_THROWS_WITH_AS(activation_costs(data, {.bits = {1}}), doctest::Contains("1 bit cannot hold"), Error);
  CHECK_THROWS_WITH_AS(activation_costs(data, {.bits = {4}, .scheme = ActivationScheme::lsq}),
                       doctest::Contains("'lsq'"), Error);
}
