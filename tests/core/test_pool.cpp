#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <hwy/targets.h>
#include <vector>

#include "core/kernels/conv_simd.hpp"
#include "core/kernels/max_pool.hpp"
#include "core/random.hpp"
#include "tests/support/target_guard.hpp"
#include "tests/support/threads.hpp"

using namespace goshawk;
using kernels::PoolParams;

namespace {

// 1 × 4 × 4 × 1 with the values 0 … 15.
Tensor ramp() {
  Tensor t = Tensor::empty({1, 4, 4, 1}, DType::f64);
  for (int i = 0; i < 16; ++i) t.data<double>()[i] = i;
  return t;
}

// Where the windows along one axis begin, window by window: one is there if it fits into the padded axis or,
// with `ceil`, if the one before leaves something of it out and this one starts before the padding behind.
std::vector<std::int64_t> window_starts(std::int64_t in, std::int64_t kernel, std::int64_t stride,
                                        std::int64_t pad, bool ceil) {
  std::vector<std::int64_t> starts;
  for (std::int64_t start = -pad;; start += stride) {
    const bool fits = start + kernel <= in + pad;
    const bool left_out = starts.empty() || starts.back() + kernel < in + pad;
    if (!fits && !(ceil && left_out && start < in)) return starts;
    starts.push_back(start);
  }
}

// The pools of one channel of an image, by looking at every position of every window.
struct PlainPools {
  Shape shape;
  std::vector<double> mean, maximum;
};
PlainPools plain_pools(const Tensor& x, const PoolParams& p) {
  const std::int64_t h = x.dim(1), w = x.dim(2);
  const auto rows = window_starts(h, p.kernel_h, p.stride_h, p.pad_h, p.ceil);
  const auto columns = window_starts(w, p.kernel_w, p.stride_w, p.pad_w, p.ceil);
  PlainPools pools{
      {1, static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(columns.size()), 1}, {}, {}};
  for (const std::int64_t top : rows) {
    for (const std::int64_t left : columns) {
      double sum = 0, positions = 0, largest = -INFINITY;
      for (std::int64_t i = top; i < std::min(top + p.kernel_h, h + p.pad_h); ++i) {
        for (std::int64_t j = left; j < std::min(left + p.kernel_w, w + p.pad_w); ++j) {
          positions += 1;
          if (i < 0 || i >= h || j < 0 || j >= w) continue;
          sum += x.data<double>()[i * w + j];
          largest = std::max(largest, x.data<double>()[i * w + j]);
        }
      }
      pools.mean.push_back(sum / positions);
      pools.maximum.push_back(largest);
    }
  }
  return pools;
}

// Flat index into x of the maximum of each window, from the kernel's taps.
Tensor winners(const Tensor& x, const PoolParams& p) {
  const kernels::MaxPool pool = kernels::max_pool2d(x, p);
  const Shape& s = pool.y.shape();
  const Tensor taps = pool.taps.to(DType::i64), flat = Tensor::empty(s, DType::i64);
  for (std::int64_t i = 0; i < taps.numel(); ++i) {
    const std::int64_t tap = taps.data<std::int64_t>()[i];
    const std::int64_t c = i % s[3], ox = i / s[3] % s[2], oy = i / s[3] / s[2] % s[1],
                       n = i / s[3] / s[2] / s[1];
    const std::int64_t row = oy * p.stride_h - p.pad_h + tap / p.kernel_w;
    const std::int64_t column = ox * p.stride_w - p.pad_w + tap % p.kernel_w;
    flat.data<std::int64_t>()[i] = ((n * x.dim(1) + row) * x.dim(2) + column) * x.dim(3) + c;
  }
  return flat;
}

}  // namespace

TEST_CASE("average pooling by hand") {
  CHECK(kernels::avg_pool2d(ramp(), {}).to_vector<double>() == std::vector<double>{2.5, 4.5, 10.5, 12.5});
  // Padded zeros count: the corner window holds one pixel of four.
  const PoolParams padded{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1};
  CHECK(kernels::avg_pool2d(ramp(), padded).to_vector<double>()[0] == 0);
  CHECK(kernels::avg_pool2d(ramp(), padded).to_vector<double>()[8] == 15.0 / 4);
}

