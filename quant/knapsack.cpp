#include "quant/knapsack.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>

#include "core/error.hpp"
#include "quant/lagrangian.hpp"

namespace goshawk {
namespace {

using detail::Items;
using detail::Relaxation;
using detail::Tails;

constexpr std::size_t kMaxLabels = std::size_t{1} << 22;
// Where labels abound, some are completed greedily now and then: what they cost is a ceiling for the others.
constexpr std::size_t kMany = 1000, kImproveEvery = 32, kCompletions = 4;

// A partial solution: what the items so far use and cost, and the last departure from the default on its way.
struct Label {
  Sizes size{};
  double cost = 0;
  int node = -1;
};

// One item that does not take its default option (all), or from which on a lower limit holds (monotone).
struct Node {
  int parent;
  int item;
  int option;
};

// Removes labels that another one beats or equals in sizes and cost.
void remove_dominated(std::vector<Label>& labels) {
  std::stable_sort(labels.begin(), labels.end(), [](const Label& a, const Label& b) {
    return a.size != b.size ? a.size < b.size : a.cost < b.cost;
  });
  std::map<double, double> least;  // second size → cost; falling costs
  std::size_t kept = 0;
  for (const Label& label : labels) {
    auto next = least.upper_bound(label.size[1]);
    if (next != least.begin() && std::prev(next)->second <= label.cost) continue;
    while (next != least.end() && next->second >= label.cost) next = least.erase(next);
    least.insert_or_assign(label.size[1], label.cost);
    labels[kept++] = label;
  }
  labels.resize(kept);
}

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

// Everything that is within `gap` of the bound, up to dominance.
class Labelling {
 public:
  /// `defaults`: the options that need no node (all).
  Labelling(const Items& items, const Sizes& budget, Assignments assignments, const Sizes& price,
            double ceiling, double rounding, std::vector<int> defaults)
      : items_(items),
        budget_(budget),
        ceiling_(ceiling),
        rounding_(rounding),
        defaults_(std::move(defaults)) {
    for (const Sizes& p : prices_around(price)) tails_.emplace_back(p, Tails(items, assignments, p));
    limits_ = tails_.front().second.limits();
  }

  /// The final labels, starting from what is `fixed`; choice() then tells how each came about.
  std::vector<Label> run(const Label& fixed) {
    const std::size_t limits = limits_;
    std::vector<std::vector<Label>> now(limits), next(limits);
    if (promising(fixed, 0, limits - 1)) now[limits - 1].push_back(fixed);
    for (std::size_t i = 0; i < items_.size(); ++i) {
      std::size_t reached = 0;
      for (std::size_t limit = 0; limit < limits; ++limit) {
        for (const Label& label : now[limit]) extend(label, i, limit, next);
      }
      for (auto& labels : next) {
        remove_dominated(labels);
        reached += labels.size();
      }
      if (reached > kMaxLabels) {
        throw TooManyPartialSolutions(fmt::format(
            "[solve_knapsack] more than {} partial solutions remain after item {} of {}; use fewer options, "
            "another budget or the greedy method",
            kMaxLabels, i + 1, items_.size()));
      }
      now.swap(next);
      // Without a ceiling the whole frontier is wanted.
      if (limits == 1 && std::isfinite(ceiling_) && i % kImproveEvery == 0 && reached > kMany) {
        lower_ceiling(now[0], i + 1);
      }
      for (auto& labels : next) labels.clear();
    }
    std::vector<Label> all;
    for (const auto& labels : now) all.insert(all.end(), labels.begin(), labels.end());
    remove_dominated(all);
    return all;
  }

  std::vector<int> choice(const Label& label) const {
    std::vector<int> choice = defaults_;
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
        if (label.size[k] + tail.least[k] > budget_[k] * (1 + kBudgetRounding)) return false;
        // What is left of a budget in the end is priced although it is not used.
        bound += price[k] * (label.size[k] - std::min(budget_[k], label.size[k] + tail.most[k]));
      }
      if (bound > ceiling_) return false;
    }
    return true;
  }

