// The exact multiple-choice knapsack over all assignments, divided where it is hard. Internal to the solver.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "quant/lagrangian.hpp"

namespace goshawk::detail {

/// Partial solutions that are looked at before something else is done.
struct SearchEffort {
  std::size_t easy = 10000;                 ///< in a part, before it is divided
  std::size_t ties = std::size_t{1} << 20;  ///< in all, where only the smallest of equal costs is looked for
  std::size_t in_all = std::size_t{1} << 25;  ///< before the search is given up
};

/// The option of each item in the cheapest assignment within the budget, of equal costs the smallest; nothing
/// when none fits. Parts of the problem, at first all of it, are searched by search_core a little above their
/// bounds, that with the lowest level first, until none can have anything cheaper than was found. Where one
/// takes more than effort.easy partial solutions, and a quarter of what all others took, it is divided by the
/// options of one item, if their bounds are so much higher that this promises less work. Sizes without a
/// budget do not count; where the others or costs are multiples of some unit, budgets and bounds are, too.
/// Throws TooManyPartialSolutions after effort.in_all. Of an optimum that is known after
/// effort.ties it may not be known whether another one of its cost is smaller.
std::optional<std::vector<int>> cheapest_choice(const Items& items, const Sizes& budget,
                                                const SearchEffort& effort = {});

}  // namespace goshawk::detail
