// The multiple-choice knapsack: one option for each item, least total cost under a budget. Exact.
#pragma once

#include <cstdint>
#include <vector>

namespace goshawk {

struct KnapsackOption {
  std::int64_t size = 0;  ///< ≥ 0
  double cost = 0;        ///< finite
};

struct KnapsackSolution {
  std::vector<int> choice;  ///< the option of each item
  std::int64_t size = 0;
  double cost = 0;
};

/// argmin Σ cost subject to Σ size ≤ budget with exactly one option per item; of equal costs the smaller
/// size. Dynamic programming over non-dominated partial solutions, pruned by the linear-programming bound of
/// what remains (Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", 1995). Throws
/// Error naming the smallest possible size when nothing fits, and when an item has no option.
KnapsackSolution solve_knapsack(const std::vector<std::vector<KnapsackOption>>& items, std::int64_t budget);

}  // namespace goshawk
