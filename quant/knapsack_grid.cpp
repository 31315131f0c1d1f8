#include "quant/knapsack_grid.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace goshawk::detail {

double Grid::up(double value, double rounding) const {
  if (unit == 0 || !std::isfinite(value)) return value;
  return origin + std::ceil((value - rounding - origin) / unit) * unit;
}

double Grid::down(double value, double rounding) const {
  if (unit == 0 || !std::isfinite(value)) return value;
  return origin + std::floor((value + rounding - origin) / unit) * unit;
}

Grid sums_grid(const std::vector<std::vector<double>>& sets, double rounding) {
  static constexpr double kRoundings = 8;
  Grid grid;
  for (const auto& set : sets) {
    grid.origin += *std::min_element(set.begin(), set.end());  // of sizes no more than a budget that they fit
    for (double value : set) {
      // Euclid's algorithm; fmod is exact.
      double rest = std::abs(value - set.front());
      while (rest > kRoundings * rounding) grid.unit = std::exchange(rest, std::fmod(grid.unit, rest));
      if (rest != 0) return {};
    }
  }
  return grid;
}

Grid costs_grid(const Items& items, double rounding) {
  std::vector<std::vector<double>> costs(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (const KnapsackOption& option : items[i]) costs[i].push_back(option.cost);
  }
  return sums_grid(costs, rounding);
}

}  // namespace goshawk::detail
