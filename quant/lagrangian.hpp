// The Lagrangian relaxation of the multiple-choice knapsack: budgets become prices. Internal to the solver.
#pragma once

#include <vector>

#include "quant/knapsack.hpp"

namespace goshawk::detail {

using Items = std::vector<std::vector<KnapsackOption>>;

double dot(const Sizes& price, const Sizes& size);

/// The minimum of Σ (cost + price · size) − price · budget: below every solution's cost, for any price ≥ 0.
struct Relaxation {
  Sizes price{};
  double bound = 0;
  Sizes used{};  ///< Σ size at the minimum: the bound's derivative by the price is used − budget
};

/// Least sums over the items from i on, for one that may not go beyond option `limit` (monotone), at fixed
/// prices. With Assignments::all there is one limit, 0, which limits nothing.
class Tails {
 public:
  Tails(const Items& items, Assignments assignments, const Sizes& price);

  struct Tail {
    double reduced = 0;     ///< least Σ (cost + price · size)
    Sizes used{};           ///< Σ size where that is
    Sizes least{}, most{};  ///< of Σ size over all assignments
  };
  const Tail& at(std::size_t item, std::size_t limit) const { return tails_[item * limits_ + limit]; }
  std::size_t limits() const { return limits_; }

 private:
  std::size_t limits_;
  std::vector<Tail> tails_;  // [items + 1, limits]
};

/// The price of the highest bound, along the tangents of one price after the other. The bound of a problem
/// that fits in no mixture of options grows without limit and ends above every assignment's cost.
Relaxation best_prices(const Items& items, const Sizes& budget, Assignments assignments);

/// What costs can come to.
struct CostScale {
  double highest = 0;    ///< no assignment costs more
  double rounding = 0;   ///< the error of sums of costs and priced sizes
  double first_gap = 0;  ///< above the bound, to begin a search with: far below any difference that matters
};
CostScale cost_scale(const Items& items, const Sizes& budget, const Relaxation& relaxation);

}  // namespace goshawk::detail
