#include "quant/knapsack_core.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "quant/knapsack_defaults.hpp"
#include "quant/knapsack_grid.hpp"
#include "quant/knapsack_labels.hpp"

namespace goshawk::detail {
namespace {

// A partial solution, as what it differs from one that takes the default of every item.
struct Label {
  Sizes size{};
  double cost = 0;
  double excess = 0;  // cost and priced size, ≥ 0
  int node = -1;      // the last departure from a default
};

struct Node {
  int parent;
  int item;
  int option;
};

// An option that is not its item's default, as its difference from it.
struct Alternative {
  Sizes size{};
  double cost = 0;
  double excess = 0;
  double apart = 0;  // priced difference of the sizes
  int option = 0;    // in the whole problem
};

struct CoreItem {
  std::size_t origin;
  std::vector<Alternative> alternatives;
  double spread;  // the largest priced size of an alternative
};

// What all assignments near the bound have in common, and where they differ.
struct Core {
  std::vector<int> defaults;  // of all items: the cheapest at the prices
  double cost = 0;            // of the defaults
  Sizes size{};
  std::vector<CoreItem> items;
};

// `tie`: an excess that is none.
Core find_core(const Items& items, const Sizes& price, const Sizes& budget, double gap, double tie) {
  Core core;
  core.defaults = cheapest_near_budget(items, price, budget, tie);
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::vector<double> priced = priced_costs(items[i], price);
    const auto usual_option = static_cast<std::size_t>(core.defaults[i]);
    const KnapsackOption& usual = items[i][usual_option];
    core.cost += usual.cost;
    for (std::size_t k = 0; k < kBudgets; ++k) core.size[k] += usual.size[k];
    CoreItem open{i, {}, 0};
    for (std::size_t j = 0; j < priced.size(); ++j) {
      const double excess = std::max(0.0, priced[j] - priced[usual_option]);
      if (j == usual_option || excess > gap) continue;
      Alternative other{
          .cost = items[i][j].cost - usual.cost, .excess = excess, .option = static_cast<int>(j)};
      for (std::size_t k = 0; k < kBudgets; ++k) {
        other.size[k] = items[i][j].size[k] - usual.size[k];
        other.apart += price[k] * std::abs(other.size[k]);
      }
      open.spread = std::max(open.spread, other.apart);
      open.alternatives.push_back(other);
    }
    if (!open.alternatives.empty()) core.items.push_back(std::move(open));
  }
  // Items whose options differ most in size come first: the later ones can then fill only little, and labels
  // that leave more than that unused are soon too expensive.
  std::stable_sort(core.items.begin(), core.items.end(),
                   [](const CoreItem& a, const CoreItem& b) { return a.spread > b.spread; });
  return core;
}

// Prices are tried in blocks of so many.
constexpr std::size_t kBlock = 32;

// The best prices are the best for the whole problem; for what is left after some items others may be, where
// room is scarcer or more plentiful.
std::vector<Sizes> prices_around(const Sizes& price) {
  static constexpr double kFactors[] = {1,   0,    0.1,  0.25, 0.4, 0.55, 0.7, 0.8,
                                        0.9, 1.11, 1.25, 1.45, 1.8, 2.5,  4,   8};
  std::vector<Sizes> prices;
  for (double first : kFactors) {
    for (double second : kFactors) {
      prices.push_back({price[0] * first, price[1] * second});
      if (price[1] == 0) break;
    }
    if (price[0] == 0) break;
  }
  while (prices.size() % kBlock != 0) prices.push_back(price);
  return prices;
}

// What a search may not exceed, relative to the defaults of all items.
struct Limits {
  Sizes room{};      // of each budget
  Sizes rounding{};  // by which the room may be exceeded
  double cost = 0;
  double excess = 0;
};

// Reduces the room to what departures can come up to, and says what that is at the prices. Where few widths
// of each layer are left, their sizes may share a unit that those of all widths do not.
double reduce_to_attainable(const std::vector<CoreItem>& items, const Sizes& price, Limits& limits) {
  double unused = 0;
  for (std::size_t k = 0; k < kBudgets; ++k) {
    if (price[k] == 0) continue;
    std::vector<std::vector<double>> sizes;
    for (const CoreItem& item : items) {
      sizes.push_back({0});
      for (const Alternative& a : item.alternatives) sizes.back().push_back(a.size[k]);
    }
    const double room = sums_grid(sizes, limits.rounding[k]).down(limits.room[k], limits.rounding[k]);
    unused += price[k] * std::max(0.0, limits.room[k] - room);
    limits.room[k] = room;
  }
  return unused;
}

// Of the items that the relaxation takes two options of, as many as there are budgets, the one whose two
// differ most; if there is no core, any.
std::size_t widest_divided(const std::vector<CoreItem>& items) {
  struct Divided {
    double excess, apart;
    std::size_t item;
  };
  std::vector<Divided> all;
  for (const CoreItem& item : items) {
    for (const Alternative& a : item.alternatives) all.push_back({a.excess, a.apart, item.origin});
  }
  const auto end = all.begin() + static_cast<std::ptrdiff_t>(std::min(kBudgets, all.size()));
  std::partial_sort(all.begin(), end, all.end(),
                    [](const Divided& a, const Divided& b) { return a.excess < b.excess; });
  const auto widest = std::max_element(all.begin(), end,
                                       [](const Divided& a, const Divided& b) { return a.apart < b.apart; });
  return widest == end ? 0 : widest->item;
}

// The labels of one end, which takes up one item after the other.
class End {
 public:
  End(std::vector<const CoreItem*> items, const Limits& limits, const std::vector<Sizes>& prices)
      : items_(std::move(items)), limits_(limits), buckets_(kBuckets), rest_(items_.size() + 1) {
    for (const Sizes& price : prices) {
      for (std::size_t k = 0; k < kBudgets; ++k) prices_[k].push_back(price[k]);
    }
    rest_.back().reduced.assign(prices.size(), 0);
    for (std::size_t i = items_.size(); i-- > 0;) {
      Rest& rest = rest_[i] = rest_[i + 1];
      for (std::size_t p = 0; p < prices.size(); ++p) {
        double least = 0;
        for (const Alternative& a : items_[i]->alternatives) {
          least = std::min(least, a.cost + dot(prices[p], a.size));
        }
        rest.reduced[p] += least;
      }
      for (std::size_t k = 0; k < kBudgets; ++k) {
        double least = 0, most = 0;
        for (const Alternative& a : items_[i]->alternatives) {
          least = std::min(least, a.size[k]);
          most = std::max(most, a.size[k]);
        }
        rest.least[k] += least;
        rest.most[k] += most;
      }
    }
    if (promising({}, blocks())) buckets_[0].push_back({});
    count_ = seen_ = buckets_[0].size();
  }

