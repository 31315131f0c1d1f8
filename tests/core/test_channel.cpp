#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <span>
#include <utility>

#include "core/kernels/channel.hpp"
#include "core/kernels/norm.hpp"
#include "core/random.hpp"
#include "tests/support/target_guard.hpp"
#include "tests/support/threads.hpp"

using namespace goshawk;

namespace {

Tensor normal(const Shape& shape, DType dtype, std::uint64_t seed) {
  Random random(seed);
  return random_normal(shape, dtype, random);
}

// Element i of t as double.
double at(const Tensor& t, std::int64_t i) {
  return t.dtype() == DType::f32 ? static_cast<double>(t.data<float>()[i]) : t.data<double>()[i];
}

double tolerance(DType dtype) {
  return dtype == DType::f32 ? 2e-5 : 1e-12;
}

const std::vector<Shape> kShapes{{3, 2, 2, 1}, {5, 7, 3, 3}, {2, 4, 4, 16}, {3, 5, 17},
                                 {1100, 20},   {300, 64},    {2, 200}};

}  // namespace

TEST_CASE("affine, sums and dots against plain loops") {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::f64}) {
      for (const Shape& shape : kShapes) {
        INFO("shape ", fmt::format("{}", shape), " ", std::string(dtype_name(dtype)));
        const std::int64_t c = shape.back(), n = shape.numel();
        const Tensor x = normal(shape, dtype, 1), r = normal(shape, dtype, 2);
        const Tensor s = normal({c}, dtype, 3), t = normal({c}, dtype, 4);
        const Tensor plain = kernels::channel_affine(x, s, t);
        const Tensor scaled = kernels::channel_affine(x, s, {});
        const Tensor all = kernels::channel_affine(x, s, t, r, true);
        std::vector<double> sum(static_cast<std::size_t>(c)), dot(sum);
        for (std::int64_t i = 0; i < n; ++i) {
          const std::int64_t k = i % c;
          const double affine = at(x, i) * at(s, k) + at(t, k);
          CHECK(std::abs(at(plain, i) - affine) <= tolerance(dtype));
          CHECK(std::abs(at(scaled, i) - at(x, i) * at(s, k)) <= tolerance(dtype));
          CHECK(std::abs(at(all, i) - std::max(0.0, affine + at(r, i))) <= tolerance(dtype));
          sum[static_cast<std::size_t>(k)] += at(x, i);
          dot[static_cast<std::size_t>(k)] += at(x, i) * at(r, i);
        }
        const Tensor sums = kernels::channel_sum(x), dots = kernels::channel_dot(x, r);
        const double scale = tolerance(dtype) * std::sqrt(static_cast<double>(n / c) + 1);
        for (std::int64_t k = 0; k < c; ++k) {
          CHECK(std::abs(at(sums, k) - sum[static_cast<std::size_t>(k)]) <= scale);
          CHECK(std::abs(at(dots, k) - dot[static_cast<std::size_t>(k)]) <= scale);
        }
      }
    }
  });
}

