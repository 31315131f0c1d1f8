#include "quant/knapsack_parts.hpp"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "quant/knapsack_core.hpp"
#include "quant/knapsack_grid.hpp"

namespace goshawk::detail {
namespace {

// The problem, or a part of it, in which some items have one option left.
struct Part {
  std::vector<std::pair<std::size_t, int>> decided;  // which these are, and what the option was
  Relaxation relaxation = {};
  double level = 0;            // nothing in it costs less
  double searched = 0;         // the gap above the bound within which there is nothing
  std::size_t labels = 0;      // partial solutions that this took
  std::size_t patience = 0;    // as many as the next search may take, if not more
  double step = kFirstStep;    // how much further that goes
  double power = kUsualPower;  // of the gap, with which the partial solutions grow

  static constexpr double kFirstStep = 2, kLeastStep = 1.1, kUsualPower = 3;
};

// The optimum among all assignments, if any fits. The part that could have the cheapest one is searched a
// little further, until no part can have a cheaper one than was found. A part that takes too much is divided:
// with the option of one item known the best prices are others, and the bound is higher.
class BestFirst {
 public:
  /// `unavoidable`: cost beside that of the items, for messages.
  BestFirst(const Items& items, const Sizes& budget, const SearchEffort& effort, double unavoidable)
      : items_(items), budget_(budget), effort_(effort), unavoidable_(unavoidable) {}

  std::optional<std::vector<int>> run() {
    const Relaxation relaxation = best_prices(items_, budget_, Assignments::all);
    scale_ = cost_scale(items_, budget_, relaxation);
    ceiling_ = scale_.highest + scale_.rounding;
    costs_ = costs_grid(items_, scale_.rounding);
    put({.decided = {}, .relaxation = relaxation, .level = costs_.up(relaxation.bound, scale_.rounding)});
    while (!parts_.empty()) {
      std::pop_heap(parts_.begin(), parts_.end(), later);
      Part part = std::move(parts_.back());
      parts_.pop_back();
      if (part.level > ceiling_ + scale_.rounding) break;  // one at the ceiling may be smaller
      if (optimal(part) && work_ > effort_.ties) break;    // there may be a smaller one of the same cost
      if (work_ > effort_.in_all) fail_after_work(part);
      search(std::move(part));
    }
    if (!best_) return std::nullopt;
    return std::move(best_->choice);
  }

 private:
  static bool later(const Part& a, const Part& b) { return a.level > b.level; }

  void put(Part part) {
    parts_.push_back(std::move(part));
    std::push_heap(parts_.begin(), parts_.end(), later);
  }

  Items items_of(const Part& part) const {
    Items items = items_;
    for (const auto& [item, option] : part.decided)
      items[item] = {items_[item][static_cast<std::size_t>(option)]};
    return items;
  }

  // Whether the solution that is known is optimal, as none of the parts goes below this one.
  bool optimal(const Part& part) const { return best_ && part.level >= best_->cost - scale_.rounding; }

  void search(Part part) {
    const double most = ceiling_ - part.relaxation.bound;
    const double gap = std::min(
        std::max({scale_.first_gap, part.searched * part.step, part.level - part.relaxation.bound}), most);
    // As much as a quarter of what all others took: where dividing does not help, little is lost.
    const std::size_t left = (optimal(part) ? effort_.ties : effort_.in_all) - work_;
    const std::size_t patience = std::min(std::max(part.patience, effort_.easy + work_ / 4), left);
    CoreSearch search = search_core(items_of(part), budget_, part.relaxation, gap, scale_.rounding, patience);
    work_ += search.labels;
    part.level = std::max(part.level, costs_.up(part.relaxation.bound + search.least_gap, scale_.rounding));
    if (search.choice) found(part, *std::move(search.choice));
    if (!search.complete) return give_way(std::move(part), search, gap);
    if (search.choice || gap >= most) return;
    go_further(part, search, gap);
    put(std::move(part));
  }