TEST_CASE("max pooling gives the first of equals, and NaN wins") {
  CHECK(winners(ramp(), {}).to_vector<std::int64_t>() == std::vector<std::int64_t>{5, 7, 13, 15});
  const Tensor equal = Tensor::zeros({1, 2, 2, 1}, DType::f32);
  CHECK(winners(equal, {}).to_vector<std::int64_t>() == std::vector<std::int64_t>{0});
  equal.data<float>()[2] = std::numeric_limits<float>::quiet_NaN();
  CHECK(winners(equal, {}).to_vector<std::int64_t>() == std::vector<std::int64_t>{2});
  // All negative: padding is no zero that could win.
  const PoolParams padded{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1};
  const Tensor negative = Tensor::full({1, 2, 2, 1}, DType::f32, -1);
  CHECK(winners(negative, padded).to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 1, 2, 3});
}

TEST_CASE("global average pooling by hand") {
  CHECK(kernels::global_avg_pool(ramp()).to_vector<double>() == std::vector<double>{7.5});
  const Tensor g = Tensor::from<double>({16}, {1, 1});
  CHECK(kernels::global_avg_unpool(g, {1, 4, 4, 1}).to_vector<double>() == std::vector<double>(16, 1));
}

TEST_CASE("windows over the far edge by hand") {
  // Four rows and columns, windows of three from 0 and 2: the second ones hang over by one.
  const PoolParams over{.kernel_h = 3, .kernel_w = 3, .ceil = true};
  CHECK(winners(ramp(), over).to_vector<std::int64_t>() == std::vector<std::int64_t>{10, 11, 14, 15});
  // Only what is there is divided by: the corner is the mean of 10, 11, 14 and 15.
  const auto means = kernels::avg_pool2d(ramp(), over).to_vector<double>();
  CHECK(means[1] == doctest::Approx((2 + 3 + 6 + 7 + 10 + 11) / 6.0));
  CHECK(means[3] == 12.5);
  CHECK(kernels::pool_output_shape({1, 4, 4, 1}, {.kernel_h = 3, .kernel_w = 3}, "test") ==
        Shape{1, 1, 1, 1});
  // Windows of two from -1, 1 and 3, of which the last would hold nothing but padding.
  const PoolParams padded{.pad_h = 1, .pad_w = 1, .ceil = true};
  CHECK(kernels::pool_output_shape({1, 3, 3, 1}, padded, "test") == Shape{1, 2, 2, 1});
  CHECK(kernels::pool_output_shape({1, 4, 4, 1}, padded, "test") == Shape{1, 3, 3, 1});
  // The only window may hang over, but by less than the stride.
  CHECK(kernels::pool_output_shape({1, 2, 2, 1}, over, "test") == Shape{1, 1, 1, 1});
  CHECK_THROWS_AS(kernels::pool_output_shape({1, 1, 1, 1}, over, "test"), Error);
}

TEST_CASE("pools of all small windows against plain loops, and the adjoint of the mean") {
  Random random(3);
  std::int64_t compared = 0, hanging = 0;
  for (std::int64_t n = 1; n <= 7; ++n) {
    const Tensor x = random_normal({1, n, 5, 1}, DType::f64, random);
    for (std::int64_t kernel = 1; kernel <= 4; ++kernel) {
      for (std::int64_t stride = 1; stride <= 4; ++stride) {
        for (std::int64_t pad = 0; pad < kernel; ++pad) {
          if (kernel > n + 2 * pad) continue;
          PoolParams p{.kernel_h = kernel,
                       .kernel_w = 2,
                       .stride_h = stride,
                       .stride_w = 2,
                       .pad_h = pad,
                       .ceil = false};
          const Shape floor_shape = kernels::pool_output_shape(x.shape(), p, "test");
          for (const bool ceil : {false, true}) {
            p.ceil = ceil;
            CAPTURE(n);
            CAPTURE(kernel);
            CAPTURE(stride);
            CAPTURE(pad);
            CAPTURE(ceil);
            const PlainPools plain = plain_pools(x, p);
            const Tensor mean = kernels::avg_pool2d(x, p), best = winners(x, p);
            REQUIRE(mean.shape() == plain.shape);
            REQUIRE(best.shape() == plain.shape);
            for (std::size_t i = 0; i < plain.mean.size(); ++i) {
              CHECK(mean.data<double>()[i] == doctest::Approx(plain.mean[i]).epsilon(1e-14));
              CHECK(x.data<double>()[best.data<std::int64_t>()[i]] == plain.maximum[i]);
            }
            // ⟨g, pool(x)⟩ = ⟨unpool(g), x⟩
            const Tensor g = random_normal(plain.shape, DType::f64, random);
            const Tensor back = kernels::avg_unpool2d(g, x.shape(), p);
            double left = 0, right = 0;
            for (std::int64_t i = 0; i < g.numel(); ++i) left += g.data<double>()[i] * mean.data<double>()[i];
            for (std::int64_t i = 0; i < x.numel(); ++i)
              right += back.data<double>()[i] * x.data<double>()[i];
            CHECK(left == doctest::Approx(right).epsilon(1e-12));
            ++compared;
            if (plain.shape[1] > floor_shape[1]) ++hanging;
          }
        }
      }
    }
  }
  CHECK(hanging > 20);
  CHECK(compared > 10 * 20);
}

