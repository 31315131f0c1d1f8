#include "quant/sensitivities/joint_search.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.hpp"
#include "core/random.hpp"

namespace goshawk {
namespace {

using SizeTable = std::vector<std::vector<Sizes>>;
constexpr std::size_t kKicked = 3;  // items that a restart changes

Sizes changed(Sizes size, const Sizes& minus, const Sizes& plus) {
  for (std::size_t k = 0; k < kBudgets; ++k) size[k] += plus[k] - minus[k];
  return size;
}

/// An assignment, its size, and what each option would cost given the others' choices.
class State {
 public:
  State(const PairwiseCost& cost, const SizeTable& sizes, const Sizes& budget, std::vector<int> choice)
      : cost_(&cost), sizes_(&sizes), budget_(&budget), choice_(std::move(choice)), field_(cost.size()) {
    for (std::size_t i = 0; i < cost.items(); ++i) {
      size_ = changed(size_, {}, size_of(i, choice_[i]));
      for (std::size_t b = 0; b < cost.options(i); ++b) {
        const std::size_t k = cost.number(i, static_cast<int>(b));
        field_[k] = cost.own(k);
        for (std::size_t j = 0; j < cost.items(); ++j) {
          if (j != i) field_[k] += cost.pair(k, number(j));
        }
      }
    }
  }

  const std::vector<int>& choice() const { return choice_; }
  const Sizes& size() const { return size_; }
  bool fits_budget() const { return fits(size_, *budget_); }

  void set(std::size_t i, int option) {
    const std::size_t before = number(i), after = cost_->number(i, option);
    if (before == after) return;
    size_ = changed(size_, size_of(i, choice_[i]), size_of(i, option));
    choice_[i] = option;
    for (std::size_t j = 0; j < cost_->items(); ++j) {
      if (j == i) continue;
      for (std::size_t b = 0; b < cost_->options(j); ++b) {
        const std::size_t k = cost_->number(j, static_cast<int>(b));
        field_[k] += cost_->pair(after, k) - cost_->pair(before, k);
      }
    }
  }

  /// Makes the best single change; where none improves, each item in turn makes its best pair of changes with
  /// an earlier one. False when nothing improved. Takes the looks at an assignment off `evaluations`, and
  /// stops below 0.
  bool improve(std::int64_t& evaluations) {
    if (make(best_single(evaluations))) return true;
    bool improved = false;
    for (std::size_t i = 0; i < cost_->items() && evaluations > 0; ++i) {
      improved = make(best_pair(i, evaluations)) || improved;
    }
    return improved;
  }

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  struct Move {
    double gain = 0;
    std::size_t i = 0;
    int option = 0;
    std::size_t j = kNone;
    int second = 0;
  };

  std::size_t number(std::size_t i) const { return cost_->number(i, choice_[i]); }
  const Sizes& size_of(std::size_t i, int option) const {
    return (*sizes_)[i][static_cast<std::size_t>(option)];
  }
  double scale() const {
    double sum = 0;
    for (std::size_t i = 0; i < cost_->items(); ++i) sum += std::abs(field_[number(i)]);
    return sum;
  }

  bool make(const Move& move) {
    // Smaller than rounding: a cycle could follow.
    if (!(move.gain < -1e-13 * scale())) return false;
    set(move.i, move.option);
    if (move.j != kNone) set(move.j, move.second);
    return true;
  }

  Move best_single(std::int64_t& evaluations) const {
    Move best;
    for (std::size_t i = 0; i < cost_->items(); ++i) {
      for_each_change(i, [&](int option, double gain, const Sizes& size) {
        if (gain < best.gain && fits(size, *budget_)) best = {.gain = gain, .i = i, .option = option};
      });
    }
    evaluations -= static_cast<std::int64_t>(cost_->size());
    return best;
  }

  // With items before i.
  Move best_pair(std::size_t i, std::int64_t& evaluations) const {
    Move best;
    for_each_change(i, [&](int option, double gain, const Sizes& size) {
      for (std::size_t j = 0; j < i; ++j) consider_pair(i, option, gain, size, j, best);
    });
    evaluations -= static_cast<std::int64_t>(cost_->options(i) * cost_->number(i, 0));
    return best;
  }

  // f(option, what it saves (negative) or costs, the size with it) for all options of i but its own.
  template <typename F>
  void for_each_change(std::size_t i, const F& f) const {
    for (std::size_t b = 0; b < cost_->options(i); ++b) {
      const int option = static_cast<int>(b);
      if (option == choice_[i]) continue;
      f(option, field_[cost_->number(i, option)] - field_[number(i)],
        changed(size_, size_of(i, choice_[i]), size_of(i, option)));
    }
  }

