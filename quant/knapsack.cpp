#include "quant/knapsack.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/error.hpp"
#include "quant/knapsack_grid.hpp"
#include "quant/knapsack_labels.hpp"
#include "quant/knapsack_parts.hpp"
#include "quant/lagrangian.hpp"

namespace goshawk {
namespace {

using detail::Items;
using detail::Relaxation;
using detail::remove_dominated;
using detail::Tails;

// Partial solutions that are not worth a search for those that others beat.
constexpr std::size_t kFew = 64;
// More than this at once are too many.
constexpr std::size_t kMaxLabels = std::size_t{1} << 22;
// So many mostly lead to a solution where there are a great many.
constexpr std::size_t kEnough[] = {std::size_t{1} << 14, std::size_t{1} << 16};

// A partial solution: what the items so far use and cost, and the last departure from the default on its way.
struct Label {
  Sizes size{};
  double cost = 0;
  int node = -1;
};

// One item that does not take its first option (all), or from which on a lower limit holds (monotone).
struct Node {
  int parent;
  int item;
  int option;
};

// The best prices are the best for the whole problem; for what is left after some items others may be, where
// room is scarcer or more plentiful.
std::vector<Sizes> prices_around(const Sizes& price) {
  std::vector<Sizes> prices = {price};
  const int used =
      static_cast<int>(std::count_if(price.begin(), price.end(), [](double p) { return p > 0; }));
  const std::vector<double> factors =
      used == 1 ? std::vector{0.0, 0.25, 0.5, 0.7, 1.4, 2.0, 4.0} : std::vector{0.0, 0.5, 2.0};
  for (std::size_t k = 0; k < kBudgets; ++k) {
    if (price[k] == 0) continue;
    const std::vector<Sizes> others = prices;
    for (const Sizes& other : others) {
      for (double factor : factors) {
        prices.push_back(other);
        prices.back()[k] *= factor;
      }
    }
  }
  return prices;
}

// Everything that costs no more than the ceiling, up to dominance; with `at_most` so many labels after an
// item, evenly spread over all, so that some solutions remain.
class Labelling {
 public:
  Labelling(const Items& items, const Sizes& budget, Assignments assignments, const Sizes& price,
            double ceiling, std::optional<std::size_t> at_most = std::nullopt)
      : items_(items), budget_(budget), ceiling_(ceiling), at_most_(at_most) {
    for (const Sizes& p : prices_around(price)) tails_.emplace_back(p, Tails(items, assignments, p));
    limits_ = tails_.front().second.limits();
  }

  /// The final labels; choice() then tells how each came about.
  std::vector<Label> run() {
    const std::size_t limits = limits_;
    std::vector<std::vector<Label>> now(limits), next(limits);
    std::vector<std::size_t> cleaned(limits, 0);
    if (promising({}, 0, limits - 1)) now[limits - 1].push_back({});
    for (std::size_t i = 0; i < items_.size(); ++i) {
      std::size_t reached = 0;
      for (std::size_t limit = 0; limit < limits; ++limit) {
        for (const Label& label : now[limit]) extend(label, i, limit, next);
      }
      for (std::size_t limit = 0; limit < limits; ++limit) {
        // Sorting all for few new ones would take most of the time.
        if (next[limit].size() > cleaned[limit] + cleaned[limit] / 4 + kFew) {
          remove_dominated(next[limit]);
          cleaned[limit] = next[limit].size();
        }
        reached += next[limit].size();
      }
      if (at_most_ && reached > *at_most_) {
        thin(next, reached);
      } else if (reached > kMaxLabels) {
        throw TooManyPartialSolutions(fmt::format(
            "[solve_knapsack] more than {} partial solutions remain after item {} of {}; use fewer options, "
            "another budget or the greedy method",
            kMaxLabels, i + 1, items_.size()));
      }
      now.swap(next);
      for (auto& labels : next) labels.clear();
    }
    std::vector<Label> all;
    for (const auto& labels : now) all.insert(all.end(), labels.begin(), labels.end());
    remove_dominated(all);
    return all;
  }

