#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <utility>
#include <vector>

#include "core/kernels/levels.hpp"
#include "core/random.hpp"
#include "tests/support/target_guard.hpp"
#include "tests/support/threads.hpp"

using namespace goshawk;
using namespace goshawk::kernels;

namespace {

struct Expected {
  std::vector<double> rounded;
  std::vector<LevelSum> sums;
};

// Element by element, in f64.
template <class T>
Expected expected(const Tensor& x, const std::vector<double>& values, const std::vector<double>& thresholds) {
  Expected e{.rounded = {}, .sums = std::vector<LevelSum>(values.size())};
  for (const T element : x.span<T>()) {
    std::size_t level = 0;
    while (level < thresholds.size() && static_cast<T>(thresholds[level]) < element) ++level;
    e.rounded.push_back(static_cast<double>(static_cast<T>(values[level])));
    e.sums[level].count += 1;
    e.sums[level].sum += static_cast<double>(element);
  }
  return e;
}

}  // namespace

TEST_CASE("elements go to the level between their thresholds, on every target") {
  on_every_target([] {
    Random random(11);
    for (const DType dtype : {DType::f32, DType::f64}) {
      for (const std::size_t levels : {1U, 2U, 3U, 4U, 8U, 13U, 16U}) {
        for (const std::int64_t n : {1, 7, 16, 1000, 1031, 40'000}) {
          CAPTURE(levels);
          CAPTURE(n);
          const Tensor x = random_normal({n}, dtype, random);
          std::vector<double> values(levels), thresholds(levels - 1);
          for (double& value : values) value = random.normal();
          for (double& threshold : thresholds) threshold = random.normal();
          std::sort(thresholds.begin(), thresholds.end());
          dispatch_floating(dtype, "test", [&]<class T>() {
            if (n > 7 && levels > 2) x.data<T>()[3] = static_cast<T>(thresholds[1]);  // on it: below
            const Expected e = expected<T>(x, values, thresholds);
            std::vector<LevelSum> sums;
            const Tensor y = round_to_levels(x, values, thresholds, &sums);
            CHECK(y.to(DType::f64).to_vector<double>() == e.rounded);
            CHECK(round_to_levels(x, values, thresholds).to(DType::f64).to_vector<double>() == e.rounded);
            REQUIRE(sums.size() == levels);
            for (std::size_t k = 0; k < levels; ++k) {
              CHECK(sums[k].count == e.sums[k].count);
              // 64 additions of T in each of 16 lanes, the rest in f64.
              const double size = 64 * static_cast<double>(std::numeric_limits<T>::epsilon()) * 5;
              CHECK(std::abs(sums[k].sum - e.sums[k].sum) <= size * e.sums[k].count + 1e-9);
            }
          });
        }
      }
    }
  });
}

TEST_CASE("what is not a number stays so and spoils the lowest sum; infinities have the outer ones") {
  on_every_target([] {
    const float inf = std::numeric_limits<float>::infinity();
    for (const std::int64_t n : {3, 70}) {
      const Tensor x = Tensor::zeros({n}, DType::f32);
      x.data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
      x.data<float>()[1] = inf;
      x.data<float>()[2] = -inf;
      std::vector<LevelSum> sums;
      const Tensor y = round_to_levels(x, std::vector{1.0, 2.0, 3.0}, std::vector<double>{-1, inf}, &sums);
      CHECK(std::isnan(y.data<float>()[0]));
      CHECK(y.data<float>()[1] == 2);
      CHECK(y.data<float>()[2] == 1);
      CHECK(sums[0].count == 2);
      CHECK(std::isnan(sums[0].sum));
      CHECK(sums[1].count == n - 2);
      CHECK(sums[1].sum == static_cast<double>(inf));
      CHECK(sums[2].count == 0);
    }
  });
}

TEST_CASE("results do not depend on threads, and wrong numbers of levels are errors") {
  Random random(5);
  const Tensor x = random_normal({100'000}, DType::f32, random);
  const std::vector<double> values{-1.5, -0.2, 0.3, 2}, thresholds{-1, 0, 1};
  std::vector<LevelSum> one, many;
  for (const auto& [threads, sums] : {std::pair(1, &one), std::pair(4, &many)}) {
    const Threads limit(threads);
    round_to_levels(x, values, thresholds, sums);
  }
  for (std::size_t k = 0; k < values.size(); ++k) CHECK(one[k].sum == many[k].sum);

  CHECK_THROWS_WITH_AS(round_to_levels(x, values, values), doctest::Contains("4 levels and 4 thresholds"),
                       Error);
  CHECK_THROWS_AS(round_to_levels(x, std::vector<double>(17), std::vector<double>(16)), Error);
  CHECK_THROWS_AS(round_to_levels(x, {}, {}), Error);
  CHECK(round_to_levels(Tensor::zeros({0}, DType::f32), values, thresholds, &one).numel() == 0);
  CHECK(one[0].count == 0);
}