TEST_CASE("shifts past a ReLU, their tangents and gradients, against plain loops") {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::f64}) {
      for (const Shape& shape : kShapes) {
        INFO("shape ", fmt::format("{}", shape), " ", std::string(dtype_name(dtype)));
        const std::int64_t c = shape.back(), n = shape.numel();
        const Tensor x = normal(shape, dtype, 1), r = normal(shape, dtype, 2), t = normal({c}, dtype, 3);
        const Tensor y = x.clone(), unmasked = x.clone(), gy = normal(shape, dtype, 4);
        kernels::apply_epilogue(y, {.residual = r, .relu = true});
        kernels::apply_epilogue(unmasked, {.residual = r});
        const Tensor tangent = kernels::shift_tangent(gy, t, r, y, false);
        const Tensor no_shift = kernels::shift_tangent(gy, {}, r, y, false);
        const Tensor no_mask = kernels::shift_tangent(gy, t, {}, {}, false);
        const kernels::ShiftGradient g = kernels::shift_backward(gy, y);
        std::vector<double> sum(static_cast<std::size_t>(c));
        for (std::int64_t i = 0; i < n; ++i) {
          const std::int64_t k = i % c;
          const double passes = at(y, i) > 0 ? 1 : 0;
          CHECK(std::abs(at(y, i) - std::max(0.0, at(x, i) + at(r, i))) <= tolerance(dtype));
          CHECK(std::abs(at(unmasked, i) - (at(x, i) + at(r, i))) <= tolerance(dtype));
          CHECK(std::abs(at(tangent, i) - passes * (at(gy, i) + at(t, k) + at(r, i))) <= tolerance(dtype));
          CHECK(std::abs(at(no_shift, i) - passes * (at(gy, i) + at(r, i))) <= tolerance(dtype));
          CHECK(std::abs(at(no_mask, i) - (at(gy, i) + at(t, k))) <= tolerance(dtype));
          CHECK(at(g.g, i) == passes * at(gy, i));
          sum[static_cast<std::size_t>(k)] += passes * at(gy, i);
        }
        const double scale = tolerance(dtype) * std::sqrt(static_cast<double>(n / c) + 1);
        for (std::int64_t k = 0; k < c; ++k) {
          CHECK(std::abs(at(g.sum, k) - sum[static_cast<std::size_t>(k)]) <= scale);
        }

        // In place: the same bits.
        const Tensor moved = gy.clone(), masked = gy.clone();
        CHECK(kernels::shift_tangent(moved, t, r, y, true).raw() == moved.raw());
        const kernels::ShiftGradient in_place = kernels::shift_backward(masked, y, true);
        CHECK(in_place.g.raw() == masked.raw());
        bool same = true;
        for (std::int64_t i = 0; i < n; ++i) {
          same = same && at(moved, i) == at(tangent, i) && at(masked, i) == at(g.g, i);
        }
        for (std::int64_t k = 0; k < c; ++k) same = same && at(in_place.sum, k) == at(g.sum, k);
        CHECK(same);
      }
    }
  });
}

TEST_CASE("moments of numbers whose sums round, against sums in f64") {
  on_every_target([] {
    for (const std::int64_t channels : {1, 3, 16, 64}) {
      for (const double mean : {0.0, 0.3, 4096.3}) {
        CAPTURE(channels);
        CAPTURE(mean);
        const std::int64_t rows = 40000;
        const Tensor x = normal({rows, channels}, DType::f32, 5);
        for (float& v : x.span<float>()) v += static_cast<float>(mean);
        const kernels::ChannelMoments m = kernels::channel_moments(x);
        for (std::int64_t c = 0; c < channels; ++c) {
          double sum = 0, squares = 0;
          for (std::int64_t r = 0; r < rows; ++r) sum += at(x, r * channels + c);
          const double exact = sum / static_cast<double>(rows);
          for (std::int64_t r = 0; r < rows; ++r) squares += std::pow(at(x, r * channels + c) - exact, 2);
          // Half a unit of f32's last place, and of sums of thousands of deviations some more.
          CHECK(std::abs(at(m.mean, c) - exact) <= 6.1e-8 * std::abs(exact) + 1e-7);
          CHECK(at(m.var, c) == doctest::Approx(squares / static_cast<double>(rows)).epsilon(2e-6));
        }
      }
    }
  });
}

TEST_CASE("where nothing varies the variance is 0 up to rounding, and never negative") {
  on_every_target([] {
    for (const std::int64_t channels : {1, 2, 16}) {
      for (const double value : {0.1, -0.7, 4096.3, 1e-20}) {
        CAPTURE(value);
        const Tensor x = Tensor::full({60000 / channels, channels}, DType::f32, value);
        const kernels::ChannelMoments m = kernels::channel_moments(x);
        for (std::int64_t c = 0; c < channels; ++c) {
          CHECK(at(m.mean, c) == static_cast<double>(static_cast<float>(value)));
          CHECK(at(m.var, c) >= 0);
          // A chunk's sum of n numbers is off by up to n / 2 units of 2^−24, which the second pass takes out
          // of the squares up to their own rounding.
          CHECK(at(m.var, c) <= 1e-12 * value * value);
        }
      }
    }
  });
}