  std::vector<int> choice(const Label& label) const {
    std::vector<int> choice(items_.size(), 0);
    if (limits_ == 1) {
      for (int n = label.node; n >= 0; n = node(n).parent) {
        choice[static_cast<std::size_t>(node(n).item)] = node(n).option;
      }
      return choice;
    }
    auto end = items_.size();
    for (int n = label.node; n >= 0; n = node(n).parent) {
      const auto from = static_cast<std::size_t>(node(n).item);
      for (std::size_t i = from; i < end; ++i) choice[i] = node(n).option;
      end = from;
    }
    for (std::size_t i = 0; i < end; ++i) choice[i] = static_cast<int>(limits_) - 1;
    return choice;
  }

 private:
  const Node& node(int n) const { return nodes_[static_cast<std::size_t>(n)]; }

  // Whether items from i on can complete the label within the budgets and below the ceiling.
  bool promising(const Label& label, std::size_t i, std::size_t limit) const {
    for (const auto& [price, tails] : tails_) {
      const Tails::Tail& tail = tails.at(i, limit);
      double bound = label.cost + tail.reduced;
      for (std::size_t k = 0; k < kBudgets; ++k) {
        const double room = budget_[k] * (1 + kBudgetRounding);
        if (label.size[k] + tail.least[k] > room) return false;
        // What is left of a budget in the end is priced although it is not used.
        bound += price[k] * (label.size[k] - std::min(room, label.size[k] + tail.most[k]));
      }
      if (bound > ceiling_) return false;
    }
    return true;
  }

  void thin(std::vector<std::vector<Label>>& all, std::size_t reached) {
    const std::size_t step = reached / *at_most_ + 1;
    for (auto& labels : all) {
      std::size_t kept = 0;
      for (std::size_t n = 0; n < labels.size(); n += step) labels[kept++] = labels[n];
      labels.resize(kept);
    }
  }

  void extend(const Label& label, std::size_t i, std::size_t limit, std::vector<std::vector<Label>>& next) {
    const bool monotone = limits_ > 1;
    const std::size_t options = monotone ? limit + 1 : items_[i].size();
    for (std::size_t j = 0; j < options; ++j) {
      const KnapsackOption& option = items_[i][j];
      Label more = label;
      more.cost += option.cost;
      for (std::size_t k = 0; k < kBudgets; ++k) more.size[k] += option.size[k];
      const std::size_t new_limit = monotone ? j : 0;
      if (!promising(more, i + 1, new_limit)) continue;
      const bool usual = monotone ? j == limit : j == 0;
      if (!usual) {
        more.node = static_cast<int>(nodes_.size());
        nodes_.push_back({label.node, static_cast<int>(i), static_cast<int>(j)});
      }
      next[new_limit].push_back(more);
    }
  }