  // A search that was given up goes less far, or the part is divided, or it takes more patience.
  void give_way(Part part, const CoreSearch& search, double gap) {
    std::vector<Part> parts = divided(part, search.widest, gap);
    if (parts.empty()) {
      part.patience = 4 * search.labels;
    } else if (part.step > Part::kLeastStep) {
      part.step = Part::kLeastStep;
    } else {
      for (Part& child : parts) put(std::move(child));
      return;
    }
    put(std::move(part));
  }

  // After a search that found nothing the next one goes as much further as takes twice as much.
  void go_further(Part& part, const CoreSearch& search, double gap) const {
    static constexpr std::size_t kTrivial = 20;
    static constexpr double kSteep = 10;
    if (search.labels >= kTrivial) {
      part.power = kSteep;
      if (part.labels >= kTrivial) {
        const double growth = static_cast<double>(search.labels) / static_cast<double>(part.labels);
        part.power = std::max(1.0, std::log(growth) / std::log(gap / part.searched));
      }
      part.step = std::max(Part::kLeastStep, std::pow(2.0, 1 / part.power));
    }
    part.labels = search.labels;
    part.searched = gap;
    part.level = std::max(part.level, costs_.up(part.relaxation.bound + gap, -0.5 * scale_.rounding));
  }

  void found(const Part& part, std::vector<int> choice) {
    for (const auto& [item, option] : part.decided) choice[item] = option;
    KnapsackSolution solution = knapsack_solution(items_, std::move(choice));
    if (!best_ || std::tie(solution.cost, solution.size) < std::tie(best_->cost, best_->size)) {
      ceiling_ = solution.cost;
      best_ = std::move(solution);
    }
  }

  // One for each option of the item, or none where searching them as far takes more than searching the part:
  // their bounds are higher, but each is searched.
  std::vector<Part> divided(const Part& part, std::size_t item, double gap) const {
    static constexpr double kWorth = 2;
    std::vector<Part> parts;
    double effort = 0;
    for (std::size_t j = 0; j < items_[item].size(); ++j) {
      Part child{.decided = part.decided};
      child.decided.emplace_back(item, static_cast<int>(j));
      child.relaxation = best_prices(items_of(child), budget_, Assignments::all);
      child.level = std::max(part.level, costs_.up(child.relaxation.bound, scale_.rounding));
      child.searched = std::max(0.0, part.level - child.relaxation.bound);
      const double left = part.relaxation.bound + gap - child.relaxation.bound;
      effort += std::pow(std::max(0.0, left / std::max(gap, scale_.first_gap)), part.power);
      parts.push_back(std::move(child));
    }
    if (effort > kWorth) parts.clear();
    return parts;
  }

  [[noreturn]] void fail_after_work(const Part& part) const {
    throw TooManyPartialSolutions(fmt::format(
        "[solve_knapsack] {} partial solutions only show that the optimum costs at least {:.10g}{}; "
        "use fewer options, another budget or the greedy method",
        work_, unavoidable_ + part.level,
        best_ ? fmt::format(" and at most {:.10g}", unavoidable_ + best_->cost) : ""));
  }

  const Items& items_;
  Sizes budget_;
  SearchEffort effort_;
  double unavoidable_;
  CostScale scale_;
  Grid costs_;
  double ceiling_ = 0;       // nothing above it is of use
  std::size_t work_ = 0;     // partial solutions looked at
  std::vector<Part> parts_;  // a heap, the lowest level first
  std::optional<KnapsackSolution> best_;
};

// Without the options that another one of their item beats or equals in all sizes and cost, without those
// that are too large even beside the smallest of all others (one that is a million times the budget would be
// subtracted from sums in which the rounding of its size matters), and without sizes that no budget limits.
struct Possible {
  Items items;
  std::vector<std::vector<int>> options;  // which these are
};

// Whether `a` may always stand for `b`.
bool stands_for(const KnapsackOption& a, const KnapsackOption& b) {
  bool good = a.cost <= b.cost;
  for (std::size_t k = 0; k < kBudgets; ++k) good = good && a.size[k] <= b.size[k];
  return good;
}

bool needless(const std::vector<KnapsackOption>& item, std::size_t option) {
  for (std::size_t j = 0; j < item.size(); ++j) {
    if (j == option || !stands_for(item[j], item[option])) continue;
    if (j < option || !stands_for(item[option], item[j])) return true;  // of equal ones the first stays
  }
  return false;
}

Possible possible_options(const Items& items, const Sizes& budget) {
  std::vector<Sizes> least(items.size());
  Sizes total{};
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (std::size_t k = 0; k < kBudgets; ++k) {
      least[i][k] = kNoBudget;
      for (const KnapsackOption& option : items[i]) least[i][k] = std::min(least[i][k], option.size[k]);
      total[k] += least[i][k];
    }
  }
  Possible possible{Items(items.size()), std::vector<std::vector<int>>(items.size())};
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (std::size_t j = 0; j < items[i].size(); ++j) {
      Sizes smallest = total;
      for (std::size_t k = 0; k < kBudgets; ++k) smallest[k] += items[i][j].size[k] - least[i][k];
      if (!fits(smallest, budget) || needless(items[i], j)) continue;
      possible.items[i].push_back(items[i][j]);
      for (std::size_t k = 0; k < kBudgets; ++k) {
        if (budget[k] == kNoBudget) possible.items[i].back().size[k] = 0;
      }
      possible.options[i].push_back(static_cast<int>(j));
    }
  }
  return possible;
}

