#include <algorithm>

#include "core/error.hpp"
#include "quant/knapsack.hpp"

namespace goshawk {
namespace {

struct Choice {
  double size;  // of all budgets together
  double cost;
  int index;
};

// The step from one point of an item's lower convex hull to the next.
struct Increment {
  double size;
  double gain;  // cost saved, > 0
  std::size_t item;
  int option;  // that it leads to
  double efficiency() const { return gain / size; }
};

// Options that no other one beats in both size and cost, by growing size.
std::vector<Choice> undominated(std::vector<Choice> options) {
  std::stable_sort(options.begin(), options.end(), [](const Choice& a, const Choice& b) {
    return a.size != b.size ? a.size < b.size : a.cost < b.cost;
  });
  std::vector<Choice> kept;
  for (const Choice& c : options) {
    if (kept.empty() || c.cost < kept.back().cost) kept.push_back(c);
  }
  return kept;
}

std::vector<Choice> lower_hull(const std::vector<Choice>& options) {
  std::vector<Choice> hull;
  for (const Choice& c : undominated(options)) {
    while (hull.size() >= 2) {
      const Choice& a = hull[hull.size() - 2];
      const Choice& b = hull.back();
      // Keep b only below the line from a to c.
      if ((a.cost - b.cost) * (c.size - a.size) > (a.cost - c.cost) * (b.size - a.size)) break;
      hull.pop_back();
    }
    hull.push_back(c);
  }
  return hull;
}

// What one unit of each budget counts for.
Sizes weights(const std::vector<std::vector<KnapsackOption>>& items, const Sizes& budget) {
  Sizes weight{};
  for (std::size_t k = 0; k < kBudgets; ++k) {
    if (budget[k] == kNoBudget) continue;
    double least = 0;
    for (const auto& item : items) {
      double smallest = kNoBudget;
      for (const KnapsackOption& option : item) smallest = std::min(smallest, option.size[k]);
      least += smallest;
    }
    weight[k] = 1 / std::max(budget[k] - least, 1e-12 * (1 + budget[k]));
  }
  return weight;
}

}  // namespace

std::optional<KnapsackSolution> greedy_knapsack(const std::vector<std::vector<KnapsackOption>>& items,
                                                const Sizes& budget) {
  const Sizes weight = weights(items, budget);
  std::vector<int> choice;
  std::vector<Increment> increments;
  for (std::size_t i = 0; i < items.size(); ++i) {
    check(!items[i].empty(), "[greedy_knapsack] item {} has no option", i);
    std::vector<Choice> options;
    for (std::size_t j = 0; j < items[i].size(); ++j) {
      double size = 0;
      for (std::size_t k = 0; k < kBudgets; ++k) size += weight[k] * items[i][j].size[k];
      options.push_back({size, items[i][j].cost, static_cast<int>(j)});
    }
    const std::vector<Choice> hull = lower_hull(options);
    choice.push_back(hull.front().index);
    for (std::size_t h = 1; h < hull.size(); ++h) {
      increments.push_back(
          {hull[h].size - hull[h - 1].size, hull[h - 1].cost - hull[h].cost, i, hull[h].index});
    }
  }
  Sizes used = knapsack_solution(items, choice).size;
  if (!fits(used, budget)) return std::nullopt;
  std::stable_sort(increments.begin(), increments.end(),
                   [](const Increment& a, const Increment& b) { return a.efficiency() > b.efficiency(); });
  std::vector<char> closed(items.size(), 0);
  for (const Increment& step : increments) {
    if (closed[step.item]) continue;
    const auto& options = items[step.item];
    Sizes after = used;
    for (std::size_t k = 0; k < kBudgets; ++k) {
      after[k] += options[static_cast<std::size_t>(step.option)].size[k] -
                  options[static_cast<std::size_t>(choice[step.item])].size[k];
    }
    if (fits(after, budget)) {
      used = after;
      choice[step.item] = step.option;
    } else {
      closed[step.item] = 1;
    }
  }
  return knapsack_solution(items, std::move(choice));
}

}  // namespace goshawk
