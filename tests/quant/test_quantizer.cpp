#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <limits>

#include "core/parallel.hpp"
#include "core/random.hpp"
#include "quant/quantizer.hpp"

using namespace goshawk;

namespace {

constexpr WeightScheme kSchemes[] = {WeightScheme::symmetric, WeightScheme::mid_rise,
                                     WeightScheme::asymmetric, WeightScheme::twos_complement};
constexpr Granularity kGranularities[] = {Granularity::layer, Granularity::channel};

// Normal weights of a small convolution whose channels have very different sizes.
Tensor conv_weights(DType dtype, std::uint64_t seed = 1) {
  Random random(seed);
  Tensor w = random_normal({3, 3, 5, 4}, DType::f64, random);
  for (std::int64_t i = 0; i < w.numel(); ++i)
    w.data<double>()[i] *= std::pow(4.0, static_cast<double>(i % 4)) * 0.01;
  return w.to(dtype);
}

std::vector<double> values(const Tensor& t) {
  return t.to(DType::f64).to_vector<double>();
}

}  // namespace

TEST_CASE("symmetric levels: by hand") {
  // 3 bits: n = 3, Δ = max|w|/3 = 0.5; 0.25 is a tie and goes to the even code 0, 0.75 to 2.
  const Tensor w = Tensor::from<double>({-1.5, -0.6, 0.25, 0.75, 0.3, 1.2}, {6, 1});
  const QuantizedTensor q = quantize_weights(w, {.bits = 3, .clip = ClipRule::min_max});
  CHECK(q.grid.scale.item() == 0.5);
  CHECK(q.grid.offset.item() == 0);
  CHECK(q.codes.to_vector<std::int8_t>() == std::vector<std::int8_t>{-3, -1, 0, 2, 1, 2});
  CHECK(values(q.dequantized) == std::vector<double>{-1.5, -0.5, 0, 1, 0.5, 1});
  CHECK(perturbation(w, {.bits = 3, .clip = ClipRule::min_max}) ==
        doctest::Approx(0.1 * 0.1 + 0.25 * 0.25 + 0.25 * 0.25 + 0.2 * 0.2 + 0.2 * 0.2));
}

TEST_CASE("symmetric at 2 bits has the three levels -Δ, 0, Δ") {
  const Tensor w = Tensor::from<float>({-2, -0.9F, 0.1F, 1.1F, 1.9F}, {5, 1});
  const QuantizedTensor q = quantize_weights(w, {.bits = 2, .clip = ClipRule::min_max});
  CHECK(values(q.dequantized) == std::vector<double>{-2, 0, 0, 2, 2});
}

TEST_CASE("mid_rise levels: by hand") {
  // 2 bits: h = 2, Δ = max|w|/2 = 1, levels ±0.5 and ±1.5.
  const Tensor w = Tensor::from<double>({-2, -0.9, -0.1, 0.1, 1.2, 2}, {6, 1});
  const QuantizedTensor q =
      quantize_weights(w, {.bits = 2, .scheme = WeightScheme::mid_rise, .clip = ClipRule::min_max});
  CHECK(q.codes.to_vector<std::int8_t>() == std::vector<std::int8_t>{-2, -1, -1, 0, 1, 1});
  CHECK(values(q.dequantized) == std::vector<double>{-1.5, -0.5, -0.5, 0.5, 1.5, 1.5});
}

TEST_CASE("asymmetric levels: by hand") {
  // 2 bits over [-1, 2]: Δ = 1, levels -1, 0, 1, 2.
  const Tensor w = Tensor::from<double>({-1, -0.4, 0.6, 1.4, 2}, {5, 1});
  const QuantizedTensor q =
      quantize_weights(w, {.bits = 2, .scheme = WeightScheme::asymmetric, .clip = ClipRule::min_max});
  CHECK(q.codes.to_vector<std::uint8_t>() == std::vector<std::uint8_t>{0, 1, 2, 2, 3});
  CHECK(values(q.dequantized) == std::vector<double>{-1, 0, 1, 1, 2});
}

TEST_CASE("one bit is the sign times the mean magnitude") {
  const Tensor w = Tensor::from<double>({-3, 1, 2, -2}, {4, 1});
  for (WeightScheme scheme : {WeightScheme::symmetric, WeightScheme::mid_rise}) {
    CHECK(values(quantize_weights(w, {.bits = 1, .scheme = scheme}).dequantized) ==
          std::vector<double>{-2, 2, 2, -2});
  }
}

