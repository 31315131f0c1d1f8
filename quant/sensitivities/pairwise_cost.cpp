#include "quant/sensitivities/pairwise_cost.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.hpp"

namespace goshawk {

PairwiseCost::PairwiseCost(std::vector<std::size_t> options, std::vector<double> own,
                           std::vector<double> pairs)
    : begin_{0}, own_(std::move(own)), pairs_(std::move(pairs)) {
  for (std::size_t count : options) {
    check(count > 0, "[PairwiseCost] item {} has no option", begin_.size() - 1);
    begin_.push_back(begin_.back() + count);
  }
  const std::size_t k = begin_.back();
  check(own_.size() == k && pairs_.size() == k * k,
        "[PairwiseCost] {} options need {} own costs and {} of pairs, not {} and {}", k, k, k * k,
        own_.size(), pairs_.size());
  const auto finite = [](double v) { return std::isfinite(v); };
  check(std::all_of(own_.begin(), own_.end(), finite) && std::all_of(pairs_.begin(), pairs_.end(), finite),
        "[PairwiseCost] a cost is not finite; check what it was made from");
}

double PairwiseCost::cost(std::span<const int> choice) const {
  check(choice.size() == items(), "[PairwiseCost] there are {} choices for {} items", choice.size(), items());
  double total = 0;
  for (std::size_t i = 0; i < choice.size(); ++i) {
    check(choice[i] >= 0 && static_cast<std::size_t>(choice[i]) < options(i),
          "[PairwiseCost] option {} of item {} is outside 0 … {}", choice[i], i, options(i) - 1);
    const std::size_t k = number(i, choice[i]);
    total += own_[k];
    for (std::size_t j = 0; j < i; ++j) total += pair(k, number(j, choice[j]));
  }
  return total;
}

PairwiseCost PairwiseCost::grouped(std::span<const Group> groups) const {
  std::vector<int> uses(items());
  std::vector<std::size_t> counts;
  std::vector<std::vector<std::size_t>> parts;  // of each option of each group
  for (const Group& group : groups) {
    counts.push_back(group.options.size());
    for (std::size_t i : group.members) {
      check(i < items(), "[PairwiseCost] there is no item {}; there are {}", i, items());
      ++uses[i];
    }
    for (const std::vector<int>& option : group.options) {
      auto& numbers = parts.emplace_back();
      check(option.size() == group.members.size(), "[PairwiseCost] an option of {} items names {}",
            group.members.size(), option.size());
      for (std::size_t m = 0; m < option.size(); ++m) numbers.push_back(number(group.members[m], option[m]));
    }
  }
  check(std::all_of(uses.begin(), uses.end(), [](int n) { return n == 1; }),
        "[PairwiseCost] every item must be in exactly one group");
  std::vector<double> own(parts.size()), pairs(parts.size() * parts.size());
  for (std::size_t a = 0; a < parts.size(); ++a) {
    for (std::size_t i = 0; i < parts[a].size(); ++i) {
      own[a] += own_[parts[a][i]];
      for (std::size_t j = 0; j < i; ++j) own[a] += pair(parts[a][i], parts[a][j]);
    }
    for (std::size_t b = 0; b < parts.size(); ++b) {
      for (std::size_t k : parts[a]) {
        for (std::size_t other : parts[b]) pairs[a * parts.size() + b] += pair(k, other);
      }
    }
  }
  return {std::move(counts), std::move(own), std::move(pairs)};
}

}  // namespace goshawk
