#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <vector>

#include "core/kernels/pool.hpp"
#include "core/random.hpp"

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

}  // namespace

TEST_CASE("average pooling by hand") {
  CHECK(kernels::avg_pool2d(ramp(), {}).to_vector<double>() == std::vector<double>{2.5, 4.5, 10.5, 12.5});
  // Padded zeros count: the corner window holds one pixel of four.
  const PoolParams padded{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1};
  CHECK(kernels::avg_pool2d(ramp(), padded).to_vector<double>()[0] == 0);
  CHECK(kernels::avg_pool2d(ramp(), padded).to_vector<double>()[8] == 15.0 / 4);
}

TEST_CASE("max pooling gives the first of equals, and NaN wins") {
  CHECK(kernels::max_pool2d_indices(ramp(), {}).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{5, 7, 13, 15});
  const Tensor equal = Tensor::zeros({1, 2, 2, 1}, DType::f32);
  CHECK(kernels::max_pool2d_indices(equal, {}).to_vector<std::int64_t>() == std::vector<std::int64_t>{0});
  equal.data<float>()[2] = std::numeric_limits<float>::quiet_NaN();
  CHECK(kernels::max_pool2d_indices(equal, {}).to_vector<std::int64_t>() == std::vector<std::int64_t>{2});
  // All negative: padding is no zero that could win.
  const PoolParams padded{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1};
  const Tensor negative = Tensor::full({1, 2, 2, 1}, DType::f32, -1);
  CHECK(kernels::max_pool2d_indices(negative, padded).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{0, 1, 2, 3});
}

TEST_CASE("global average pooling by hand") {
  CHECK(kernels::global_avg_pool(ramp()).to_vector<double>() == std::vector<double>{7.5});
  const Tensor g = Tensor::from<double>({16}, {1, 1});
  CHECK(kernels::global_avg_unpool(g, {1, 4, 4, 1}).to_vector<double>() == std::vector<double>(16, 1));
}

TEST_CASE("windows over the far edge by hand") {
  // Four rows and columns, windows of three from 0 and 2: the second ones hang over by one.
  const PoolParams over{.kernel_h = 3, .kernel_w = 3, .ceil = true};
  CHECK(kernels::max_pool2d_indices(ramp(), over).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{10, 11, 14, 15});
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
            const Tensor mean = kernels::avg_pool2d(x, p), winners = kernels::max_pool2d_indices(x, p);
            REQUIRE(mean.shape() == plain.shape);
            REQUIRE(winners.shape() == plain.shape);
            for (std::size_t i = 0; i < plain.mean.size(); ++i) {
              CHECK(mean.data<double>()[i] == doctest::Approx(plain.mean[i]).epsilon(1e-14));
              CHECK(x.data<double>()[winners.data<std::int64_t>()[i]] == plain.maximum[i]);
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

TEST_CASE("impossible windows are refused") {
  CHECK_THROWS_AS(kernels::avg_pool2d(ramp(), {.kernel_h = 5, .kernel_w = 5}), Error);
  CHECK_THROWS_AS(kernels::avg_pool2d(ramp(), {.pad_h = 2, .pad_w = 2}), Error);
  CHECK_THROWS_AS(kernels::avg_pool2d(ramp(), {.stride_h = 0}), Error);
  CHECK_THROWS_AS(kernels::avg_pool2d(Tensor::zeros({4, 4}, DType::f32), {}), Error);
  // Nothing but padding.
  CHECK_THROWS_AS(kernels::avg_pool2d(Tensor::zeros({1, 0, 4, 1}, DType::f32), {.pad_h = 1}), Error);
  CHECK_THROWS_AS(kernels::avg_unpool2d(Tensor::zeros({1, 3, 3, 1}, DType::f32), {1, 4, 4, 1}, {}), Error);
  CHECK_THROWS_AS(kernels::global_avg_pool(Tensor::zeros({1, 0, 4, 1}, DType::f32)), Error);
}
