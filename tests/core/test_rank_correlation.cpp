#include <cmath>
#include <doctest/doctest.h>
#include <vector>

#include "core/error.hpp"
#include "core/random.hpp"
#include "core/rank_correlation.hpp"

using namespace goshawk;

TEST_CASE("Spearman's correlation: order alone counts, ties share their ranks") {
  const std::vector<double> x{1, 2, 3, 4, 5};
  CHECK(spearman(x, std::vector<double>{-3, 0, 0.1, 7, 1e9}) == doctest::Approx(1));
  CHECK(spearman(x, std::vector<double>{5, 4, 3, 2, -1e9}) == doctest::Approx(-1));
  // 1 − 6 Σd² / (n (n² − 1)) with d = 1, 1, 0, 2, 2.
  CHECK(spearman(x, std::vector<double>{2, 1, 3, 6, 4}) == doctest::Approx(1 - 6.0 * 4 / 120));
  // Ranks 1.5, 1.5, 3 against 1, 2, 3: 1.5 / √(1.5 · 2).
  CHECK(spearman(std::vector<double>{7, 7, 9}, std::vector<double>{1, 2, 3}) ==
        doctest::Approx(1.5 / std::sqrt(3.0)));
  CHECK(spearman(x, std::vector<double>(5, 1.0)) == 0);
  CHECK_THROWS_AS(spearman(x, std::vector<double>{1, 2}), Error);
  CHECK_THROWS_AS(spearman(std::vector<double>{1, std::nan("")}, std::vector<double>{1, 2}), Error);
}

TEST_CASE("the bootstrap interval holds the correlation of the population about as often as it says") {
  // Of two normals with correlation ½ Spearman's is 6/π · asin(¼).
  const double truth = 6 / 3.14159265358979 * std::asin(0.25);
  int covered = 0;
  constexpr int kRuns = 200, kPairs = 60;
  for (std::uint64_t run = 0; run < kRuns; ++run) {
    Random random(3, run);
    std::vector<double> x, y;
    for (int i = 0; i < kPairs; ++i) {
      x.push_back(random.normal());
      y.push_back(x.back() / 2 + std::sqrt(0.75) * random.normal());
    }
    const RankCorrelation found = bootstrap_spearman(x, y, 200, 0.9, run);
    CHECK(found.low <= found.high);
    CHECK(found.value == spearman(x, y));
    covered += found.low <= truth && truth <= found.high;
  }
  CHECK(covered > 0.8 * kRuns);
  CHECK(covered < 0.97 * kRuns);
}

TEST_CASE("what the same pairs say tells two rankings apart before their own intervals do") {
  std::vector<double> truth, near, nearer;
  Random random(7, 0);
  for (int i = 0; i < 100; ++i) {
    truth.push_back(random.normal());
    near.push_back(truth.back() + random.normal());
    nearer.push_back(near.back() + truth.back() / 2);
  }
  const RankCorrelation a = bootstrap_spearman(nearer, truth), b = bootstrap_spearman(near, truth);
  CHECK(a.low < b.high);
  const RankCorrelation better = bootstrap_spearman_difference(nearer, near, truth);
  CHECK(better.value == doctest::Approx(a.value - b.value));
  CHECK(better.low > 0);
  CHECK(better.low < better.value);
  CHECK(better.value < better.high);
  // The same streams the other way round, and a ranking against itself.
  CHECK(bootstrap_spearman_difference(near, nearer, truth).value == -better.value);
  const RankCorrelation none = bootstrap_spearman_difference(near, near, truth);
  CHECK(none.low == 0);
  CHECK(none.high == 0);
  CHECK_THROWS_AS(bootstrap_spearman_difference(near, std::vector<double>{1, 2}, truth), Error);
}
