#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <limits>

#include "autograd/grad.hpp"
#include "autograd/ops.hpp"
#include "core/parallel.hpp"
#include "core/random.hpp"
#include "quant/calibration.hpp"
#include "quant/fake_quantize.hpp"

using namespace goshawk;

namespace {

Variable leaf(const std::vector<double>& values, const Shape& shape) {
  return Variable::leaf(Tensor::from(values, shape));
}

std::vector<double> values(const Variable& v) {
  return v.value().to(DType::f64).to_vector<double>();
}

// ∂⟨u, y⟩/∂x of all inputs.
std::vector<Variable> pullback(const Variable& y, const std::vector<Variable>& x,
                               const std::vector<double>& u) {
  return grad(std::vector{y}, x, {.grad_outputs = {Variable(Tensor::from(u, y.shape()))}});
}

}  // namespace

TEST_CASE("PACT forward: by hand") {
  // 2 bits, α = 1.5: Δ = 0.5; 0.25 and 0.75 are ties that go to the even codes 0 and 2.
  const Variable x = leaf({-1, 0, 0.2, 0.25, 0.3, 0.75, 1.4, 1.5, 9}, {9});
  CHECK(values(pact(x, leaf({1.5}, {1}), 2)) == std::vector<double>{0, 0, 0, 0, 0.5, 1, 1.5, 1.5, 1.5});
  // Signed, 3 bits: n = 3, Δ = 0.5.
  CHECK(values(pact(x, leaf({1.5}, {1}), 3, true)) ==
        std::vector<double>{-1, 0, 0, 0, 0.5, 1, 1.5, 1.5, 1.5});
}

TEST_CASE("PACT gradients: 1 inside, and the clip collects what lies at or above it") {
  const Variable x = leaf({-1, 0.2, 0.7, 1.5, 9}, {5}), alpha = leaf({1.5}, {1});
  const auto g = pullback(pact(x, alpha, 4), {x, alpha}, {1, 2, 3, 4, 5});
  CHECK(values(g[0]) == std::vector<double>{0, 2, 3, 0, 0});
  CHECK(values(g[1]) == std::vector<double>{4 + 5});
  const Variable xs = leaf({-9, -1, 0, 1, 1.5, 9}, {6});
  const auto s = pullback(pact(xs, alpha, 4, true), {xs, alpha}, {1, 2, 3, 4, 5, 6});
  CHECK(values(s[0]) == std::vector<double>{0, 2, 3, 4, 0, 0});
  CHECK(values(s[1]) == std::vector<double>{5 + 6 - 1});
}

TEST_CASE(
    "PACT's levels: 2^b evenly spaced values up to the clip, in f32 as in f64, for any number of threads") {
  Random random(2);
  const Tensor x = random_uniform({100000}, DType::f32, random, -1, 4);
  const Tensor u = random_normal({100000}, DType::f32, random);
  for (int bits = 1; bits <= 8; ++bits) {
    const Variable leaf_x = Variable::leaf(x), alpha = Variable::leaf(Tensor::full({1}, DType::f32, 2.7));
    std::vector<std::vector<float>> y, gx, ga;
    for (int threads : {1, 2}) {
      set_num_threads(threads);
      const Variable out = pact(leaf_x, alpha, bits);
      const auto g = grad(std::vector{out}, std::vector{leaf_x, alpha}, {.grad_outputs = {Variable(u)}});
      y.push_back(out.value().to_vector<float>());
      gx.push_back(g[0].value().to_vector<float>());
      ga.push_back(g[1].value().to_vector<float>());
    }
    set_num_threads(0);
    CHECK(y[0] == y[1]);
    CHECK(gx[0] == gx[1]);
    CHECK(ga[0] == ga[1]);
    CHECK(distinct_levels(Tensor::from(y[0], {100000, 1}), Granularity::layer) == (1 << bits));
    const double step = 2.7 / ((1 << bits) - 1);
    double clip_gradient = 0;
    std::int64_t wrong = 0;
    for (std::size_t i = 0; i < y[0].size(); ++i) {
      const double v = x.data<float>()[i];
      if (v >= 2.7F) clip_gradient += static_cast<double>(u.data<float>()[i]);
      wrong += std::abs(y[0][i] - std::clamp(v, 0.0, 2.7)) > step / 2 * (1 + 1e-4);
    }
    CHECK(wrong == 0);
    CHECK(ga[0][0] == doctest::Approx(clip_gradient).epsilon(1e-4));
  }
}