TEST_CASE("moments survive a mean that is large against the spread") {
  on_every_target([] {
    const Tensor x = Tensor::empty({5000, 3}, DType::f32);
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      x.data<float>()[i] = 4096.0F + static_cast<float>((i / 3) % 2 == 0 ? 1 : -1);  // exact in f32
    }
    const kernels::ChannelMoments m = kernels::channel_moments(x);
    for (int c = 0; c < 3; ++c) {
      CHECK(m.mean.data<float>()[c] == 4096.0F);
      CHECK(m.var.data<float>()[c] == doctest::Approx(1).epsilon(1e-5));
    }
  });
}

TEST_CASE("the fused backward of batch normalisation against its formula") {
  on_every_target([] {
    const DType dtype = DType::f64;
    for (const bool relu : {false, true}) {
      for (const bool residual : {false, true}) {
        const Shape shape{6, 5, 19};
        const std::int64_t c = 19, rows = 30;
        const Tensor x = normal(shape, dtype, 1), gy = normal(shape, dtype, 2), y = normal(shape, dtype, 3);
        const Tensor gamma = normal({c}, dtype, 4);
        const kernels::ChannelMoments m = kernels::channel_moments(x);
        Tensor inv = Tensor::empty({c}, dtype);
        for (std::int64_t k = 0; k < c; ++k) inv.data<double>()[k] = 1 / std::sqrt(at(m.var, k) + 1e-5);
        const auto g = kernels::batch_norm_backward(gy, x, gamma, m.mean, inv, relu ? y : Tensor(),
                                                    {.x = true, .residual = residual});
        CHECK(g.residual.defined() == residual);
        for (std::int64_t k = 0; k < c; ++k) {
          double sum = 0, sum_x = 0;
          const auto masked = [&](std::int64_t i) { return relu && at(y, i) <= 0 ? 0.0 : at(gy, i); };
          const auto normalised = [&](std::int64_t i) { return (at(x, i) - at(m.mean, k)) * at(inv, k); };
          for (std::int64_t r = 0; r < rows; ++r) {
            sum += masked(r * c + k);
            sum_x += masked(r * c + k) * normalised(r * c + k);
          }
          CHECK(at(g.shift, k) == doctest::Approx(sum).epsilon(1e-10));
          CHECK(at(g.scale, k) == doctest::Approx(sum_x).epsilon(1e-10));
          for (std::int64_t r = 0; r < rows; ++r) {
            const std::int64_t i = r * c + k;
            const double expected =
                at(gamma, k) * at(inv, k) * (masked(i) - sum / rows - normalised(i) * sum_x / rows);
            CHECK(std::abs(at(g.x, i) - expected) < 1e-10);
            if (residual) CHECK(at(g.residual, i) == masked(i));
          }
        }
      }
    }
  });
}

TEST_CASE_TEMPLATE("gradients of normalisations are added to sums in place", T, float, double) {
  using kernels::NormGradients;
  const DType dtype = dtype_of<T>;
  on_every_target([&] {
    // Several chunks of rows, and channels that fill no vector, some, and many.
    for (const Shape& shape : {Shape{9000, 3}, Shape{2000, 37}, Shape{400, 200}}) {
      const Shape channels{shape.back()};
      const Tensor gy = normal(shape, dtype, 1), x = normal(shape, dtype, 2), y = normal(shape, dtype, 3);
      const Tensor s = normal(channels, dtype, 4), mean = normal(channels, dtype, 5);
      const Tensor inv_std = Tensor::full(channels, dtype, 0.75);
      const Tensor to_x = normal(shape, dtype, 6), to_residual = normal(shape, dtype, 7);
      for (const Tensor& mask : {y, Tensor()}) {
        for (const bool residual : {false, true}) {
          const auto compare = [&](const auto& backward) {
            const NormGradients alone = backward({.x = true, .residual = residual});
            const Tensor x_sum = to_x.clone(), residual_sum = to_residual.clone();
            const NormGradients added = backward({.x = true,
                                                  .residual = residual,
                                                  .x_sum = x_sum,
                                                  .residual_sum = residual ? residual_sum : Tensor()});
            CHECK(added.scale.to_vector<T>() == alone.scale.to_vector<T>());
            CHECK(added.shift.to_vector<T>() == alone.shift.to_vector<T>());
            const auto is_sum = [&](const Tensor& sum, const Tensor& before, const Tensor& term) {
              std::int64_t wrong = 0;
              for (std::int64_t i = 0; i < sum.numel(); ++i) {
                const double expected = at(before, i) + at(term, i);
                if (!(std::abs(at(sum, i) - expected) <= tolerance(dtype) * (1 + std::abs(expected))))
                  ++wrong;
              }
              CHECK(wrong == 0);
            };
            CHECK(added.x.raw() == x_sum.raw());
            is_sum(added.x, to_x, alone.x);
            REQUIRE(added.residual.defined() == residual);
            if (!residual) return;
            CHECK(added.residual.raw() == residual_sum.raw());
            // Without a ReLU the residual's gradient is gy itself.
            is_sum(added.residual, to_residual, alone.residual);
          };
          CAPTURE(shape[1]);
          CAPTURE(residual);
          compare([&](const kernels::NormWants& wants) {
            return kernels::affine_backward(gy, x, s, mask, wants);
          });
          compare([&](const kernels::NormWants& wants) {
            return kernels::batch_norm_backward(gy, x, s, mean, inv_std, mask, wants);
          });
        }
      }
    }
  });
}