  // Completes the most promising label and a few others greedily; the cheapest result bounds the optimum.
  void lower_ceiling(const std::vector<Label>& labels, std::size_t i) {
    const Items rest(items_.begin() + static_cast<std::ptrdiff_t>(i), items_.end());
    const Sizes& price = tails_.front().first;
    const auto best = std::min_element(labels.begin(), labels.end(), [&](const Label& a, const Label& b) {
      return a.cost + detail::dot(price, a.size) < b.cost + detail::dot(price, b.size);
    });
    const auto complete = [&](const Label& label) {
      Sizes room = budget_;
      for (std::size_t k = 0; k < kBudgets; ++k) room[k] = std::max(0.0, room[k] - label.size[k]);
      if (const auto end = greedy_knapsack(rest, room)) {
        ceiling_ = std::min(ceiling_, label.cost + end->cost + rounding_);
      }
    };
    complete(*best);
    for (std::size_t k = 0; k < kCompletions; ++k)
      complete(labels[k * (labels.size() - 1) / (kCompletions - 1)]);
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
      const bool usual = monotone ? j == limit : static_cast<int>(j) == defaults_[i];
      if (!usual) {
        more.node = static_cast<int>(nodes_.size());
        nodes_.push_back({label.node, static_cast<int>(i), static_cast<int>(j)});
      }
      next[new_limit].push_back(more);
    }
  }

  const Items& items_;
  Sizes budget_;
  double ceiling_, rounding_;
  std::vector<int> defaults_;
  std::vector<std::pair<Sizes, Tails>> tails_;  // for several prices: each gives a bound
  std::size_t limits_ = 1;
  std::vector<Node> nodes_;
};

