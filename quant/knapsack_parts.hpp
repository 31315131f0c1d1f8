// The exact multiple-choice knapsack over all assignments, divided where it is hard. Internal to the solver.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "quant/lagrangian.hpp"

namespace goshawk::detail {

/// Partial solutions that a part is worth before it is divided.
inline constexpr std::size_t kEasyPart = 10000;

/// The option of each item in the cheapest assignment within the budget, of equal costs the smallest; nothing
/// when none fits. Parts of the problem, at first all of it, are searched by search_core a little above their
/// bounds, that with the lowest level first, until none can have anything cheaper than was found. One that
/// takes more than `easy` partial solutions, and a quarter of what all others took, is divided by the options
/// of one item. Throws TooManyPartialSolutions after thirty million. Of an optimum that is known after a
/// million it may not be known whether another one of its cost is smaller.
std::optional<std::vector<int>> cheapest_choice(const Items& items, const Sizes& budget,
                                                std::size_t easy = kEasyPart);

}  // namespace goshawk::detail
