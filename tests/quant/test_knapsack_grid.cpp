#include <doctest/doctest.h>
#include <iterator>
#include <set>
#include <vector>

#include "core/random.hpp"
#include "quant/knapsack_grid.hpp"

using namespace goshawk;
using detail::Grid;
using detail::sums_grid;

namespace {

std::set<double> all_sums(const std::vector<std::vector<double>>& sets) {
  std::set<double> sums = {0};
  for (const auto& set : sets) {
    std::set<double> more;
    for (double sum : sums) {
      for (double value : set) more.insert(sum + value);
    }
    sums.swap(more);
  }
  return sums;
}

}  // namespace

TEST_CASE("between the points of a grid there are no sums") {
  Random random(5);
  int coarse = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const double unit = 0.25 * static_cast<double>(1 + random.below(6));
    std::vector<std::vector<double>> sets(1 + random.below(4));
    for (auto& set : sets) {
      const double offset = random.uniform() < 0.5 ? 0.125 : -3;
      set.resize(1 + random.below(4));
      for (double& value : set) value = offset + unit * static_cast<double>(random.below(10));
    }
    const Grid grid = sums_grid(sets, 1e-12);
    const std::set<double> sums = all_sums(sets);
    for (double sum : sums) {
      CHECK(grid.up(sum, 1e-12) == sum);
      CHECK(grid.down(sum, 1e-12) == sum);
    }
    if (sums.size() == 1) continue;
    CHECK(grid.unit >= unit);
    coarse += grid.unit > unit ? 1 : 0;
    for (int n = 0; n < 20; ++n) {
      const double value = *sums.begin() + random.uniform() * (*sums.rbegin() - *sums.begin());
      CHECK(*sums.lower_bound(value) >= grid.up(value, 0));
      CHECK(*std::prev(sums.upper_bound(value)) <= grid.down(value, 0));
      CHECK(grid.up(value, 0) - grid.down(value, 0) <= grid.unit);
    }
  }
  CHECK(coarse > 10);
}

TEST_CASE("numbers that share no unit, or one within rounding, have no grid") {
  CHECK(sums_grid({{0, 1, 1.41421356237309505}}, 1e-12).unit == 0);
  CHECK(sums_grid({{0.1, 0.2, 0.3}}, 1e-12).unit == 0);  // as doubles they only share a very small one
  CHECK(sums_grid({{0, 1e-12}}, 1e-12).unit == 0);
  CHECK(sums_grid({{7}, {8}}, 1e-12).unit == 0);
  CHECK(sums_grid({}, 1e-12).unit == 0);
  CHECK(sums_grid({{0, 6}, {1, 10}}, 1e-12).unit == 3);
  CHECK(Grid{}.up(0.3, 1) == 0.3);
  // A value that is a point but for rounding is that point.
  CHECK(Grid{.origin = 0, .unit = 1}.up(3 + 1e-9, 1e-8) == 3);
  CHECK(Grid{.origin = 0, .unit = 1}.down(3 - 1e-9, 1e-8) == 3);
}