TEST_CASE("each channel has its own step") {
  // Channels (columns) with maxima 1.5 and 30, 3 bits.
  const Tensor w = Tensor::from<double>({1.5, 10, -0.6, 30}, {2, 2});
  const QuantizedTensor q =
      quantize_weights(w, {.bits = 3, .granularity = Granularity::channel, .clip = ClipRule::min_max});
  CHECK(values(q.grid.scale) == std::vector<double>{0.5, 10});
  CHECK(values(q.dequantized) == std::vector<double>{1.5, 10, -0.5, 30});
}

TEST_CASE("twos_complement by hand: one more level below than above") {
  const Tensor w = Tensor::from<double>({-4, -2.6, 0.4, 1.6, 2.4, 3}, {6, 1});
  const QuantizedTensor q =
      quantize_weights(w, {.bits = 3, .scheme = WeightScheme::twos_complement, .clip = ClipRule::min_max});
  // Both ends of −4 … 3 are reached with the step 1.
  CHECK(values(q.grid.scale) == std::vector<double>{1});
  CHECK(values(q.dequantized) == std::vector<double>{-4, -3, 0, 2, 2, 3});
  CHECK(values(q.codes) == std::vector<double>{-4, -3, 0, 2, 2, 3});
}

TEST_CASE("the percentile rule by hand, and 100 % is min_max") {
  std::vector<double> ramp(101);
  for (std::size_t i = 0; i < ramp.size(); ++i) ramp[i] = static_cast<double>(i) - 50;
  const Tensor w = Tensor::from(ramp, {101, 1});
  // |w| is 0, 1, 1, …, 50, 50: the 91st of 101 magnitudes (⌈0.9·101⌉ = 91) is 45; Δ = 45/3.
  CHECK(values(choose_grid(w, {.bits = 3, .clip = ClipRule::percentile, .percentile = 90}).scale) ==
        std::vector<double>{15});
  // 99.9 % of 1000 are 999, though 0.999 · 1000 is a little more in doubles: the outlier is left out.
  std::vector<double> one_outlier(1000, 0.5);
  one_outlier[7] = 100;
  CHECK(values(choose_grid(Tensor::from(one_outlier, {1000, 1}),
                           {.bits = 2, .clip = ClipRule::percentile, .percentile = 99.9})
                   .scale) == std::vector<double>{0.5});
  // The central 90 %: the 6th and the 96th of 101 (⌈5.05⌉ = 6, ⌈95.95⌉ = 96) are −45 and 45.
  const WeightGrid central = choose_grid(
      w, {.bits = 2, .scheme = WeightScheme::asymmetric, .clip = ClipRule::percentile, .percentile = 90});
  CHECK(values(central.offset) == std::vector<double>{-45});
  CHECK(values(central.scale) == std::vector<double>{30});
  for (WeightScheme scheme : kSchemes) {
    for (Granularity granularity : kGranularities) {
      WeightSpec spec{.bits = 3, .scheme = scheme, .granularity = granularity, .clip = ClipRule::min_max};
      const Tensor c = conv_weights(DType::f32);
      const WeightGrid wide = choose_grid(c, spec);
      spec.clip = ClipRule::percentile;
      spec.percentile = 100;
      CHECK(values(choose_grid(c, spec).scale) == values(wide.scale));
      CHECK(values(choose_grid(c, spec).offset) == values(wide.offset));
      spec.percentile = 80;
      if (granularity == Granularity::layer)
        CHECK(values(choose_grid(c, spec).scale)[0] < values(wide.scale)[0]);
    }
  }
}

TEST_CASE("LSQ's starting step is 2·mean|w|/√Q_P") {
  const Tensor w = Tensor::from<double>({-1, 3, 2, -2}, {4, 1});  // the mean magnitude is 2
  const WeightSpec spec{.bits = 3, .scheme = WeightScheme::twos_complement, .clip = ClipRule::lsq};
  CHECK(values(choose_grid(w, spec).scale)[0] == doctest::Approx(4 / std::sqrt(3.0)).epsilon(1e-15));
}

