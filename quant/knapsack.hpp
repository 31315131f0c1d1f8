// The multiple-choice knapsack: one option for each item, least total cost under one or two budgets.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "core/error.hpp"

namespace goshawk {

/// How many budgets can hold at once.
inline constexpr std::size_t kBudgets = 2;
/// An amount for each budget, such as {bytes, BOPs}; that of an unused budget is zero.
using Sizes = std::array<double, kBudgets>;
inline constexpr double kNoBudget = std::numeric_limits<double>::infinity();

/// Sums of sizes are compared with a budget up to this share of it, the rounding of a sum of doubles.
inline constexpr double kBudgetRounding = 1e-12;

/// What solve_knapsack throws when it cannot tell the optimum within the work and memory it allows itself.
class TooManyPartialSolutions : public Error {
 public:
  using Error::Error;
};

struct KnapsackOption {
  Sizes size{};     ///< ≥ 0
  double cost = 0;  ///< finite
};

/// Which assignments are allowed.
enum class Assignments : std::uint8_t {
  all,
  /// All items have equally many options, and none takes a later option than the item before it: with items
  /// by falling sensitivity and options by growing bits, HAWQ-V2's monotone assignments.
  monotone,
};

struct KnapsackSolution {
  std::vector<int> choice;  ///< the option of each item
  Sizes size{};
  double cost = 0;
};

/// True when `size` is within `budget`, up to kBudgetRounding.
bool fits(const Sizes& size, const Sizes& budget);

/// Sums of the options chosen.
KnapsackSolution knapsack_solution(const std::vector<std::vector<KnapsackOption>>& items,
                                   std::vector<int> choice);

/// argmin Σ cost subject to Σ size ≤ budget with exactly one option per item; of equal costs the smaller
/// size, that of the first budget that is not kNoBudget. Exact: below a level that rises from the Lagrangian
/// bound everything is enumerated until there is a solution, which is then optimal (the core idea of
/// Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", 1995; knapsack_core.hpp has the
/// enumeration). Where that takes much, the problem is divided by the options of the item that the bound's
/// relaxation mixes (knapsack_parts.hpp). Throws Error when nothing fits, when an item has no option, and for
/// a budget that is no number, TooManyPartialSolutions, with the bounds found so far, after thirty million
/// partial solutions (monotone: beyond four million at once). Where they are more than a million (monotone:
/// 65,536 at once), another optimum of the same cost, up to 1e-12 of all costs and priced budgets, may be
/// smaller.
KnapsackSolution solve_knapsack(const std::vector<std::vector<KnapsackOption>>& items, const Sizes& budget,
                                Assignments assignments = Assignments::all);

/// A lower bound of every solution's cost, the maximum of the Lagrangian dual: for Assignments::all this is
/// the bound of the linear programme, in which items may mix their options.
double knapsack_bound(const std::vector<std::vector<KnapsackOption>>& items, const Sizes& budget,
                      Assignments assignments = Assignments::all);

/// The assignments that no other one beats in both first size and cost, by growing size: each costs less than
/// every smaller one. All of them, so for small problems: beyond four million partial solutions at once it
/// throws TooManyPartialSolutions.
std::vector<KnapsackSolution> knapsack_frontier(const std::vector<std::vector<KnapsackOption>>& items,
                                                Assignments assignments = Assignments::all);

/// MPQCO's greedy rule (arXiv 2110.06554): options above the lower convex hull of (size, cost) are dropped,
/// every item starts at its smallest option, and the steps along the hulls are taken by falling saved cost
/// per size as long as they fit; an item whose step does not fit stays where it is. With two budgets the size
/// of an option is the sum of its shares of the room that each budget leaves above its least possible use.
/// Nothing when the start does not fit. Throws Error when an item has no option.
std::optional<KnapsackSolution> greedy_knapsack(const std::vector<std::vector<KnapsackOption>>& items,
                                                const Sizes& budget);

}  // namespace goshawk
