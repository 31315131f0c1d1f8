// The exact multiple-choice knapsack near its Lagrangian bound, searched from both ends. Internal to the
// solver.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "quant/lagrangian.hpp"

namespace goshawk::detail {

struct CoreSearch {
  /// The option of each item, if any assignment costs so little; of an incomplete search a good one, if any.
  std::optional<std::vector<int>> choice;
  std::size_t labels = 0;  ///< partial solutions that were looked at
  bool complete = true;    ///< false when it gave up: there may be such an assignment, or a better one
  double least_gap = 0;    ///< no assignment costs less than relaxation.bound + this
  /// Of the undecided items that the relaxation mixes options of, the one whose two differ most in size.
  std::size_t widest = 0;
};

/// The cheapest assignment within the budget that costs at most relaxation.bound + gap, of equal costs the
/// smallest. `rounding`: the error of sums of costs. An option that lifts the relaxation by more than the gap
/// cannot be in it; where one option is left of an item, it is decided, and the others are the core (Balas
/// and Zemel, 1980; Pisinger 1995). Partial solutions of the core are enumerated from both ends, always on
/// the side that has fewer, and joined where they meet: each side then has about the root of what one would
/// end with (Horowitz and Sahni, 1974). Dropped are those that another one beats in all sizes and in cost,
/// and those that the relaxation of what is left, at any of many prices, puts above the gap. Under one
/// budget, where many partial solutions are as large as others, dominance is found while they are enumerated
/// (the dynamic programme with lists). Gives up beyond `max_labels` partial solutions at both ends together,
/// and then joins what it has.
CoreSearch search_core(const Items& items, const Sizes& budget, const Relaxation& relaxation, double gap,
                       double rounding, std::size_t max_labels);

}  // namespace goshawk::detail