void check_items(const Items& items, Assignments assignments) {
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

// The items with options that can still be in a solution below the ceiling, and what the others come to.
struct Reduced {
  Items items;
  std::vector<std::size_t> origin;        // of each item
  std::vector<std::vector<int>> options;  // original numbers
  std::vector<int> defaults;              // cheapest at the prices, among `items`' options
  std::vector<int> choice;                // of the fixed items
  Label fixed;
};

// An option that costs `gap` more than its item's best at the prices lifts the bound by as much. Items whose
// options differ most in size come first: the later ones can then fill only little, and labels that leave
// more than that unused are soon too expensive.
Reduced reduce(const Items& items, const Sizes& price, double gap) {
  Reduced reduced;
  reduced.choice.resize(items.size());
  struct Open {
    std::size_t item;
    std::vector<int> options;
    int best;  // position in options
    double spread;
  };
  std::vector<Open> open;
  for (std::size_t i = 0; i < items.size(); ++i) {
    std::vector<double> cost;
    for (const KnapsackOption& option : items[i])
      cost.push_back(option.cost + detail::dot(price, option.size));
    const auto best = static_cast<std::size_t>(std::min_element(cost.begin(), cost.end()) - cost.begin());
    Open entry{.item = i, .options = {}, .best = 0, .spread = 0};
    for (std::size_t j = 0; j < cost.size(); ++j) {
      if (cost[j] - cost[best] > gap) continue;
      if (j == best) entry.best = static_cast<int>(entry.options.size());
      entry.options.push_back(static_cast<int>(j));
      const Sizes &own = items[i][j].size, &usual = items[i][best].size;
      double apart = 0;
      for (std::size_t k = 0; k < kBudgets; ++k) apart += price[k] * std::abs(own[k] - usual[k]);
      entry.spread = std::max(entry.spread, apart);
    }
    if (entry.options.size() > 1) {
      open.push_back(std::move(entry));
      continue;
    }
    reduced.choice[i] = static_cast<int>(best);
    reduced.fixed.cost += items[i][best].cost;
    for (std::size_t k = 0; k < kBudgets; ++k) reduced.fixed.size[k] += items[i][best].size[k];
  }
  std::stable_sort(open.begin(), open.end(),
                   [](const Open& a, const Open& b) { return a.spread > b.spread; });
  for (Open& entry : open) {
    reduced.origin.push_back(entry.item);
    reduced.defaults.push_back(entry.best);
    auto& options = reduced.items.emplace_back();
    for (int j : entry.options) options.push_back(items[entry.item][static_cast<std::size_t>(j)]);
    reduced.options.push_back(std::move(entry.options));
  }
  return reduced;
}

// The cheapest label's choice, of equal costs the smallest; none when no label came through.
std::optional<std::vector<int>> cheapest_within(const Items& items, const Sizes& budget,
                                                Assignments assignments, const Sizes& price, double ceiling,
                                                double gap, double rounding) {
  const auto best_of = [](const std::vector<Label>& labels) {
    return std::min_element(labels.begin(), labels.end(), [](const Label& a, const Label& b) {
      return a.cost != b.cost ? a.cost < b.cost : a.size < b.size;
    });
  };
  if (assignments == Assignments::monotone) {
    Labelling labelling(items, budget, assignments, price, ceiling, rounding,
                        std::vector<int>(items.size(), 0));
    const std::vector<Label> labels = labelling.run({});
    if (labels.empty()) return std::nullopt;
    return labelling.choice(*best_of(labels));
  }
  const Reduced reduced = reduce(items, price, gap);
  Labelling labelling(reduced.items, budget, assignments, price, ceiling, rounding, reduced.defaults);
  const std::vector<Label> labels = labelling.run(reduced.fixed);
  if (labels.empty()) return std::nullopt;
  std::vector<int> choice = reduced.choice;
  const std::vector<int> open = labelling.choice(*best_of(labels));
  for (std::size_t i = 0; i < open.size(); ++i) {
    choice[reduced.origin[i]] = reduced.options[i][static_cast<std::size_t>(open[i])];
  }
  return choice;
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
  check_items(items, assignments);
  // The most that any assignment costs, the range of costs, and the scale of rounding errors in their sums.
  double highest = 0, range = 0, magnitude = 0;
  for (const auto& item : items) {
    const auto [low, high] =
        std::minmax_element(item.begin(), item.end(),
                            [](const KnapsackOption& a, const KnapsackOption& b) { return a.cost < b.cost; });
    highest += high->cost;
    range += high->cost - low->cost;
    magnitude += std::max(std::abs(low->cost), std::abs(high->cost));
  }
  const Relaxation relaxation = detail::best_prices(items, budget, assignments);
  double priced = magnitude;
  for (std::size_t k = 0; k < kBudgets; ++k) {
    if (budget[k] != kNoBudget) priced += relaxation.price[k] * budget[k];
  }
  const double rounding = 1e-12 * priced;
  const double everything = highest - relaxation.bound + rounding;
  for (double gap = 1e-13 * range; everything >= 0; gap *= 2) {
    const bool last = gap >= everything;
    const double ceiling = relaxation.bound + std::min(gap, everything) + rounding;
    if (auto choice = cheapest_within(items, budget, assignments, relaxation.price, ceiling,
                                      std::min(gap, everything) + 2 * rounding, rounding)) {
      return knapsack_solution(items, *std::move(choice));
    }
    if (last) break;
    if (range == 0) gap = everything;
  }
  fail("[solve_knapsack] no choice of options fits the budgets {:.10g} and {:.10g}; raise them", budget[0],
       budget[1]);
}

double knapsack_bound(const Items& items, const Sizes& budget, Assignments assignments) {
  check_items(items, assignments);
  return detail::best_prices(items, budget, assignments).bound;
}

std::vector<KnapsackSolution> knapsack_frontier(const Items& items, Assignments assignments) {
  check_items(items, assignments);
  Items first_size = items;
  for (auto& item : first_size) {
    for (KnapsackOption& option : item) option.size[1] = 0;
  }
  Labelling labelling(first_size, {kNoBudget, kNoBudget}, assignments, {}, kNoBudget, 0,
                      std::vector<int>(items.size(), 0));
  std::vector<KnapsackSolution> frontier;
  for (const Label& label : labelling.run({})) {
    frontier.push_back(knapsack_solution(items, labelling.choice(label)));
  }
  return frontier;
}

}  // namespace goshawk