TEST_CASE("fake_quantize gives what quantize_weights gives, bit for bit") {
  Random random(3);
  const Tensor w = random_normal({3, 3, 4, 8}, DType::f32, random);
  for (WeightScheme scheme : {WeightScheme::symmetric, WeightScheme::mid_rise, WeightScheme::asymmetric,
                              WeightScheme::twos_complement, WeightScheme::dorefa, WeightScheme::lq_nets}) {
    for (Granularity granularity : {Granularity::layer, Granularity::channel}) {
      for (int bits : {1, 2, 3, 8}) {
        if (scheme == WeightScheme::dorefa && granularity == Granularity::channel) continue;
        const WeightSpec spec{bits, scheme, granularity, ClipRule::mse};
        const QuantizedTensor q = quantize_weights(w, spec);
        const Variable leaf_w = Variable::leaf(w);
        CHECK(fake_quantize(leaf_w, spec, q.grid).value().to_vector<float>() ==
              q.dequantized.to_vector<float>());
        if (scheme != WeightScheme::asymmetric && scheme != WeightScheme::dorefa &&
            scheme != WeightScheme::lq_nets) {
          const Variable step = Variable::leaf(q.grid.scale);
          CHECK(learned_step_quantize(leaf_w, step, spec).value().to_vector<float>() ==
                q.dequantized.to_vector<float>());
        }
      }
    }
  }
}

TEST_CASE("straight-through gradients of weights: by hand") {
  // 2-bit symmetric, Δ = 1: the range is [-1, 1].
  const WeightGrid grid{Tensor::from<double>({1}, {1}), Tensor::from<double>({0}, {1})};
  const Variable w = leaf({-1.5, -0.7, 0.1, 0.9, 1.2}, {5, 1});
  const Variable y = fake_quantize(w, {.bits = 2}, grid);
  CHECK(values(y) == std::vector<double>{-1, -1, 0, 1, 1});
  CHECK(values(pullback(y, {w}, {1, 2, 3, 4, 5})[0]) == std::vector<double>{0, 2, 3, 4, 0});
  // min_max clips nothing, its own extremes included, in f32 too.
  Random random(4);
  const Tensor normal = random_normal({999, 1}, DType::f32, random);
  for (WeightScheme scheme : {WeightScheme::symmetric, WeightScheme::mid_rise, WeightScheme::asymmetric}) {
    for (int bits : {2, 3, 8}) {
      const WeightSpec spec{bits, scheme, Granularity::layer, ClipRule::min_max};
      const Variable x = Variable::leaf(normal);
      const Variable g = grad(sum(fake_quantize(x, spec, choose_grid(normal, spec))), std::vector{x})[0];
      CHECK(sum(g).item() == 999);
    }
  }
  // One bit passes every gradient.
  const WeightGrid sign{Tensor::from<double>({2}, {1}), Tensor::from<double>({1}, {1})};
  CHECK(values(pullback(fake_quantize(w, {.bits = 1}, sign), {w}, {1, 2, 3, 4, 5})[0]) ==
        std::vector<double>{1, 2, 3, 4, 5});
}