TEST_CASE_TEMPLATE("mean pools of several images and channels against plain loops", T, float, double) {
  Random random(5);
  constexpr std::int64_t kImages = 3, kHeight = 9, kWidth = 8, kChannels = 7;
  const Tensor x = random_normal({kImages, kHeight, kWidth, kChannels}, dtype_of<T>, random);
  const auto channel = [&](std::int64_t image, std::int64_t c) {
    Tensor one = Tensor::empty({1, kHeight, kWidth, 1}, DType::f64);
    for (std::int64_t k = 0; k < kHeight * kWidth; ++k) {
      one.data<double>()[k] =
          static_cast<double>(x.data<T>()[(image * kHeight * kWidth + k) * kChannels + c]);
    }
    return one;
  };
  const double tolerance = 16 * std::numeric_limits<T>::epsilon();
  const Tensor global = kernels::global_avg_pool(x);
  REQUIRE(global.shape() == Shape{kImages, kChannels});
  for (const PoolParams& p :
       {PoolParams{}, PoolParams{.kernel_h = 3, .kernel_w = 3, .pad_h = 1, .pad_w = 1},
        PoolParams{.kernel_h = 2, .kernel_w = 3, .stride_h = 3, .stride_w = 1, .ceil = true}}) {
    const Tensor y = kernels::avg_pool2d(x, p);
    for (std::int64_t image = 0; image < kImages; ++image) {
      for (std::int64_t c = 0; c < kChannels; ++c) {
        const Tensor one = channel(image, c);
        const PlainPools plain = plain_pools(one, p);
        REQUIRE(y.shape() == Shape{kImages, plain.shape[1], plain.shape[2], kChannels});
        const auto positions = static_cast<std::int64_t>(plain.mean.size());
        for (std::int64_t k = 0; k < positions; ++k) {
          const auto got = static_cast<double>(y.data<T>()[(image * positions + k) * kChannels + c]);
          CHECK(std::abs(got - plain.mean[static_cast<std::size_t>(k)]) <= tolerance);
        }
        double sum = 0;
        for (const double v : one.span<double>()) sum += v;
        CHECK(std::abs(static_cast<double>(global.data<T>()[image * kChannels + c]) -
                       sum / (kHeight * kWidth)) <= tolerance);
      }
    }
  }
}

