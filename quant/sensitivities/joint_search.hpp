// Assignments of low joint cost under a budget: local search from separable optima.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/knapsack.hpp"
#include "quant/sensitivities/pairwise_cost.hpp"

namespace goshawk {

struct JointSearchOptions {
  /// Perturbed restarts: a few items of the best assignment get random options, those that do not fit are
  /// narrowed, and the descent begins anew. Each draws from the random stream (seed, its number).
  int restarts = 200;
  /// Assignments that are looked at, at most: a fraction of a second. The 200 restarts of networks of up to
  /// some seventy layers of eight widths stay below; with more the search ends with fewer of them.
  std::int64_t evaluations = 100'000'000;
  std::uint64_t seed = 0;
};

struct JointSolution {
  std::vector<int> choice;
  Sizes size{};
  double cost = 0;
  double separable_cost = 0;  ///< joint cost of the best start
  int moves = 0;              ///< improvements in all descents, of one change or of one pair for each item
  int starts = 0;             ///< descents: separable optima and restarts
};

/// Starts from the optimum of the own costs, of `others` (one separable cost per option each, such as other
/// sensitivities) and from the smallest assignment; improves each by single changes, the best first, and by
/// pairs of changes, for each item the best, that fit the budget until none lowers the cost, then perturbs
/// the best. No proof of optimality (the problem is a quadratic multiple-choice knapsack, which is NP-hard);
/// docs/sensitivity.md has how often it meets the optimum where that can be enumerated. sizes[i][b]: of item
/// i at option b. Throws Error when nothing fits, and for sizes that do not belong to the cost.
JointSolution minimize_joint_cost(const PairwiseCost& cost, const std::vector<std::vector<Sizes>>& sizes,
                                  const Sizes& budget,
                                  const std::vector<std::vector<std::vector<double>>>& others = {},
                                  const JointSearchOptions& options = {});

}  // namespace goshawk