TEST_CASE("LSQ gradients: by hand") {
  // 3-bit symmetric (n = 3), s = 0.5: positions w/s = -4, -1.4, 0.2, 2.6, 5.
  const Variable w = leaf({-2, -0.7, 0.1, 1.3, 2.5}, {5, 1}), s = leaf({0.5}, {1});
  const Variable y = learned_step_quantize(w, s, {.bits = 3});
  CHECK(values(y) == std::vector<double>{-1.5, -0.5, 0, 1.5, 1.5});
  const auto g = pullback(y, {w, s}, {1, 1, 1, 1, 1});
  CHECK(values(g[0]) == std::vector<double>{0, 1, 1, 1, 0});
  const double expected = -3 + (-1 + 1.4) + (0 - 0.2) + (3 - 2.6) + 3;
  CHECK(g[1].item() == doctest::Approx(expected / std::sqrt(5.0 * 3)).epsilon(1e-12));
  // The sign of the step does not matter to the value and flips the gradient.
  const Variable negative = leaf({-0.5}, {1});
  const Variable mirrored = learned_step_quantize(w, negative, {.bits = 3});
  CHECK(values(mirrored) == values(y));
  CHECK(pullback(mirrored, {negative}, {1, 1, 1, 1, 1})[0].item() == -g[1].item());
  // One bit: the step's gradient is the level, ±½.
  const auto b = pullback(learned_step_quantize(w, s, {.bits = 1}), {w, s}, {1, 2, 3, 4, 5});
  CHECK(values(b[0]) == std::vector<double>{1, 2, 3, 4, 5});
  CHECK(b[1].item() == doctest::Approx((-1 - 2 + 3 + 4 + 5) * 0.5 / std::sqrt(5 * 0.5)).epsilon(1e-12));
}

TEST_CASE("learned steps of many levels move no faster for their size than those of 4 bits") {
  // The largest weight lies on the end of the range, as min_max and mostly mse choose it, and alone has a
  // gradient: the step's share of its size that a unit of learning rate moves it by.
  const auto relative_speed = [](int bits, ClipRule clip) {
    const Variable w = leaf({1, 0.1, -0.3, 0.2}, {4, 1});
    const double half = 1 << (bits - 1), outermost = half - 0.5;
    const Variable s = leaf({1 / half}, {1});
    const WeightSpec spec{
        .bits = bits,
        .scheme = clip == ClipRule::lsq ? WeightScheme::twos_complement : WeightScheme::mid_rise,
        .clip = clip};
    const auto g = pullback(learned_step_quantize(w, s, spec), {w, s}, {1, 0, 0, 0});
    CHECK(values(g[0])[0] == 0);  // clipped
    const double level = clip == ClipRule::lsq ? half - 1 : outermost;
    if (clip == ClipRule::lsq) {
      CHECK(g[1].item() == doctest::Approx(level / std::sqrt(4 * level)).epsilon(1e-12));
    }
    return g[1].item() * half;
  };
  const double four = relative_speed(4, ClipRule::learned);
  CHECK(four == doctest::Approx(8 * 7.5 / std::sqrt(4 * 7.5)).epsilon(1e-12));
  for (int bits : {5, 6, 7, 8}) {
    const double speed = relative_speed(bits, ClipRule::learned);
    CHECK(speed <= four);
    CHECK(speed > 0.9 * four);
  }
  for (int bits : {2, 3}) CHECK(relative_speed(bits, ClipRule::learned) < four);
  CHECK(relative_speed(8, ClipRule::lsq) > 60 * four);  // the paper's scale as it is
}