TEST_CASE("max pools in several tasks choose as one channel alone does") {
  Random random(6);
  const Tensor x = random_normal({3, 40, 41, 64}, DType::f32, random);
  // The second has as many taps as a byte can number.
  for (const PoolParams& p : {PoolParams{.kernel_h = 3, .kernel_w = 3, .pad_h = 1, .pad_w = 1},
                              PoolParams{.kernel_h = 16, .kernel_w = 16, .stride_h = 8, .stride_w = 8}}) {
    const kernels::MaxPool pool = kernels::max_pool2d(x, p);
    CHECK(pool.taps.dtype() == DType::u8);
    const Tensor flat = winners(x, p);
    const std::int64_t positions = pool.y.dim(1) * pool.y.dim(2);
    for (const auto& [image, c] : {std::pair<std::int64_t, std::int64_t>{0, 0}, {1, 37}, {2, 63}}) {
      Tensor one = Tensor::empty({1, 40, 41, 1}, DType::f64);
      for (std::int64_t k = 0; k < 40 * 41; ++k)
        one.data<double>()[k] = static_cast<double>(x.data<float>()[(image * 40 * 41 + k) * 64 + c]);
      const PlainPools plain = plain_pools(one, p);
      for (std::int64_t k = 0; k < positions; ++k) {
        const std::int64_t i = (image * positions + k) * 64 + c;
        CHECK(static_cast<double>(pool.y.data<float>()[i]) == plain.maximum[static_cast<std::size_t>(k)]);
        CHECK(x.data<float>()[flat.data<std::int64_t>()[i]] == pool.y.data<float>()[i]);
      }
    }
    CHECK(kernels::window_pick(x, pool.taps, p).to_vector<float>() == pool.y.to_vector<float>());
    // ⟨g, pick(x)⟩ = ⟨place(g), x⟩, exactly in whole numbers.
    Tensor g = Tensor::empty(pool.y.shape(), DType::f64), v = Tensor::empty(x.shape(), DType::f64);
    for (double& e : g.span<double>()) e = static_cast<double>(random.below(9)) - 4;
    for (double& e : v.span<double>()) e = static_cast<double>(random.below(9)) - 4;
    const Tensor picked = kernels::window_pick(v, pool.taps, p);
    const Tensor placed = kernels::window_place(g, pool.taps, x.shape(), p);
    double left = 0, right = 0;
    for (std::int64_t i = 0; i < g.numel(); ++i) left += g.data<double>()[i] * picked.data<double>()[i];
    for (std::int64_t i = 0; i < v.numel(); ++i) right += v.data<double>()[i] * placed.data<double>()[i];
    CHECK(left == right);
  }
}

TEST_CASE("max pools of many channels, and the adjoint pair of their choice, on every instruction set") {
  Random random(4);
  const TargetGuard guard;
  for (const std::int64_t target : kernels::simd::supported_targets()) {
    hwy::SetSupportedTargetsForTest(target);
    for (const DType dtype : {DType::f32, DType::f64}) {
      for (const std::int64_t channels : {1, 5, 8, 16, 23, 64}) {
        for (const PoolParams& p :
             {PoolParams{.kernel_h = 3, .kernel_w = 3, .ceil = true},
              PoolParams{.kernel_h = 2, .kernel_w = 3, .stride_h = 1, .stride_w = 3, .pad_h = 1, .pad_w = 2},
              PoolParams{.kernel_h = 1, .kernel_w = 2, .stride_h = 3, .stride_w = 3},
              // More taps than a byte can number.
              PoolParams{
                  .kernel_h = 17, .kernel_w = 19, .stride_h = 3, .stride_w = 5, .pad_h = 8, .pad_w = 9}}) {
          CAPTURE(hwy::TargetName(target));
          CAPTURE(channels);
          CAPTURE(p.kernel_h);
          // Few different numbers, so that many are equal.
          Tensor x = Tensor::empty({2, 11, 12, channels}, DType::f64);
          for (double& v : x.span<double>()) v = static_cast<double>(random.below(9)) - 4;
          x.data<double>()[7] = std::nan("");
          const kernels::MaxPool pool = kernels::max_pool2d(x.to(dtype), p);
          CHECK(pool.taps.dtype() == (p.kernel_h > 16 ? DType::i32 : DType::u8));

          // By looking at every position of every window.
          const Shape& s = pool.y.shape();
          const Tensor y = pool.y.to(DType::f64), flat = winners(x.to(dtype), p);
          std::int64_t wrong = 0, i = 0;
          for (std::int64_t n = 0; n < s[0]; ++n) {
            for (std::int64_t oy = 0; oy < s[1]; ++oy) {
              for (std::int64_t ox = 0; ox < s[2]; ++ox) {
                for (std::int64_t c = 0; c < channels; ++c, ++i) {
                  std::int64_t best = -1;
                  for (std::int64_t ky = 0; ky < p.kernel_h; ++ky) {
                    for (std::int64_t kx = 0; kx < p.kernel_w; ++kx) {
                      const std::int64_t row = oy * p.stride_h - p.pad_h + ky,
                                         column = ox * p.stride_w - p.pad_w + kx;
                      if (row < 0 || row >= 11 || column < 0 || column >= 12) continue;
                      const std::int64_t at = ((n * 11 + row) * 12 + column) * channels + c;
                      const double value = x.data<double>()[at];
                      if (best < 0 || value > x.data<double>()[best] ||
                          (std::isnan(value) && !std::isnan(x.data<double>()[best]))) {
                        best = at;
                      }
                    }
                  }
                  const double expected = x.data<double>()[best], got = y.data<double>()[i];
                  const bool same = std::isnan(expected) ? std::isnan(got) : expected == got;
                  if (!same || flat.data<std::int64_t>()[i] != best) ++wrong;
                }
              }
            }
          }
          CHECK(wrong == 0);

          // Picking and placing are what gather and scatter-add by these indices are.
          Tensor v = Tensor::empty(x.shape(), DType::f64), g = Tensor::empty(s, DType::f64);
          for (double& e : v.span<double>()) e = static_cast<double>(random.below(100));
          for (double& e : g.span<double>()) e = static_cast<double>(random.below(100));
          std::vector<double> picked, placed(static_cast<std::size_t>(x.numel()));
          for (std::int64_t k = 0; k < g.numel(); ++k) {
            const std::int64_t at = flat.data<std::int64_t>()[k];
            picked.push_back(v.data<double>()[at]);
            placed[static_cast<std::size_t>(at)] += g.data<double>()[k];
          }
          CHECK(kernels::window_pick(v.to(dtype), pool.taps, p).to(DType::f64).to_vector<double>() == picked);
          CHECK(kernels::window_place(g.to(dtype), pool.taps, x.shape(), p)
                    .to(DType::f64)
                    .to_vector<double>() == placed);
        }
      }
    }
  }
}

