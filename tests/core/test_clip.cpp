#include <cmath>
#include <doctest/doctest.h>
#include <limits>

#include "core/error.hpp"
#include "core/kernels/clip.hpp"
#include "core/random.hpp"
#include "tests/support/target_guard.hpp"
#include "tests/support/threads.hpp"

using namespace goshawk;
using kernels::clip_gradient;
using kernels::clip_round;

namespace {

// Whole vectors, rests, several blocks of a short sum and several parallel chunks.
constexpr std::int64_t kSizes[] = {1, 7, 16, 1025, 100003};

Tensor normal(std::int64_t n, DType dtype, std::uint64_t seed) {
  Random random(seed);
  return random_normal({n}, dtype, random);
}

}  // namespace

TEST_CASE_TEMPLATE("clip_round: every code by the library's own rounding", T, float, double) {
  on_every_target([] {
    for (const std::int64_t n : kSizes) {
      CAPTURE(n);
      const Tensor x = normal(n, dtype_of<T>, 1);
      const T alpha = T{1.25}, to_code = 7 / alpha, to_value = alpha / 7;
      const Tensor y = clip_round(x, {-static_cast<double>(alpha), alpha, to_code, to_value});
      bool same = true;
      for (std::int64_t i = 0; i < n; ++i) {
        const T clipped = std::min(std::max(x.data<T>()[i], -alpha), alpha);
        same = same && y.data<T>()[i] == std::nearbyint(clipped * to_code) * to_value;
      }
      CHECK(same);
    }
  });
  // Halves go to the even code.
  const Tensor halves = Tensor::from<T>({T{0.5}, T{1.5}, T{2.5}, T{-0.5}, 9}, {5});
  const Tensor rounded = clip_round(halves, {0, 4, 1, 1});
  const T expected[] = {0, 2, 2, 0, 4};
  for (std::int64_t i = 0; i < 5; ++i) CHECK(rounded.data<T>()[i] == expected[i]);
}

TEST_CASE_TEMPLATE("NaN is not a number to clip: it stays, and its gradient passes", T, float, double) {
  on_every_target([] {
    const Tensor x = normal(37, dtype_of<T>, 1), g = normal(37, dtype_of<T>, 2);
    for (std::int64_t i = 0; i < 37; i += 4) x.data<T>()[i] = std::numeric_limits<T>::quiet_NaN();
    const Tensor y = clip_round(x, {-1, 1, 7, 1 / 7.0});
    const kernels::ClipGradient back = clip_gradient(g, x, -1, 1);
    for (std::int64_t i = 0; i < 37; ++i) {
      CAPTURE(i);
      CHECK(std::isnan(y.data<T>()[i]) == (i % 4 == 0));
      if (i % 4 == 0) CHECK(back.input.data<T>()[i] == g.data<T>()[i]);
    }
  });
}

TEST_CASE_TEMPLATE("clip_gradient: passed, and summed at both ends", T, float, double) {
  on_every_target([] {
    for (const std::int64_t n : kSizes) {
      CAPTURE(n);
      const Tensor g = normal(n, dtype_of<T>, 2), x = normal(n, dtype_of<T>, 3);
      // The limits themselves belong to the ends.
      x.data<T>()[0] = T{0.75};
      x.data<T>()[n - 1] = T{-0.5};
      const kernels::ClipGradient found = clip_gradient(g, x, -0.5, 0.75);
      double high = 0, low = 0, size = 0;
      bool passed = true;
      for (std::int64_t i = 0; i < n; ++i) {
        const T v = x.data<T>()[i], gi = g.data<T>()[i];
        if (v >= T{0.75}) high += gi;
        if (v <= T{-0.5}) low += gi;
        size += std::abs(gi);
        passed = passed && found.input.data<T>()[i] == (v > T{-0.5} && v < T{0.75} ? gi : T{0});
      }
      CHECK(passed);
      const double tolerance = 64 * std::numeric_limits<T>::epsilon() * size;
      CHECK(std::abs(found.high - high) <= tolerance);
      CHECK(std::abs(found.low - low) <= tolerance);
    }
  });
  CHECK_THROWS_AS(clip_gradient(normal(3, dtype_of<T>, 1), normal(4, dtype_of<T>, 1), 0, 1), Error);
}

TEST_CASE("clip_gradient: the same bits for any number of threads") {
  const Tensor g = normal(1000003, DType::f32, 4), x = normal(1000003, DType::f32, 5);
  const auto with = [&](int threads) {
    const Threads limit(threads);
    return clip_gradient(g, x, 0, 0.5);
  };
  const kernels::ClipGradient one = with(1), three = with(3);
  CHECK(one.high == three.high);
  CHECK(one.low == three.low);
}
