#include "quant/knapsack.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.hpp"

namespace goshawk {
namespace {

struct Choice {
  std::int64_t size;
  double cost;
  int index;
};

// The step from one point of an item's lower convex hull to the next.
struct Increment {
  std::int64_t size;
  double gain;  // cost saved, > 0
  std::size_t item;
  double efficiency() const { return gain / static_cast<double>(size); }
};

// Options that no other one beats in both size and cost, by growing size.
std::vector<Choice> undominated(const std::vector<KnapsackOption>& options) {
  std::vector<Choice> sorted;
  for (std::size_t i = 0; i < options.size(); ++i) {
    check(options[i].size >= 0 && std::isfinite(options[i].cost),
          "[solve_knapsack] option {} has size {} and cost {}; sizes are at least 0 and costs finite", i,
          options[i].size, options[i].cost);
    sorted.push_back({options[i].size, options[i].cost, static_cast<int>(i)});
  }
  std::stable_sort(sorted.begin(), sorted.end(), [](const Choice& a, const Choice& b) {
    return a.size != b.size ? a.size < b.size : a.cost < b.cost;
  });
  std::vector<Choice> kept;
  for (const Choice& c : sorted) {
    if (kept.empty() || c.cost < kept.back().cost) kept.push_back(c);
  }
  return kept;
}

// The lower convex hull of undominated options as increments, the most efficient first.
std::vector<Increment> hull_increments(const std::vector<Choice>& options, std::size_t item) {
  std::vector<Choice> hull;
  for (const Choice& c : options) {
    while (hull.size() >= 2) {
      const Choice& a = hull[hull.size() - 2];
      const Choice& b = hull.back();
      // b lies on or above the line from a to c.
      if ((a.cost - b.cost) * static_cast<double>(c.size - a.size) >
          (a.cost - c.cost) * static_cast<double>(b.size - a.size)) {
        break;
      }
      hull.pop_back();
    }
    hull.push_back(c);
  }
  std::vector<Increment> increments;
  for (std::size_t i = 1; i < hull.size(); ++i) {
    increments.push_back({hull[i].size - hull[i - 1].size, hull[i - 1].cost - hull[i].cost, item});
  }
  return increments;
}

bool more_efficient(const Increment& a, const Increment& b) {
  return a.efficiency() > b.efficiency();
}

// The least cost, by linear programming, of the items from some index on.
class TailBound {
 public:
  TailBound(std::int64_t min_size, double cost_at_min, std::vector<Increment> increments)
      : min_size_(min_size), cost_at_min_(cost_at_min), increments_(std::move(increments)) {
    std::sort(increments_.begin(), increments_.end(), more_efficient);
    sizes_.push_back(0);
    gains_.push_back(0);
    for (const Increment& i : increments_) {
      sizes_.push_back(sizes_.back() + i.size);
      gains_.push_back(gains_.back() + i.gain);
    }
  }

  double operator()(std::int64_t room) const {
    const std::int64_t extra = room - min_size_;
    if (extra < 0) return std::numeric_limits<double>::infinity();
    const auto next = std::upper_bound(sizes_.begin(), sizes_.end(), extra);
    const auto k = static_cast<std::size_t>(next - sizes_.begin()) - 1;
    double gain = gains_[k];
    if (k < increments_.size()) gain += increments_[k].efficiency() * static_cast<double>(extra - sizes_[k]);
    return cost_at_min_ - gain;
  }

 private:
  std::int64_t min_size_;
  double cost_at_min_;
  std::vector<Increment> increments_;
  std::vector<std::int64_t> sizes_;
  std::vector<double> gains_;
};

// A feasible cost: hull increments by falling efficiency while they fit; an item that was skipped stays where
// it is.
double greedy_cost(double cost, std::int64_t room, std::vector<Increment> increments, std::size_t items) {
  std::stable_sort(increments.begin(), increments.end(), more_efficient);
  std::vector<char> closed(items, 0);
  for (const Increment& i : increments) {
    if (closed[i.item] || i.size > room) {
      closed[i.item] = 1;
      continue;
    }
    room -= i.size;
    cost -= i.gain;
  }
  return cost;
}

struct State {
  std::int64_t size;
  double cost;
  int parent;  // index among the states before this item
  int option;
};

}  // namespace

KnapsackSolution solve_knapsack(const std::vector<std::vector<KnapsackOption>>& items, std::int64_t budget) {
  const std::size_t n = items.size();
  std::vector<std::vector<Choice>> options;
  for (std::size_t i = 0; i < n; ++i) {
    check(!items[i].empty(), "[solve_knapsack] item {} has no option", i);
    options.push_back(undominated(items[i]));
  }

  // Bounds for the items from i on, and the scale of rounding errors in sums of costs.
  std::vector<TailBound> tails;
  std::vector<Increment> increments;
  std::int64_t min_size = 0;
  double cost_at_min = 0, magnitude = 0;
  tails.emplace_back(0, 0, std::vector<Increment>{});
  for (std::size_t i = n; i-- > 0;) {
    const std::vector<Increment> own = hull_increments(options[i], i);
    increments.insert(increments.end(), own.begin(), own.end());
    min_size += options[i].front().size;
    cost_at_min += options[i].front().cost;
    magnitude += std::max(std::abs(options[i].front().cost), std::abs(options[i].back().cost));
    tails.emplace_back(min_size, cost_at_min, increments);
  }
  std::reverse(tails.begin(), tails.end());
  check(min_size <= budget, "[solve_knapsack] the smallest possible size is {}, above the budget of {}",
        min_size, budget);
  const double bound = greedy_cost(cost_at_min, budget - min_size, increments, n) + 1e-12 * magnitude;

  std::vector<std::vector<State>> levels = {{{0, 0, -1, -1}}};
  for (std::size_t i = 0; i < n; ++i) {
    std::vector<State> reached;
    const std::vector<State>& before = levels.back();
    for (std::size_t s = 0; s < before.size(); ++s) {
      for (const Choice& c : options[i]) {
        const std::int64_t size = before[s].size + c.size;
        const double cost = before[s].cost + c.cost;
        if (cost + tails[i + 1](budget - size) > bound) continue;
        reached.push_back({size, cost, static_cast<int>(s), c.index});
      }
    }
    std::stable_sort(reached.begin(), reached.end(), [](const State& a, const State& b) {
      return a.size != b.size ? a.size < b.size : a.cost < b.cost;
    });
    std::vector<State> kept;
    for (const State& s : reached) {
      if (kept.empty() || s.cost < kept.back().cost) kept.push_back(s);
    }
    levels.push_back(std::move(kept));
  }

  // States are by growing size and falling cost: the last one is the cheapest.
  KnapsackSolution solution;
  solution.choice.resize(n);
  std::size_t at = levels.back().size() - 1;
  solution.size = levels.back()[at].size;
  solution.cost = levels.back()[at].cost;
  for (std::size_t i = n; i-- > 0;) {
    const State& state = levels[i + 1][at];
    solution.choice[i] = state.option;
    at = static_cast<std::size_t>(state.parent);
  }
  return solution;
}

}  // namespace goshawk
