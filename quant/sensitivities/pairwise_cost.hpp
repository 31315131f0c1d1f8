// A cost of assignments with a term for every item's option and for every pair of them.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace goshawk {

/// cost(choice) = Σ_i own(i, choice_i) + Σ_{i<j} pair(i, choice_i; j, choice_j). Options are numbered through
/// the items: number(i, b) is the number of options before item i, plus b.
class PairwiseCost {
 public:
  /// `options`: how many each item has; own: one for each option of all items, K in all; pairs: [K, K] row by
  /// row, symmetric, of which entries within one item are not used. Throws Error when sizes do not fit or a
  /// number is not finite.
  PairwiseCost(std::vector<std::size_t> options, std::vector<double> own, std::vector<double> pairs);

  std::size_t items() const { return begin_.size() - 1; }
  std::size_t options(std::size_t i) const { return begin_[i + 1] - begin_[i]; }
  std::size_t size() const { return own_.size(); }  ///< K
  std::size_t number(std::size_t i, int option) const { return begin_[i] + static_cast<std::size_t>(option); }
  double own(std::size_t k) const { return own_[k]; }
  double pair(std::size_t k, std::size_t other) const { return pairs_[k * own_.size() + other]; }

  /// Throws Error for a choice that is none.
  double cost(std::span<const int> choice) const;

  /// The same cost for groups of items that choose together: members[g] are the items of group g, and
  /// options[g][o] is the option of each of them (in the order of the members) that option o stands for. A
  /// pinned item is a group with one option. Every item must be in exactly one group.
  struct Group {
    std::vector<std::size_t> members;
    std::vector<std::vector<int>> options;
  };
  PairwiseCost grouped(std::span<const Group> groups) const;

 private:
  std::vector<std::size_t> begin_;
  std::vector<double> own_, pairs_;
};

}  // namespace goshawk