  void consider_pair(std::size_t i, int option, double gain_i, const Sizes& size_i, std::size_t j,
                     Move& best) const {
    const std::size_t k = cost_->number(i, option), was_i = number(i), was_j = number(j);
    for (std::size_t b = 0; b < cost_->options(j); ++b) {
      const int second = static_cast<int>(b);
      if (second == choice_[j]) continue;
      const std::size_t m = cost_->number(j, second);
      const double gain = gain_i + field_[m] - field_[was_j] + cost_->pair(k, m) - cost_->pair(k, was_j) -
                          cost_->pair(was_i, m) + cost_->pair(was_i, was_j);
      if (gain < best.gain && fits(changed(size_i, size_of(j, choice_[j]), size_of(j, second)), *budget_)) {
        best = {gain, i, option, j, second};
      }
    }
  }

  const PairwiseCost* cost_;
  const SizeTable* sizes_;
  const Sizes* budget_;
  std::vector<int> choice_;
  Sizes size_{};
  std::vector<double> field_;
};

/// Random options for a few items; then random items take smaller ones until all fits. False when that ends
/// nowhere.
bool kick(State& state, const PairwiseCost& cost, const SizeTable& sizes, Random& random) {
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random.below(n)); };
  for (std::size_t n = 0; n < kKicked; ++n) {
    const std::size_t i = below(cost.items());
    state.set(i, static_cast<int>(below(cost.options(i))));
  }
  for (const std::int64_t item : random.permutation(static_cast<std::int64_t>(cost.items()))) {
    if (state.fits_budget()) break;
    const auto i = static_cast<std::size_t>(item);
    const auto smallest = std::min_element(sizes[i].begin(), sizes[i].end());
    state.set(i, static_cast<int>(smallest - sizes[i].begin()));
  }
  return state.fits_budget();
}

}  // namespace

JointSolution minimize_joint_cost(const PairwiseCost& cost, const std::vector<std::vector<Sizes>>& sizes,
                                  const Sizes& budget,
                                  const std::vector<std::vector<std::vector<double>>>& others,
                                  const JointSearchOptions& options) {
  check(sizes.size() == cost.items(), "[minimize_joint_cost] there are sizes of {} items but costs of {}",
        sizes.size(), cost.items());
  check(options.restarts >= 0, "[minimize_joint_cost] {} restarts make no sense", options.restarts);
  std::vector<std::vector<KnapsackOption>> items;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    check(sizes[i].size() == cost.options(i), "[minimize_joint_cost] item {} has {} sizes and {} options", i,
          sizes[i].size(), cost.options(i));
    auto& item = items.emplace_back();
    for (std::size_t b = 0; b < sizes[i].size(); ++b) {
      item.push_back({sizes[i][b], cost.own(cost.number(i, static_cast<int>(b)))});
    }
  }
  std::vector<std::vector<int>> starts{solve_knapsack(items, budget).choice};
  for (const auto& other : others) {
    for (std::size_t i = 0; i < items.size(); ++i) {
      for (std::size_t b = 0; b < items[i].size(); ++b) items[i][b].cost = other.at(i).at(b);
    }
    starts.push_back(solve_knapsack(items, budget).choice);
  }
  for (auto& item : items) {
    for (KnapsackOption& option : item) option.cost = option.size[0] + option.size[1];
  }
  JointSolution best;
  std::int64_t evaluations = options.evaluations;
  const auto descend = [&](State state) {
    while (evaluations > 0 && state.improve(evaluations)) ++best.moves;
    ++best.starts;
    const double value = cost.cost(state.choice());
    if (best.choice.empty() || value < best.cost) {
      best.choice = state.choice();
      best.size = state.size();
      best.cost = value;
    }
  };
  best.separable_cost = cost.cost(starts.front());
  for (const std::vector<int>& start : starts) {
    best.separable_cost = std::min(best.separable_cost, cost.cost(start));
  }
  starts.push_back(solve_knapsack(items, budget).choice);
  for (const std::vector<int>& start : starts) descend(State(cost, sizes, budget, start));
  for (int r = 0; r < options.restarts && evaluations > 0; ++r) {
    Random random(options.seed, static_cast<std::uint64_t>(r));
    State state(cost, sizes, budget, best.choice);
    if (kick(state, cost, sizes, random)) descend(std::move(state));
  }
  return best;
}

}  // namespace goshawk