  std::size_t count() const { return count_; }
  std::size_t seen() const { return seen_; }

  /// Takes up the next item; gives up in the middle where more than `most` labels were seen.
  void advance(std::size_t most) {
    const CoreItem& item = *items_[taken_++];
    if (axis_) return merge(item, *axis_, most);
    fresh_.clear();
    for (const Alternative& a : item.alternatives) {
      for (std::size_t b = 0; b < kBuckets; ++b) {
        // The most numerous labels, those near the limit, are not looked at when they cannot go on.
        if (bucket_excess(b) + a.excess > limits_.excess) break;
        for (const Label& label : buckets_[b]) extend(label, a);
        if (seen_ + fresh_.size() > most) {
          seen_ += fresh_.size();
          return;
        }
      }
    }
    for (const Label& label : fresh_) buckets_[bucket(label)].push_back(label);
    count_ += fresh_.size();
    seen_ += fresh_.size();
    if (count_ > 2 * cleaned_ + kFew) clean();
  }

  std::vector<Label> labels() {
    clean();
    std::vector<Label> all;
    for (const auto& labels : buckets_) all.insert(all.end(), labels.begin(), labels.end());
    return all;
  }

  /// Puts the options that a label departs to into an assignment of all items.
  void apply(const Label& label, std::vector<int>& choice) const {
    for (int n = label.node; n >= 0; n = node(n).parent) {
      choice[items_[static_cast<std::size_t>(node(n).item)]->origin] = node(n).option;
    }
  }

 private:
  static constexpr std::size_t kBuckets = 64, kFew = 256;
  static constexpr std::size_t kMerged = 24;  // so many labels merged take as long as one looked at

  // The least that the items from some place on can come to.
  struct Rest {
    Sizes least{}, most{};
    std::vector<double> reduced;  // least cost and priced size, for each price
  };