TEST_CASE_TEMPLATE("a ReLU turns −0 into 0 and keeps NaN, and gradients reach a NaN unit", T, float, double) {
  using kernels::NormGradients;
  on_every_target([] {
    const DType dtype = dtype_of<T>;
    const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
    // Every kind of number in whole vectors and in rests, with the ReLU of each.
    const T inputs[] = {nan, T{-0.0}, 0, T{1.5}, T{-1.5}, infinity, -infinity};
    const T outputs[] = {nan, 0, 0, T{1.5}, 0, infinity, 0};
    constexpr std::int64_t kChannels = 37, kCount = 3 * kChannels;
    const Shape shape{3, kChannels};
    const Tensor x = Tensor::empty(shape, dtype);
    for (std::int64_t i = 0; i < kCount; ++i) x.data<T>()[i] = inputs[i % 7];
    const Tensor one = Tensor::full({kChannels}, dtype, 1),
                 minus_zero = Tensor::full({kChannels}, dtype, -0.0);
    const Tensor y = kernels::channel_affine(x, one, minus_zero, {}, true);
    // In bits, so that the sign of zero counts.
    const auto same = [](T a, T b) { return a == b ? std::signbit(a) == std::signbit(b) : a != a && b != b; };
    for (std::int64_t i = 0; i < kCount; ++i) {
      CAPTURE(i);
      CHECK(same(y.data<T>()[i], outputs[i % 7]));
    }

    const Tensor g = normal(shape, dtype, 1), u = normal(shape, dtype, 2);
    const auto passed = [&](const Tensor& masked, const Tensor& whole) {
      for (std::int64_t i = 0; i < kCount; ++i) {
        CAPTURE(i);
        CHECK(same(masked.data<T>()[i], outputs[i % 7] == T{0} ? T{0} : whole.data<T>()[i]));
      }
    };
    // The mask alone: what is multiplied with an x that is not finite is another matter.
    const Tensor plain = Tensor::full(shape, dtype, 1);
    const kernels::NormWants all{.x = true, .residual = true};
    const NormGradients first = kernels::affine_backward(g, plain, one, y, all);
    passed(first.x, g);
    passed(first.residual, g);
    const NormGradients along{.x = {}, .scale = {}, .shift = {}, .residual = u};
    passed(kernels::affine_double_backward(along, g, plain, one, y).gy, u);
    passed(kernels::affine_tangents(std::span(&along, 1), plain, one, y)[0], u);
    const kernels::NormMoves move{.gy = u, .x = {}, .scale = {}};
    passed(kernels::affine_backward_tangents(std::span(&move, 1), g, plain, one, y, all)[0].x, u);
    passed(kernels::shift_tangent(u, {}, {}, y, false), u);
    passed(kernels::shift_backward(g, y).g, g);
    const Tensor in_place = x.clone();
    kernels::apply_epilogue(in_place, {.relu = true});
    for (std::int64_t i = 0; i < kCount; ++i) CHECK(same(in_place.data<T>()[i], outputs[i % 7]));
    // The batch norm's own mask, from x: 0 as a mean gives sums of the passed gradients.
    const Tensor zero = Tensor::zeros({kChannels}, dtype);
    const auto sums = [&](const kernels::NormMap& map) {
      return kernels::batch_norm_backward(g, x, one, zero, one, y, {}, map).shift;
    };
    const Tensor by_input = sums({one, minus_zero}), by_output = sums({});
    for (std::int64_t c = 0; c < kChannels; ++c) {
      CHECK(same(by_input.data<T>()[c], by_output.data<T>()[c]));
      T expected = 0;
      for (std::int64_t i = c; i < kCount; i += kChannels) {
        if (outputs[i % 7] != T{0}) expected += g.data<T>()[i];
      }
      CHECK(by_input.data<T>()[c] == doctest::Approx(expected).epsilon(1e-5));
    }
  });
}

