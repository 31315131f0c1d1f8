// The assignment that a search for knapsack solutions departs from. Internal to the solver.
#pragma once

#include <vector>

#include "quant/lagrangian.hpp"

namespace goshawk::detail {

/// Costs and priced sizes of an item's options.
std::vector<double> priced_costs(const std::vector<KnapsackOption>& item, const Sizes& price);

/// The option of each item that is the cheapest at the prices. Where there are several, up to `tie`, they are
/// chosen such that it is not far to a solution: together they use about what the budgets have, and the items
/// whose sizes differ least, which can fill what is left, are in the middle of their sizes. (With costs in
/// proportion to sizes all options are as cheap, and the smallest ones would leave most of the budget.)
std::vector<int> cheapest_near_budget(const Items& items, const Sizes& price, const Sizes& budget,
                                      double tie);

}  // namespace goshawk::detail