  const Node& node(int n) const { return nodes_[static_cast<std::size_t>(n)]; }
  std::size_t bucket(const Label& label) const {
    if (axis_ || !(limits_.excess > 0)) return 0;
    const double place = label.excess / limits_.excess * static_cast<double>(kBuckets);
    return std::min(kBuckets - 1, static_cast<std::size_t>(place));
  }
  // Below that of every label in the bucket, whatever its place was rounded to.
  double bucket_excess(std::size_t b) const {
    return limits_.excess * (static_cast<double>(b) / static_cast<double>(kBuckets) - 1e-9);
  }

  void extend(const Label& label, const Alternative& a) {
    Label more = label;
    more.excess += a.excess;
    if (more.excess > limits_.excess) return;
    more.cost += a.cost;
    for (std::size_t k = 0; k < kBudgets; ++k) more.size[k] += a.size[k];
    if (!promising(more, blocks())) return;
    more.node = static_cast<int>(nodes_.size());
    nodes_.push_back({label.node, static_cast<int>(taken_) - 1, a.option});
    fresh_.push_back(more);
  }

  // Under one budget the labels lie in one bucket, by growing size and falling cost, and so do those that
  // depart to an alternative: what is dominated shows when they are merged.
  void merge(const CoreItem& item, std::size_t axis, std::size_t most) {
    std::vector<Label>& labels = buckets_[0];
    const std::vector<Label> before = labels;
    for (const Alternative& a : item.alternatives) {
      fresh_.clear();
      double least = kNoBudget;
      auto old = labels.begin();
      const auto keep_until = [&](double size, double cost) {
        for (; old != labels.end() &&
               (old->size[axis] < size || (old->size[axis] == size && old->cost <= cost));
             ++old) {
          if (old->cost >= least) continue;
          least = old->cost;
          fresh_.push_back(*old);
        }
      };
      for (const Label& label : before) {
        Label more = label;
        more.excess += a.excess;
        if (more.excess > limits_.excess) continue;
        more.cost += a.cost;
        for (std::size_t k = 0; k < kBudgets; ++k) more.size[k] += a.size[k];
        keep_until(more.size[axis], more.cost);
        if (more.cost >= least) continue;
        if (!promising(more, blocks())) continue;
        more.node = static_cast<int>(nodes_.size());
        nodes_.push_back({label.node, static_cast<int>(taken_) - 1, a.option});
        ++seen_;
        least = more.cost;
        fresh_.push_back(more);
      }
      keep_until(kNoBudget, kNoBudget);
      seen_ += before.size() / kMerged;
      labels.swap(fresh_);
      if (seen_ > most) break;
    }
    count_ = labels.size();
    if (count_ > 2 * cleaned_ + kFew) clean();
  }

  std::size_t blocks() const { return prices_[0].size() / kBlock; }

  // Whether the items that are left can complete the label within the budgets and below the ceiling, as far
  // as `tries` blocks of prices tell, from the one on that told last.
  bool promising(const Label& label, std::size_t tries) {
    const Rest& rest = rest_[taken_];
    Sizes unused;  // priced although it is not used: what is left of a budget in the end, negative
    for (std::size_t k = 0; k < kBudgets; ++k) {
      const double room = limits_.room[k] + limits_.rounding[k];
      if (label.size[k] + rest.least[k] > room) return false;
      unused[k] = label.size[k] - std::min(room, label.size[k] + rest.most[k]);
    }
    const double cost = limits_.cost - label.cost;
    for (std::size_t n = 0; n < tries; ++n) {
      const std::size_t block = (telling_ + n) % blocks();
      const double* reduced = rest.reduced.data() + block * kBlock;
      const double* first = prices_[0].data() + block * kBlock;
      const double* second = prices_[1].data() + block * kBlock;
      int above = 0;
      for (std::size_t p = 0; p < kBlock; ++p) {
        above |= reduced[p] + first[p] * unused[0] + second[p] * unused[1] > cost ? 1 : 0;
      }
      if (above != 0) {
        telling_ = block;
        return false;
      }
    }
    return true;
  }

  // All prices were tried when a label was new; now it is one block's turn.
  void clean() {
    telling_ = turn_++ % blocks();
    std::vector<Label> all;
    for (auto& labels : buckets_) {
      for (const Label& label : labels) {
        if (promising(label, 1)) all.push_back(label);
      }
      labels.clear();
    }
    remove_dominated(all);
    for (const Label& label : all) buckets_[bucket(label)].push_back(label);
    count_ = cleaned_ = all.size();
  }

