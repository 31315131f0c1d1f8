#include "quant/knapsack_parts.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

#include "quant/knapsack_core.hpp"

namespace goshawk::detail {
namespace {

// The problem, or a part of it, in which some items have one option left.
struct Part {
  std::vector<std::pair<std::size_t, int>> decided;  // which these are, and what the option was
  Relaxation relaxation = {};
  double searched = 0;  // nothing in it costs less than its bound and this
  double step = kFirstStep;

  double level() const { return relaxation.bound + searched; }
  // How a search goes on: what it takes grows steeply with the gap.
  static constexpr double kFirstStep = 2, kStep = 1.1;
};

// The optimum among all assignments, if any fits. The part that could have the cheapest one is searched a
// little further, until no part can have a cheaper one than was found. A part that takes too much is divided:
// with the option of one item known the best prices are others, and the bound is higher.
class BestFirst {
 public:
  BestFirst(const Items& items, const Sizes& budget, const SearchEffort& effort)
      : items_(items), budget_(budget), effort_(effort) {}

  std::optional<std::vector<int>> run() {
    const Relaxation relaxation = best_prices(items_, budget_, Assignments::all);
    scale_ = cost_scale(items_, budget_, relaxation);
    ceiling_ = scale_.highest + scale_.rounding;
    put({.decided = {}, .relaxation = relaxation});
    while (!parts_.empty()) {
      std::pop_heap(parts_.begin(), parts_.end(), later);
      Part part = std::move(parts_.back());
      parts_.pop_back();
      if (part.level() > ceiling_ + scale_.rounding) break;  // one at the ceiling may be smaller
      const bool optimal = best_ && part.level() >= best_->cost - scale_.rounding;
      if (optimal && work_ > effort_.ties) break;  // there may be a smaller one of the same cost
      if (work_ > effort_.in_all) fail_after_work(part);
      search(std::move(part));
    }
    if (!best_) return std::nullopt;
    return std::move(best_->choice);
  }

 private:
  static bool later(const Part& a, const Part& b) { return a.level() > b.level(); }

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

  void search(Part part) {
    const double most = ceiling_ - part.relaxation.bound;
    const double gap = std::min(std::max(scale_.first_gap, part.searched * part.step), most);
    // As much as a quarter of what all others took: where dividing does not help, little is lost.
    CoreSearch search =
        search_core(items_of(part), budget_, part.relaxation, gap, scale_.rounding, effort_.easy + work_ / 4);
    work_ += search.labels;
    if (!search.complete) {
      if (part.step <= Part::kStep) return divide(part, search.widest);
      part.step = Part::kStep;
      return put(std::move(part));
    }
    if (search.choice) {
      for (const auto& [item, option] : part.decided) (*search.choice)[item] = option;
      KnapsackSolution found = knapsack_solution(items_, *std::move(search.choice));
      if (!best_ || std::tie(found.cost, found.size) < std::tie(best_->cost, best_->size)) {
        ceiling_ = found.cost;
        best_ = std::move(found);
      }
    } else if (gap < most) {
      part.searched = gap;
      if (search.labels >= kTrivial) part.step = Part::kStep;
      put(std::move(part));
    }
  }

  void divide(const Part& part, std::size_t item) {
    for (std::size_t j = 0; j < items_[item].size(); ++j) {
      Part child{.decided = part.decided};
      child.decided.emplace_back(item, static_cast<int>(j));
      child.relaxation = best_prices(items_of(child), budget_, Assignments::all);
      child.searched = std::max(0.0, part.level() - child.relaxation.bound);
      put(std::move(child));
    }
  }

  [[noreturn]] void fail_after_work(const Part& part) const {
    throw TooManyPartialSolutions(fmt::format(
        "[solve_knapsack] {} partial solutions only show that the optimum costs at least {:.10g}{}; "
        "use fewer options, another budget or the greedy method",
        work_, part.level(), best_ ? fmt::format(" and at most {:.10g}", best_->cost) : ""));
  }

  static constexpr std::size_t kTrivial = 20;
  const Items& items_;
  Sizes budget_;
  SearchEffort effort_;
  CostScale scale_;
  double ceiling_ = 0;       // nothing above it is of use
  std::size_t work_ = 0;     // partial solutions looked at
  std::vector<Part> parts_;  // a heap, the lowest level first
  std::optional<KnapsackSolution> best_;
};

// Without the options that are too large even beside the smallest of all others: one that is a million times
// the budget would be subtracted from sums in which the rounding of its size matters.
struct Possible {
  Items items;
  std::vector<std::vector<int>> options;  // which these are
};

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
      if (!fits(smallest, budget)) continue;
      possible.items[i].push_back(items[i][j]);
      possible.options[i].push_back(static_cast<int>(j));
    }
  }
  return possible;
}

}  // namespace

std::optional<std::vector<int>> cheapest_choice(const Items& items, const Sizes& budget,
                                                const SearchEffort& effort) {
  const Possible possible = possible_options(items, budget);
  for (const auto& item : possible.items) {
    if (item.empty()) return std::nullopt;
  }
  auto choice = BestFirst(possible.items, budget, effort).run();
  if (choice) {
    for (std::size_t i = 0; i < items.size(); ++i) {
      (*choice)[i] = possible.options[i][static_cast<std::size_t>((*choice)[i])];
    }
  }
  return choice;
}

}  // namespace goshawk::detail