TEST_CASE("reductions have the same bits for any number of threads") {
  const Tensor x = normal({40000, 16}, DType::f32, 1);
  const auto with = [&](int threads) {
    const Threads limit(threads);
    return std::pair(kernels::channel_sum(x).to_vector<float>(),
                     kernels::channel_moments(x).var.to_vector<float>());
  };
  const bool same = with(4) == with(1);
  CHECK(same);
}

TEST_CASE("operands that do not match are refused") {
  const Tensor x = Tensor::zeros({2, 3}, DType::f32);
  CHECK_THROWS_AS(kernels::channel_affine(x, Tensor::zeros({2}, DType::f32), {}), Error);
  CHECK_THROWS_AS(kernels::channel_affine(x, Tensor::zeros({3}, DType::f64), {}), Error);
  CHECK_THROWS_AS(kernels::channel_dot(x, Tensor::zeros({3, 2}, DType::f32)), Error);
  CHECK_THROWS_AS(kernels::channel_sum(Tensor::scalar(1, DType::f32)), Error);
  CHECK_THROWS_AS(kernels::channel_moments(Tensor::zeros({0, 3}, DType::f32)), Error);
  const Tensor two = Tensor::zeros({2}, DType::f32), turned = Tensor::zeros({3, 2}, DType::f32);
  CHECK_THROWS_AS(kernels::apply_epilogue(x, {.residual = turned}), Error);
  CHECK_THROWS_AS(kernels::shift_tangent(x, two, {}, {}, false), Error);
  CHECK_THROWS_AS(kernels::shift_tangent(x, {}, {}, turned, false), Error);
  CHECK_THROWS_AS(kernels::shift_backward(x, turned), Error);
}

TEST_CASE("statistics of a batch norm that do not match are refused by each of its derivatives") {
  const auto ones = [](const Shape& shape, DType dtype = DType::f32) {
    return Tensor::full(shape, dtype, 1);
  };
  const Tensor x = ones({4, 8}), c = ones({8});
  const auto refused = [&](const Tensor& mean, const Tensor& inv_std) {
    const kernels::NormGradients first{.x = x, .scale = c, .shift = c, .residual = {}}, u = first;
    const kernels::NormMoves move{x, x, c};
    CHECK_THROWS_WITH_AS(kernels::batch_norm_backward(x, x, c, mean, inv_std, {}, {}),
                         doctest::Contains("[batch_norm_backward]"), Error);
    CHECK_THROWS_WITH_AS(kernels::batch_norm_double_backward(u, first, x, x, c, mean, inv_std, {}),
                         doctest::Contains("[batch_norm_double_backward]"), Error);
    CHECK_THROWS_WITH_AS(kernels::batch_norm_tangents(std::span(&u, 1), x, c, mean, inv_std, {}),
                         doctest::Contains("[batch_norm_tangents]"), Error);
    CHECK_THROWS_WITH_AS(
        kernels::batch_norm_backward_tangents(std::span(&move, 1), first, x, x, c, mean, inv_std, {}, {}),
        doctest::Contains("[batch_norm_backward_tangents]"), Error);
  };
  for (const Tensor& wrong : {ones({1}), ones({8, 1}), ones({8}, DType::f64), Tensor()}) {
    refused(wrong, c);
    refused(c, wrong);
  }
}