  const Items& items_;
  Sizes budget_;
  double ceiling_;
  std::vector<std::pair<Sizes, Tails>> tails_;  // for several prices: each gives a bound
  std::size_t limits_ = 1;
  std::vector<Node> nodes_;
  std::optional<std::size_t> at_most_;
};

void check_problem(const Items& items, const Sizes& budget, Assignments assignments) {
  for (double b : budget) check(!std::isnan(b), "[solve_knapsack] a budget is not a number");
  for (std::size_t i = 0; i < items.size(); ++i) {
    check(!items[i].empty(), "[solve_knapsack] item {} has no option", i);
    check(assignments == Assignments::all || items[i].size() == items[0].size(),
          "[solve_knapsack] item {} has {} options and item 0 has {}; monotone assignments need equally many",
          i, items[i].size(), items[0].size());
    for (const KnapsackOption& option : items[i]) {
      bool good = std::isfinite(option.cost);
      for (double size : option.size) good = good && size >= 0 && std::isfinite(size);
      check(good,
            "[solve_knapsack] item {} has an option of sizes {}, {} and cost {}; sizes are at least 0, "
            "and all are finite",
            i, option.size[0], option.size[1], option.cost);
    }
  }
}

// The cheapest monotone assignment, of equal costs the smallest; none when nothing fits. A ceiling rises from
// the bound until something is below it.
std::optional<std::vector<int>> cheapest_monotone(const Items& items, const Sizes& budget) {
  const Relaxation relaxation = detail::best_prices(items, budget, Assignments::monotone);
  const detail::CostScale scale = detail::cost_scale(items, budget, relaxation);
  const auto cheapest_below = [&](double cost, std::optional<std::size_t> at_most) {
    std::optional<std::vector<int>> choice;
    Labelling labelling(items, budget, Assignments::monotone, relaxation.price, cost + scale.rounding,
                        at_most);
    const std::vector<Label> labels = labelling.run();
    const auto best = std::min_element(labels.begin(), labels.end(), [](const Label& a, const Label& b) {
      return a.cost != b.cost ? a.cost < b.cost : a.size < b.size;
    });
    if (best != labels.end()) choice = labelling.choice(*best);
    return choice;
  };
  // Where a great many assignments are as cheap as any can be, a few labels lead to one.
  const double level = detail::costs_grid(items, scale.rounding).up(relaxation.bound, scale.rounding);
  for (std::size_t enough : kEnough) {
    if (auto optimum = cheapest_below(level, enough)) return optimum;
  }
  const double everything = scale.highest - relaxation.bound + scale.rounding;
  for (double gap = scale.first_gap; everything >= 0; gap *= 2) {
    if (auto choice = cheapest_below(relaxation.bound + std::min(gap, everything), std::nullopt))
      return choice;
    if (gap >= everything) break;
  }
  return std::nullopt;
}

}  // namespace

bool fits(const Sizes& size, const Sizes& budget) {
  for (std::size_t k = 0; k < kBudgets; ++k) {
    if (size[k] > budget[k] * (1 + kBudgetRounding)) return false;
  }
  return true;
}

KnapsackSolution knapsack_solution(const Items& items, std::vector<int> choice) {
  KnapsackSolution solution{.choice = std::move(choice)};
  for (std::size_t i = 0; i < items.size(); ++i) {
    const KnapsackOption& option = items[i][static_cast<std::size_t>(solution.choice[i])];
    solution.cost += option.cost;
    for (std::size_t k = 0; k < kBudgets; ++k) solution.size[k] += option.size[k];
  }
  return solution;
}

KnapsackSolution solve_knapsack(const Items& items, const Sizes& budget, Assignments assignments) {
  check_problem(items, budget, assignments);
  auto choice = assignments == Assignments::all ? detail::cheapest_choice(items, budget)
                                                : cheapest_monotone(items, budget);
  if (choice) return knapsack_solution(items, *std::move(choice));
  fail("[solve_knapsack] no choice of options fits the budgets {:.10g} and {:.10g}; raise them", budget[0],
       budget[1]);
}

double knapsack_bound(const Items& items, const Sizes& budget, Assignments assignments) {
  check_problem(items, budget, assignments);
  return detail::best_prices(items, budget, assignments).bound;
}

std::vector<KnapsackSolution> knapsack_frontier(const Items& items, Assignments assignments) {
  check_problem(items, {kNoBudget, kNoBudget}, assignments);
  Items first_size = items;
  for (auto& item : first_size) {
    for (KnapsackOption& option : item) option.size[1] = 0;
  }
  Labelling labelling(first_size, {kNoBudget, kNoBudget}, assignments, {}, kNoBudget);
  std::vector<KnapsackSolution> frontier;
  for (const Label& label : labelling.run()) {
    frontier.push_back(knapsack_solution(items, labelling.choice(label)));
  }
  return frontier;
}

}  // namespace goshawk