TEST_CASE("all schemes, widths and rules: idempotent, within half a step, at most 2^b levels, codes fit") {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (WeightScheme scheme : kSchemes) {
      for (Granularity granularity : kGranularities) {
        for (ClipRule rule : {ClipRule::min_max, ClipRule::mse}) {
          for (int bits = 1; bits <= 8; ++bits) {
            CAPTURE(weight_scheme_name(scheme));
            CAPTURE(granularity_name(granularity));
            CAPTURE(clip_rule_name(rule));
            CAPTURE(bits);
            const WeightSpec spec{bits, scheme, granularity, rule};
            const Tensor w = conv_weights(dtype);
            const QuantizedTensor q = quantize_weights(w, spec);

            const QuantizedTensor again = quantize_weights(q.dequantized, spec, q.grid);
            CHECK(values(again.dequantized) == values(q.dequantized));
            CHECK(values(again.codes) == values(q.codes));
            CHECK(distinct_levels(q.dequantized, granularity) <= (1 << bits));

            const CodeRange range = code_range(spec);
            const auto original = values(w), rounded = values(q.dequantized), codes = values(q.codes);
            const auto scale = values(q.grid.scale), offset = values(q.grid.offset);
            std::int64_t far = 0, outside = 0, off_grid = 0;
            const double eps = dtype == DType::f32 ? 1e-5 : 1e-13;
            for (std::size_t i = 0; i < original.size(); ++i) {
              const std::size_t g = scale.size() == 1 ? 0 : i % scale.size();
              const double low = offset[g] + scale[g] * (range.code_min - range.half);
              const double high = offset[g] + scale[g] * (range.code_max + range.half);
              const bool inside = original[i] >= low && original[i] <= high;
              outside += !inside;
              far += inside && std::abs(rounded[i] - original[i]) > scale[g] * (0.5 + eps);
              off_grid += codes[i] < range.code_min || codes[i] > range.code_max ||
                          std::abs(rounded[i] - (scale[g] * codes[i] + offset[g])) > eps * scale[g] * 256;
            }
            CHECK(far == 0);
            CHECK(off_grid == 0);
            // min_max clips nothing but what rounding pushes over the edge; 1 symmetric bit has no range.
            const bool sign = bits == 1 && scheme != WeightScheme::asymmetric;
            if (rule == ClipRule::min_max && !sign)
              CHECK(outside <= 2 * static_cast<std::int64_t>(scale.size()));
          }
        }
      }
    }
  }
}

TEST_CASE("the mse clip is never worse than min-max, and better at 2 bits") {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const Tensor w = conv_weights(DType::f32, seed);
    for (WeightScheme scheme : kSchemes) {
      for (Granularity granularity : kGranularities) {
        for (int bits = 1; bits <= 8; ++bits) {
          const double wide = perturbation(w, {bits, scheme, granularity, ClipRule::min_max});
          const double best = perturbation(w, {bits, scheme, granularity, ClipRule::mse});
          CAPTURE(weight_scheme_name(scheme));
          CAPTURE(bits);
          CHECK(best <= wide * (1 + 1e-12));
          if (bits == 2) CHECK(best < wide);
        }
      }
    }
  }
}

TEST_CASE("the mse clip of normal weights has the known optimal step") {
  // Uniform quantizers of N(0, 1): Max, "Quantizing for minimum distortion", 1960, table II: with 4 levels
  // the optimal step is 0.9957 and the distortion 0.1188; with 3 levels (table II, odd) 1.2240 and 0.1902.
  Random random(5);
  const Tensor w = random_normal({200000, 1}, DType::f32, random);
  const WeightGrid four = choose_grid(w, {.bits = 2, .scheme = WeightScheme::mid_rise});
  const WeightGrid three = choose_grid(w, {.bits = 2, .scheme = WeightScheme::symmetric});
  CHECK(four.scale.item() == doctest::Approx(0.9957).epsilon(0.02));
  CHECK(three.scale.item() == doctest::Approx(1.2240).epsilon(0.02));
  CHECK(perturbation(w, {.bits = 2, .scheme = WeightScheme::mid_rise}) / 200000 ==
        doctest::Approx(0.1188).epsilon(0.02).scale(0));
  CHECK(perturbation(w, {.bits = 2}) / 200000 == doctest::Approx(0.1902).epsilon(0.02).scale(0));
  // The extremes of so many weights lie beyond 4, where min-max wastes its levels.
  CHECK(perturbation(w, {.bits = 2, .clip = ClipRule::min_max}) > 3 * perturbation(w, {.bits = 2}));
  // Without symmetry the optimum is the same on symmetric weights: the search over both ends must find it.
  CHECK(perturbation(w, {.bits = 2, .scheme = WeightScheme::asymmetric}) / 200000 ==
        doctest::Approx(0.1188).epsilon(0.03).scale(0));
}

