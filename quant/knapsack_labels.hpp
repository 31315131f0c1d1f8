// What the searches for knapsack solutions share: dominance between partial solutions. Internal to the
// solver.
#pragma once

#include <algorithm>
#include <iterator>
#include <map>
#include <vector>

#include "quant/knapsack.hpp"

namespace goshawk::detail {

/// Removes labels (with a `size` and a `cost`) that another one beats or equals in sizes and cost; of equal
/// ones the first stays. Sorts the others by size.
template <class Label>
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

}  // namespace goshawk::detail