  // The budget that the sizes count in, if it is one.
  std::optional<std::size_t> only_axis() const {
    std::array<bool, kBudgets> counts{};
    for (const CoreItem* item : items_) {
      for (const Alternative& a : item->alternatives) {
        for (std::size_t k = 0; k < kBudgets; ++k) counts[k] = counts[k] || a.size[k] != 0;
      }
    }
    for (std::size_t k = 0; k < kBudgets; ++k) {
      if (counts[k] && std::count(counts.begin(), counts.end(), true) == 1) return k;
    }
    return std::nullopt;
  }

  std::vector<const CoreItem*> items_;
  std::optional<std::size_t> axis_ = only_axis();
  Limits limits_;
  std::vector<std::vector<Label>> buckets_;  // by excess
  std::vector<Rest> rest_;
  std::vector<double> prices_[kBudgets];
  std::vector<Label> fresh_;
  std::vector<Node> nodes_;
  std::size_t taken_ = 0, count_ = 0, cleaned_ = 0, seen_ = 0, telling_ = 0, turn_ = 0;
};

// The two labels that together cost least within the limits, of equal costs the smallest.
std::optional<std::pair<Label, Label>> best_pair(std::vector<Label> left, std::vector<Label> right,
                                                 const Limits& limits) {
  // By falling size the first set leaves ever more room, so that the second only gains members.
  std::sort(left.begin(), left.end(), [](const Label& a, const Label& b) { return a.size > b.size; });
  std::sort(right.begin(), right.end(), [](const Label& a, const Label& b) { return a.size < b.size; });
  std::map<double, const Label*> least;  // second size → label; falling costs
  std::optional<std::pair<Label, Label>> best;
  const auto rank = [](const Label& a, const Label& b) {
    return std::tuple(a.cost + b.cost, a.size[0] + b.size[0], a.size[1] + b.size[1]);
  };
  std::size_t entered = 0;
  for (const Label& a : left) {
    Sizes room;
    for (std::size_t k = 0; k < kBudgets; ++k) room[k] = limits.room[k] + limits.rounding[k] - a.size[k];
    for (; entered < right.size() && right[entered].size[0] <= room[0]; ++entered) {
      const Label& b = right[entered];
      auto next = least.upper_bound(b.size[1]);
      if (next != least.begin() && std::prev(next)->second->cost <= b.cost) continue;
      // One that costs as much stays: its first size is smaller.
      while (next != least.end() && next->second->cost > b.cost) next = least.erase(next);
      least.insert_or_assign(b.size[1], &b);
    }
    const auto beyond = least.upper_bound(room[1]);
    if (beyond == least.begin()) continue;
    const Label& b = *std::prev(beyond)->second;
    if (a.cost + b.cost > limits.cost) continue;
    if (!best || rank(a, b) < rank(best->first, best->second)) best.emplace(a, b);
  }
  return best;
}

}  // namespace

CoreSearch search_core(const Items& items, const Sizes& budget, const Relaxation& relaxation, double gap,
                       double rounding, std::size_t max_labels) {
  // Ties of all items together come to no more than the rounding.
  const double tie = rounding / static_cast<double>(std::max<std::size_t>(1, items.size()));
  Core core = find_core(items, relaxation.price, budget, gap + 3 * rounding, tie);
  Limits limits{.cost = relaxation.bound + gap + rounding - core.cost, .excess = gap + 3 * rounding};
  for (std::size_t k = 0; k < kBudgets; ++k) {
    limits.room[k] = budget[k] - core.size[k];
    limits.rounding[k] = kBudgetRounding * std::abs(budget[k]);
  }
  CoreSearch search;
  search.least_gap = std::min(gap, reduce_to_attainable(core.items, relaxation.price, limits));
  const std::vector<Sizes> prices = prices_around(relaxation.price);
  std::vector<const CoreItem*> order;
  for (const CoreItem& item : core.items) order.push_back(&item);
  End left(order, limits, prices);
  std::reverse(order.begin(), order.end());
  End right(order, limits, prices);
  search.widest = widest_divided(core.items);
  for (std::size_t i = 0; i < order.size(); ++i) {
    (left.count() <= right.count() ? left : right).advance(max_labels);
    search.labels = left.seen() + right.seen();
    search.complete = search.labels <= max_labels;
    if (!search.complete) break;
  }
  if (const auto pair = best_pair(left.labels(), right.labels(), limits)) {
    search.choice = std::move(core.defaults);
    left.apply(pair->first, *search.choice);
    right.apply(pair->second, *search.choice);
  }
  return search;
}

}  // namespace goshawk::detail