TEST_CASE("the perturbation falls with every bit") {
  const Tensor w = conv_weights(DType::f32);
  for (WeightScheme scheme : kSchemes) {
    for (Granularity granularity : kGranularities) {
      double last = std::numeric_limits<double>::infinity();
      for (int bits = 1; bits <= 8; ++bits) {
        const double p = perturbation(w, {bits, scheme, granularity, ClipRule::mse});
        CHECK(p < last);
        last = p;
      }
      CHECK(perturbation(w, {kFullPrecision, scheme, granularity, ClipRule::mse}) == 0);
    }
  }
}

TEST_CASE("32 bits is the identity and constants survive") {
  const Tensor w = conv_weights(DType::f32);
  const QuantizedTensor q = quantize_weights(w, {.bits = 32});
  CHECK(q.dequantized.raw() == w.raw());
  CHECK(!q.codes.defined());
  for (int bits = 1; bits <= 8; ++bits) {
    const Tensor constant = Tensor::full({3, 2}, DType::f32, 0.7);
    CHECK(
        values(quantize_weights(constant, {.bits = bits, .scheme = WeightScheme::asymmetric}).dequantized) ==
        values(constant));
    const Tensor zero = Tensor::zeros({3, 2}, DType::f32);
    for (WeightScheme scheme : kSchemes) {
      for (double v : values(quantize_weights(zero, {.bits = bits, .scheme = scheme}).dequantized)) {
        CHECK(std::abs(v) < 1e-9);
      }
    }
  }
}

TEST_CASE("the same bits for any number of threads") {
  Random random(9);
  const Tensor w = random_normal({300, 300}, DType::f32, random);
  for (Granularity granularity : kGranularities) {
    const WeightSpec spec{.bits = 3, .scheme = WeightScheme::asymmetric, .granularity = granularity};
    set_num_threads(1);
    const QuantizedTensor one = quantize_weights(w, spec);
    set_num_threads(2);
    const QuantizedTensor two = quantize_weights(w, spec);
    set_num_threads(0);
    CHECK(one.dequantized.to_vector<float>() == two.dequantized.to_vector<float>());
    CHECK(one.grid.offset.to_vector<float>() == two.grid.offset.to_vector<float>());
  }
}

TEST_CASE("bad arguments are errors") {
  const Tensor w = conv_weights(DType::f32);
  CHECK_THROWS_WITH_AS(quantize_weights(w, {.bits = 9}),
                       "[quantize_weights] 9 bits are not supported; use 1 to 8, or 32 for none", Error);
  CHECK_THROWS_AS(choose_grid(w, {.bits = 32}), Error);
  CHECK_THROWS_AS(quantize_weights(w.to(DType::i32), {.bits = 4}), Error);
  Tensor broken = w.clone();
  broken.data<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(quantize_weights(broken, {.bits = 4}), Error);
  const WeightGrid wrong{Tensor::full({3}, DType::f32, 1), Tensor::full({3}, DType::f32, 0)};
  CHECK_THROWS_AS(quantize_weights(w, {.bits = 4}, wrong), Error);
  CHECK_THROWS_AS(parse_weight_scheme("round"), UsageError);
  for (WeightScheme scheme : kSchemes) CHECK(parse_weight_scheme(weight_scheme_name(scheme)) == scheme);
  for (Granularity g : kGranularities) CHECK(parse_granularity(granularity_name(g)) == g);
  for (WeightScheme scheme : {WeightScheme::dorefa, WeightScheme::lq_nets}) {
    CHECK(parse_weight_scheme(weight_scheme_name(scheme)) == scheme);
    CHECK_THROWS_AS(choose_grid(w, {.bits = 4, .scheme = scheme, .clip = ClipRule::learned}), Error);
  }
  CHECK_THROWS_AS(choose_grid(w, {.scheme = WeightScheme::dorefa, .granularity = Granularity::channel}),
                  Error);
  CHECK_THROWS_AS(choose_grid(w, {.scheme = WeightScheme::asymmetric, .clip = ClipRule::lsq}), Error);
  CHECK_THROWS_AS(choose_grid(w, {.clip = ClipRule::percentile, .percentile = 0}), Error);
  for (ClipRule rule :
       {ClipRule::min_max, ClipRule::mse, ClipRule::percentile, ClipRule::learned, ClipRule::lsq}) {
    CHECK(parse_clip_rule(clip_rule_name(rule)) == rule);
  }
}