TEST_CASE("LSQ with the paper's ranges: by hand") {
  // Weights, 3 bits: Q_N = 4, Q_P = 3; s = 0.5: positions −5, −3.6, 0.2, 2.6, 5.
  const Variable w = leaf({-2.5, -1.8, 0.1, 1.3, 2.5}, {5, 1}), s = leaf({0.5}, {1});
  const WeightSpec spec{.bits = 3, .scheme = WeightScheme::twos_complement};
  const Variable y = learned_step_quantize(w, s, spec);
  CHECK(values(y) == std::vector<double>{-2, -2, 0, 1.5, 1.5});
  const auto g = pullback(y, {w, s}, {1, 1, 1, 1, 1});
  CHECK(values(g[0]) == std::vector<double>{0, 1, 1, 1, 0});
  const double by_hand = -4 + (-4 + 3.6) + (0 - 0.2) + (3 - 2.6) + 3;
  CHECK(g[1].item() == doctest::Approx(by_hand / std::sqrt(5.0 * 3)).epsilon(1e-12));
  // Activations, 2 bits: Q_N = 0, Q_P = 3; two examples of three features.
  const Variable x = leaf({-1, 0.2, 0.7, 1.3, 1.6, 9}, {2, 3});
  const Variable a = learned_step_activation(x, s, 2);
  CHECK(values(a) == std::vector<double>{0, 0, 0.5, 1.5, 1.5, 1.5});
  const auto h = pullback(a, {x, s}, {1, 1, 1, 1, 1, 1});
  CHECK(values(h[0]) == std::vector<double>{0, 1, 1, 1, 0, 0});
  const double expected = 0 + (0 - 0.4) + (1 - 1.4) + (3 - 2.6) + 3 + 3;
  CHECK(h[1].item() == doctest::Approx(expected / std::sqrt(3.0 * 3)).epsilon(1e-12));
  CHECK(values(learned_step_activation(leaf({-9, -0.6, 0.7, 9}, {4}), s, 2, true)) ==
        std::vector<double>{-1, -0.5, 0.5, 0.5});
  CHECK_THROWS_AS(learned_step_activation(x, s, 1, true), Error);
  CHECK_THROWS_AS(learned_step_activation(x, leaf({1, 2}, {2}), 4), Error);
  CHECK(learned_step_activation(x, s, 32).value().raw() == x.value().raw());
}

TEST_CASE("DoReFa's activations are PACT's with the clip at 1") {
  // quantize_2(clip(x, 0, 1)): round(3·0.6)/3 = 2/3.
  const Variable x = leaf({-1, 0.1, 0.6, 0.9, 4}, {5}), one = leaf({1}, {1});
  const Variable y = pact(x, one, 2);
  const std::vector<double> expected = {0, 0, 2.0 / 3, 1, 1};
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(values(y)[i] == doctest::Approx(expected[i]));
  CHECK(values(pullback(y, {x}, {1, 2, 3, 4, 5})[0]) == std::vector<double>{0, 2, 3, 4, 0});
}

TEST_CASE("32 bits is the identity and bad arguments are errors") {
  const Variable x = leaf({-1, 2}, {2, 1}), clip = leaf({1}, {1});
  CHECK(pact(x, clip, 32).value().raw() == x.value().raw());
  CHECK(fake_quantize(x, {.bits = 32}, {}).value().raw() == x.value().raw());
  CHECK(learned_step_quantize(x, clip, {.bits = 32}).value().raw() == x.value().raw());
  CHECK_THROWS_AS(pact(x, leaf({0}, {1}), 4), Error);
  CHECK_THROWS_AS(pact(x, leaf({-1}, {1}), 4), Error);
  CHECK_THROWS_AS(pact(x, leaf({1, 2}, {2}), 4), Error);
  CHECK_THROWS_AS(pact(x, clip, 1, true), Error);
  CHECK_THROWS_AS(pact(x, clip, 12), Error);
  CHECK_THROWS_AS(learned_step_quantize(x, leaf({0}, {1}), {.bits = 4}), Error);
  CHECK_THROWS_AS(learned_step_quantize(x, clip, {.bits = 4, .scheme = WeightScheme::asymmetric}), Error);
  CHECK_THROWS_AS(fake_quantize(x, {.bits = 4}, {}), Error);
}