// What an item costs with any option makes no assignment better than another, but the rounding of sums
// coarser. Returns how much it is for all of them.
double count_from_least(Items& items) {
  double in_all = 0;
  for (auto& item : items) {
    double least = item.front().cost;
    for (const KnapsackOption& option : item) least = std::min(least, option.cost);
    for (KnapsackOption& option : item) option.cost -= least;
    in_all += least;
  }
  return in_all;
}

// Drops the options that alone cost more than a whole solution, where no cost is below zero. One whose cost
// stands for "never", such as 1e9 where others cost 1e-5, would make those equal up to rounding. Returns
// whether there were any.
bool drop_dearer(Possible& possible, double known_cost) {
  bool dropped = false;
  for (std::size_t i = 0; i < possible.items.size(); ++i) {
    std::vector<KnapsackOption> kept;
    std::vector<int> options;
    for (std::size_t j = 0; j < possible.items[i].size(); ++j) {
      if (possible.items[i][j].cost > known_cost * (1 + 1e-12)) continue;
      kept.push_back(possible.items[i][j]);
      options.push_back(possible.options[i][j]);
    }
    dropped = dropped || kept.size() < possible.items[i].size();
    possible.items[i] = std::move(kept);
    possible.options[i] = std::move(options);
  }
  return dropped;
}

// The budgets, as far as the sizes can come up to them.
Sizes attainable(const Items& items, Sizes budget) {
  for (std::size_t k = 0; k < kBudgets; ++k) {
    if (budget[k] == kNoBudget) continue;
    std::vector<std::vector<double>> sizes(items.size());
    for (std::size_t i = 0; i < items.size(); ++i) {
      for (const KnapsackOption& option : items[i]) sizes[i].push_back(option.size[k]);
    }
    const double rounding = kBudgetRounding * std::abs(budget[k]);
    budget[k] = sums_grid(sizes, rounding).down(budget[k], rounding);
  }
  return budget;
}

}  // namespace

std::optional<std::vector<int>> cheapest_choice(const Items& items, const Sizes& budget,
                                                const SearchEffort& effort) {
  Possible possible = possible_options(items, budget);
  for (const auto& item : possible.items) {
    if (item.empty()) return std::nullopt;
  }
  const double unavoidable = count_from_least(possible.items);
  // With two budgets greedy may not know any, although there are some.
  const std::optional<KnapsackSolution> known = greedy_knapsack(possible.items, budget);
  if (known) drop_dearer(possible, known->cost);
  const auto solve = [&] {
    return BestFirst(possible.items, attainable(possible.items, budget), effort, unavoidable).run();
  };
  auto choice = solve();
  if (choice && !known && drop_dearer(possible, knapsack_solution(possible.items, *choice).cost)) {
    choice = solve();
  }
  if (choice) {
    for (std::size_t i = 0; i < items.size(); ++i) {
      (*choice)[i] = possible.options[i][static_cast<std::size_t>((*choice)[i])];
    }
  }
  return choice;
}

}  // namespace goshawk::detail
