#include "quant/knapsack_defaults.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/random.hpp"

namespace goshawk::detail {
namespace {

// An item that has several options that are the cheapest at the prices.
struct Open {
  std::size_t item;
  std::vector<int> options;
  Sizes least{}, most{};
  Sizes target{};  // what it should use
};

std::size_t cheapest(const std::vector<KnapsackOption>& item, const Sizes& price) {
  const std::vector<double> priced = priced_costs(item, price);
  return static_cast<std::size_t>(std::min_element(priced.begin(), priced.end()) - priced.begin());
}

// Which options are the cheapest, if they are several.
std::optional<Open> open_item(const Items& items, std::size_t i, const Sizes& price, double tie) {
  const std::vector<double> priced = priced_costs(items[i], price);
  const double least = *std::min_element(priced.begin(), priced.end());
  Open open{.item = i, .options = {}};
  for (std::size_t j = 0; j < priced.size(); ++j) {
    if (priced[j] - least > tie) continue;
    const Sizes& size = items[i][j].size;
    for (std::size_t k = 0; k < kBudgets; ++k) {
      open.least[k] = open.options.empty() ? size[k] : std::min(open.least[k], size[k]);
      open.most[k] = open.options.empty() ? size[k] : std::max(open.most[k], size[k]);
    }
    open.options.push_back(static_cast<int>(j));
  }
  if (open.options.size() == 1) return std::nullopt;
  return open;
}

// Targets of the first `many` open items that together use what is left of the budgets: a solution of the
// linear programme that fills those that have a price, and not quite those that have none.
void fill_budgets(const Items& items, const Sizes& price, Sizes left, std::vector<Open>& open,
                  std::size_t many) {
  static constexpr double kApart = 1e-4;  // what options gain differs so much, so that few items are divided
  static constexpr double kAmple = 0.98;
  Random random(0);
  Items fill;
  Sizes least{};
  for (std::size_t n = 0; n < many; ++n) {
    fill.emplace_back();
    for (int j : open[n].options) {
      const Sizes& size = items[open[n].item][static_cast<std::size_t>(j)].size;
      fill.back().push_back({size, -dot(price, size) * (1 + kApart * random.uniform())});
    }
    for (std::size_t k = 0; k < kBudgets; ++k) least[k] += open[n].least[k];
  }
  for (std::size_t k = 0; k < kBudgets; ++k) {
    if (price[k] == 0 && left[k] > least[k]) left[k] = least[k] + kAmple * (left[k] - least[k]);
  }
  const Sizes prices = best_prices(fill, left, Assignments::all).price;
  for (std::size_t n = 0; n < many; ++n) open[n].target = fill[n][cheapest(fill[n], prices)].size;
}

}  // namespace

std::vector<double> priced_costs(const std::vector<KnapsackOption>& item, const Sizes& price) {
  std::vector<double> priced;
  priced.reserve(item.size());
  for (const KnapsackOption& option : item) priced.push_back(option.cost + dot(price, option.size));
  return priced;
}

std::vector<int> cheapest_near_budget(const Items& items, const Sizes& price, const Sizes& budget,
                                      double tie) {
  static constexpr std::size_t kSmallest = 16;  // items that are left to fill with
  std::vector<int> choice;
  std::vector<Open> open;
  Sizes above{};  // the budgets, if all open items meet their targets
  for (std::size_t k = 0; k < kBudgets; ++k) above[k] = -budget[k];
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::size_t best = cheapest(items[i], price);
    choice.push_back(static_cast<int>(best));
    if (auto several = open_item(items, i, price, tie)) {
      open.push_back(*std::move(several));
    } else {
      for (std::size_t k = 0; k < kBudgets; ++k) above[k] += items[i][best].size[k];
    }
  }
  if (open.empty()) return choice;

  Sizes range{};
  for (const Open& o : open) {
    for (std::size_t k = 0; k < kBudgets; ++k) range[k] += o.most[k] - o.least[k];
  }
  Sizes paid = price;  // one within rounding is none
  for (std::size_t k = 0; k < kBudgets; ++k) {
    if (price[k] * range[k] <= tie * static_cast<double>(items.size())) paid[k] = 0;
  }
  const auto apart = [&](const Open& o) {
    double sum = 0;
    for (std::size_t k = 0; k < kBudgets; ++k) {
      if (range[k] > 0) sum += (o.most[k] - o.least[k]) / range[k];
    }
    return sum;
  };
  std::stable_sort(open.begin(), open.end(),
                   [&](const Open& a, const Open& b) { return apart(a) > apart(b); });
  const std::size_t many = open.size() - std::min(open.size() / 2, kSmallest);
  for (std::size_t k = 0; k < kBudgets; ++k) {
    for (std::size_t n = many; n < open.size(); ++n) {
      open[n].target[k] = (open[n].least[k] + open[n].most[k]) / 2;
      above[k] += open[n].target[k];
    }
  }
  fill_budgets(items, paid, {-above[0], -above[1]}, open, many);
  for (std::size_t k = 0; k < kBudgets; ++k) {
    for (std::size_t n = 0; n < many; ++n) above[k] += open[n].target[k];
  }
  for (const Open& o : open) {
    for (std::size_t k = 0; k < kBudgets; ++k) above[k] -= o.target[k];
    const auto off = [&](int j) {
      const Sizes& size = items[o.item][static_cast<std::size_t>(j)].size;
      double sum = 0;
      for (std::size_t k = 0; k < kBudgets; ++k) {
        const double more = above[k] + size[k];
        if (range[k] > 0) sum += (paid[k] > 0 ? std::abs(more) : std::max(0.0, more)) / range[k];
      }
      return sum;
    };
    const int best =
        *std::min_element(o.options.begin(), o.options.end(), [&](int a, int b) { return off(a) < off(b); });
    choice[o.item] = best;
    for (std::size_t k = 0; k < kBudgets; ++k) {
      above[k] += items[o.item][static_cast<std::size_t>(best)].size[k];
    }
  }
  return choice;
}

}  // namespace goshawk::detail