TEST_CASE("calibration: max, percentile and the least-squares clip") {
  ActivationObserver observer;
  CHECK_THROWS_AS(calibrated_clip(observer, 4, false, {}), Error);
  std::vector<double> ramp(1000);
  for (std::size_t i = 0; i < ramp.size(); ++i) ramp[i] = static_cast<double>(i + 1) / 1000;
  observer.observe(Tensor::from(ramp, {1000}), "layer");
  CHECK(observer.minimum() == 0.001);
  CHECK(observer.maximum() == 1);
  CHECK(calibrated_clip(observer, 4, false, {.rule = CalibrationRule::max}) == 1);
  CHECK(calibrated_clip(observer, 4, false, {.rule = CalibrationRule::percentile, .percentile = 90}) == 0.9);
  // One outlier: the least-squares clip of 4 bits gives it up, that of 8 bits less so, and max never does.
  observer.observe(Tensor::from<double>({30}, {1}), "layer");
  const double narrow = calibrated_clip(observer, 4, false, {.rule = CalibrationRule::mse});
  const double wide = calibrated_clip(observer, 8, false, {.rule = CalibrationRule::mse});
  CHECK(narrow < wide);
  CHECK(calibrated_clip(observer, 4, false, {.rule = CalibrationRule::max}) == 30);
  const auto error = [&](double alpha, int bits) {
    double sum = 0;
    const double step = alpha / ((1 << bits) - 1);
    for (double x : observer.sample()) {
      sum += std::pow(std::nearbyint(std::clamp(x, 0.0, alpha) / step) * step - x, 2);
    }
    return sum;
  };
  for (double alpha = 0.25; alpha <= 30; alpha += 0.25) CHECK(error(narrow, 4) <= error(alpha, 4) * 1.02);

  ActivationObserver batches;
  batches.observe(Tensor::from<double>({-1, 4}, {2}), "layer");
  batches.observe(Tensor::from<double>({-3, 2}, {2}), "layer");
  batches.observe(Tensor::from<double>({0, 8}, {2}), "layer");
  // Momentum ½: 4 → 3 → 5.5 and −1 → −2 → −1.
  const CalibrationOptions ema{.rule = CalibrationRule::ema, .momentum = 0.5};
  CHECK(calibrated_clip(batches, 4, true, ema) == 5.5);
  const WeightGrid averaged = calibrated_grid(batches, 2, DType::f64, ema);
  CHECK(values(averaged.offset) == std::vector<double>{-1});
  CHECK(values(averaged.scale)[0] == doctest::Approx(6.5 / 3).epsilon(1e-15));
  const WeightGrid extremes = calibrated_grid(batches, 2, DType::f64, {.rule = CalibrationRule::max});
  CHECK(values(extremes.offset) == std::vector<double>{-3});
  CHECK(values(extremes.scale)[0] == doctest::Approx(11.0 / 3).epsilon(1e-15));
  // mean|x| = 18/6: 2·3/√15 for 4 unsigned bits, 2·3/√7 for signed ones.
  CHECK(initial_step(batches, 4, false) == doctest::Approx(6 / std::sqrt(15.0)).epsilon(1e-15));
  CHECK(initial_step(batches, 4, true) == doctest::Approx(6 / std::sqrt(7.0)).epsilon(1e-15));
  CHECK_THROWS_AS(calibrated_clip(batches, 4, true, {.momentum = 1}), Error);
  CHECK_THROWS_AS(calibrated_grid({}, 4, DType::f64, {}), Error);

  // The asymmetric grids: the least-squares one is no worse than the others on what was observed.
  Random random(11);
  ActivationObserver skewed;
  const Tensor x = random_normal({4000}, DType::f64, random);
  for (double& v : x.span<double>()) v = std::exp(v) - 0.5;
  skewed.observe(x, "layer");
  for (int bits : {2, 4, 8}) {
    const auto squared_error = [&](CalibrationRule rule) {
      const WeightGrid grid = calibrated_grid(skewed, bits, DType::f64, {.rule = rule, .percentile = 99});
      const WeightSpec spec{.bits = bits, .scheme = WeightScheme::asymmetric};
      return squared_distance(fake_quantize(x, spec, grid).value(), x);
    };
    CHECK(squared_error(CalibrationRule::mse) <= squared_error(CalibrationRule::max));
    CHECK(squared_error(CalibrationRule::mse) <= squared_error(CalibrationRule::percentile) * 1.02);
  }

  ActivationObserver symmetric;
  symmetric.observe(Tensor::from<double>({-3, 1, 2}, {3}), "layer");
  CHECK(calibrated_clip(symmetric, 4, true, {.rule = CalibrationRule::max}) == 3);
  ActivationObserver dead;
  dead.observe(Tensor::zeros({8}, DType::f32), "layer");
  CHECK(calibrated_clip(dead, 4, false, {}) == 1);
  CHECK_THROWS_AS(dead.observe(Tensor::full({2}, DType::f32, INFINITY), "layer"), Error);
  CHECK(parse_calibration_rule("mse") == CalibrationRule::mse);
  CHECK_THROWS_AS(parse_calibration_rule("median"), UsageError);
}

