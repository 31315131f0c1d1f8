#include "quant/lagrangian.hpp"

#include <algorithm>
#include <cmath>

namespace goshawk::detail {
namespace {

// Prices beyond this only serve to show that nothing fits.
constexpr double kHighestPrice = 1e150, kLowestPrice = 1e-150;
constexpr int kSteps = 100;
constexpr double kRounding = 1e-15;

class Search {
 public:
  Search(const Items& items, const Sizes& budget, Assignments assignments)
      : items_(items), budget_(budget), assignments_(assignments) {
    // As fits() does: the least sizes there are may add up to a budget but for rounding, and no price would
    // bring the relaxation below them.
    for (double& limit : budget_) limit += kBudgetRounding * std::abs(limit);
    double costs = 0;
    Sizes sizes{};
    for (const auto& item : items) {
      for (const KnapsackOption& option : item) {
        costs += std::abs(option.cost);
        for (std::size_t k = 0; k < kBudgets; ++k) sizes[k] += option.size[k];
      }
    }
    for (std::size_t k = 0; k < kBudgets; ++k) {
      guess_[k] = std::clamp(costs / std::max(sizes[k], 1e-300), 1e-100, 1e100);
    }
  }

  // Maximises over the prices of the budgets from k on; the others are as in `price`.
  Relaxation maximise(std::size_t k, Sizes price) {
    if (k == kBudgets) return relax(price);
    const auto at = [&](double value) {
      price[k] = value;
      return maximise(k + 1, price);
    };
    const auto within = [&](const Relaxation& r) { return r.used[k] <= budget_[k]; };
    Relaxation low = at(0);
    if (budget_[k] == kNoBudget || within(low)) return low;
    double low_price = 0, high_price = guess_[k];
    Relaxation high = at(high_price);
    while (!within(high)) {
      if (high_price > kHighestPrice) return high;
      low = high;
      low_price = high_price;
      high_price *= 4;
      high = at(high_price);
    }
    while (low_price == 0 && high_price > kLowestPrice) {
      const double lower = high_price / 4;
      const Relaxation r = at(lower);
      if (within(r)) {
        high = r;
        high_price = lower;
      } else {
        low = r;
        low_price = lower;
      }
    }
    // Concave and piecewise linear: the lines through both ends meet above the maximum, and where they meet
    // lies a corner that neither end has seen, or the maximum. Every third step halves, so that one far end
    // cannot stay.
    for (int i = 0; i < kSteps && low.used[k] != high.used[k]; ++i) {
      const double rise = low.used[k] - budget_[k], fall = budget_[k] - high.used[k];
      double at_price = 0.5 * (low_price + high_price);
      if (i % 3 != 2) {
        const double meet = (high.bound - low.bound + low_price * rise + high_price * fall) / (rise + fall);
        if (meet > low_price && meet < high_price) at_price = meet;
      }
      if (!(at_price > low_price && at_price < high_price)) break;
      const Relaxation r = at(at_price);
      const double lines =
          std::min(low.bound + rise * (at_price - low_price), high.bound + fall * (high_price - at_price));
      (within(r) ? high : low) = r;
      (within(r) ? high_price : low_price) = at_price;
      if (i % 3 != 2 && r.bound >= lines - kRounding * std::abs(lines)) break;
    }
    guess_[k] = high_price;
    // At the optimum both ends are minima, and so is the mixture that uses the budget exactly.
    Relaxation best = low.bound > high.bound ? low : high;
    const double share = (budget_[k] - high.used[k]) / (low.used[k] - high.used[k]);
    for (std::size_t j = 0; j < kBudgets; ++j) {
      best.used[j] = share * low.used[j] + (1 - share) * high.used[j];
    }
    best.used[k] = budget_[k];
    return best;
  }

 private:
  Relaxation relax(const Sizes& price) const {
    Relaxation r{.price = price};
    if (assignments_ == Assignments::all) {
      for (const auto& item : items_) {
        const KnapsackOption* best = &item.front();
        double least = best->cost + dot(price, best->size);
        for (const KnapsackOption& option : item) {
          const double reduced = option.cost + dot(price, option.size);
          if (reduced < least) {
            best = &option;
            least = reduced;
          }
        }
        r.bound += least;
        for (std::size_t k = 0; k < kBudgets; ++k) r.used[k] += best->size[k];
      }
    } else if (!items_.empty()) {
      const Tails tails(items_, assignments_, price);
      const Tails::Tail& whole = tails.at(0, tails.limits() - 1);
      r.bound = whole.reduced;
      r.used = whole.used;
    }
    for (std::size_t k = 0; k < kBudgets; ++k) {
      if (budget_[k] != kNoBudget) r.bound -= price[k] * budget_[k];
    }
    return r;
  }

  const Items& items_;
  Sizes budget_;
  Assignments assignments_;
  Sizes guess_{};
};

}  // namespace

double dot(const Sizes& price, const Sizes& size) {
  double sum = 0;
  for (std::size_t k = 0; k < kBudgets; ++k) sum += price[k] * size[k];
  return sum;
}

Tails::Tails(const Items& items, Assignments assignments, const Sizes& price)
    : limits_(assignments == Assignments::all || items.empty() ? 1 : items.front().size()),
      tails_((items.size() + 1) * limits_) {
  for (std::size_t i = items.size(); i-- > 0;) {
    Tail best;
    for (std::size_t j = 0; j < items[i].size(); ++j) {
      const KnapsackOption& option = items[i][j];
      const Tail& next = tails_[(i + 1) * limits_ + (limits_ == 1 ? 0 : j)];
      Tail own = next;
      own.reduced += option.cost + dot(price, option.size);
      for (std::size_t k = 0; k < kBudgets; ++k) {
        own.used[k] += option.size[k];
        own.least[k] += option.size[k];
        own.most[k] += option.size[k];
      }
      if (j == 0) {
        best = own;
      } else {
        if (own.reduced < best.reduced) {
          best.reduced = own.reduced;
          best.used = own.used;
        }
        for (std::size_t k = 0; k < kBudgets; ++k) {
          best.least[k] = std::min(best.least[k], own.least[k]);
          best.most[k] = std::max(best.most[k], own.most[k]);
        }
      }
      if (limits_ > 1) tails_[i * limits_ + j] = best;
    }
    if (limits_ == 1) tails_[i] = best;
  }
}

Relaxation best_prices(const Items& items, const Sizes& budget, Assignments assignments) {
  return Search(items, budget, assignments).maximise(0, Sizes{});
}

CostScale cost_scale(const Items& items, const Sizes& budget, const Relaxation& relaxation) {
  static constexpr double kLeastGap = 1e-300;
  CostScale scale;
  double range = 0, magnitude = 0;
  for (const auto& item : items) {
    const auto [low, high] =
        std::minmax_element(item.begin(), item.end(),
                            [](const KnapsackOption& a, const KnapsackOption& b) { return a.cost < b.cost; });
    scale.highest += high->cost;
    range += high->cost - low->cost;
    magnitude += std::max(std::abs(low->cost), std::abs(high->cost));
  }
  for (std::size_t k = 0; k < kBudgets; ++k) {
    if (budget[k] != kNoBudget) magnitude += relaxation.price[k] * budget[k];
  }
  scale.rounding = std::max(1e-12 * magnitude, kLeastGap);  // the least for costs that are all zero
  const double everything = scale.highest - relaxation.bound + scale.rounding;
  scale.first_gap = std::max(range > 0 ? 1e-13 * range : 0.5 * everything, kLeastGap);
  return scale;
}

}  // namespace goshawk::detail