TEST_CASE("pools and their adjoints have the same bits for any number of threads") {
  Random random(9);
  const PoolParams p{.kernel_h = 3, .kernel_w = 3, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1};
  const Tensor x = random_normal({6, 33, 32, 40}, DType::f32, random);
  const Tensor gy = random_normal({6, 17, 16, 40}, DType::f32, random);
  const Tensor of_image = random_normal({6, 40}, DType::f32, random);
  const auto with = [&](int threads) {
    const Threads limit(threads);
    const kernels::MaxPool best = kernels::max_pool2d(x, p);
    return std::vector{kernels::avg_pool2d(x, p).to_vector<float>(),
                       kernels::avg_unpool2d(gy, x.shape(), p).to_vector<float>(),
                       best.y.to_vector<float>(),
                       kernels::window_place(gy, best.taps, x.shape(), p).to_vector<float>(),
                       kernels::global_avg_pool(x).to_vector<float>(),
                       kernels::global_avg_unpool(of_image, x.shape()).to_vector<float>()};
  };
  const bool same = with(5) == with(1);
  CHECK(same);
}

TEST_CASE("taps that do not belong to the windows are refused") {
  const Tensor taps = kernels::max_pool2d(ramp(), {}).taps;
  CHECK_THROWS_AS(kernels::window_pick(ramp(), taps.to(DType::i32), {}), Error);
  CHECK_THROWS_AS(kernels::window_pick(Tensor::zeros({1, 6, 4, 1}, DType::f64), taps, {}), Error);
  CHECK_THROWS_AS(kernels::window_place(Tensor::zeros({1, 2, 3, 1}, DType::f64), taps, {1, 4, 4, 1}, {}),
                  Error);
}

TEST_CASE("impossible windows are refused") {
  CHECK_THROWS_AS(kernels::avg_pool2d(ramp(), {.kernel_h = 5, .kernel_w = 5}), Error);
  CHECK_THROWS_AS(kernels::avg_pool2d(ramp(), {.pad_h = 2, .pad_w = 2}), Error);
  CHECK_THROWS_AS(kernels::avg_pool2d(ramp(), {.stride_h = 0}), Error);
  CHECK_THROWS_AS(kernels::avg_pool2d(Tensor::zeros({4, 4}, DType::f32), {}), Error);
  // Nothing but padding.
  CHECK_THROWS_AS(kernels::avg_pool2d(Tensor::zeros({1, 0, 4, 1}, DType::f32), {.pad_h = 1}), Error);
  CHECK_THROWS_AS(kernels::avg_unpool2d(Tensor::zeros({1, 3, 3, 1}, DType::f32), {1, 4, 4, 1}, {}), Error);
  CHECK_THROWS_AS(kernels::global_avg_pool(Tensor::zeros({1, 0, 4, 1}, DType::f32)), Error);
  CHECK_THROWS_AS(kernels::global_avg_unpool(Tensor::zeros({2, 3}, DType::f32), {2, 0, 5, 3}), Error);
}