TEST_CASE(
    "a calibration sample sees all channels equally often, also where their number has a factor in common") {
  for (const std::int64_t channels : {9, 24, 45, 64}) {
    // One loud channel: the largest value is there and nowhere else.
    Tensor x = Tensor::full({16, 32, 32, channels}, DType::f32, 0.1);
    for (std::int64_t i = 4; i < x.numel(); i += channels) x.data<float>()[i] = 5;
    ActivationObserver observer;
    observer.observe(x, "layer");
    const auto& sample = observer.sample();
    const auto loud = static_cast<double>(std::count(sample.begin(), sample.end(), 5.0));
    CHECK(static_cast<std::int64_t>(sample.size()) <= ActivationObserver::kSamplesPerBatch);
    CHECK(loud ==
          doctest::Approx(static_cast<double>(sample.size()) / static_cast<double>(channels)).epsilon(0.001));
  }
}

TEST_CASE("a weight that is no number stays none: a network that has diverged must not look sound") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Variable w = leaf({0.5, nan, -0.25, 0.125}, {4, 1});
  const WeightGrid grid{Tensor::from<double>({0.25}, {1}), Tensor::from<double>({0}, {1})};
  const auto only_the_second = [](const Variable& q) {
    const std::vector<double> v = values(q);
    return !std::isnan(v[0]) && std::isnan(v[1]) && !std::isnan(v[2]) && !std::isnan(v[3]);
  };
  for (const WeightScheme scheme :
       {WeightScheme::symmetric, WeightScheme::asymmetric, WeightScheme::twos_complement}) {
    CHECK(only_the_second(fake_quantize(w, {.bits = 3, .scheme = scheme, .clip = ClipRule::min_max}, grid)));
  }
  CHECK(only_the_second(learned_step_quantize(w, leaf({0.25}, {1}), {.bits = 3})));
  CHECK(only_the_second(learned_step_activation(w, leaf({0.25}, {1}), 3)));

  // Nor does a gradient that is no number become a zero on the way back, which would hide what broke.
  const Tensor seed = Tensor::from<double>({1, nan, 1, 1}, {4, 1});
  const auto gradient = [&](const Variable& q) {
    return grad(std::vector{q}, std::vector{w}, {.grad_outputs = {Variable(seed)}})[0];
  };
  CHECK(only_the_second(gradient(fake_quantize(w, {.bits = 3, .clip = ClipRule::min_max}, grid))));
  CHECK(only_the_second(gradient(learned_step_quantize(w, leaf({0.25}, {1}), {.bits = 3}))));
  CHECK(only_the_second(gradient(learned_step_activation(w, leaf({0.25}, {1}), 3, true))));
  CHECK(only_the_second(gradient(pact(w, leaf({1}, {1}), 3, true))));
}
