#include "core/rank_correlation.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "core/random.hpp"

namespace goshawk {
namespace {

/// Ranks less their mean; equal values share the mean of their ranks.
std::vector<double> centred_ranks(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  const double middle = (static_cast<double>(values.size()) - 1) / 2;
  for (std::size_t begin = 0; begin < order.size();) {
    std::size_t end = begin + 1;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    const double rank = static_cast<double>(begin + end - 1) / 2 - middle;
    for (std::size_t i = begin; i < end; ++i) ranks[order[i]] = rank;
    begin = end;
  }
  return ranks;
}

double correlation(std::span<const double> x, std::span<const double> y) {
  const std::vector<double> a = centred_ranks(x), b = centred_ranks(y);
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

void check_pairs(std::span<const double> x, std::span<const double> y) {
  check(x.size() == y.size() && x.size() >= 2,
        "[spearman] there are {} and {} values; give two or more pairs", x.size(), y.size());
  const auto nan = [](double v) { return std::isnan(v); };
  check(std::none_of(x.begin(), x.end(), nan) && std::none_of(y.begin(), y.end(), nan),
        "[spearman] a value is not a number, which has no rank");
}

using Lists = std::vector<std::vector<double>>;

/// What `statistic` says of the lists, the last of which is paired with each of the others, and of resamples
/// of their entries.
template <class Statistic>
RankCorrelation bootstrap(const std::vector<std::span<const double>>& lists, int resamples, double level,
                          std::uint64_t seed, Statistic statistic) {
  Lists all;
  for (const std::span<const double> list : lists) {
    check_pairs(list, lists.back());
    all.emplace_back(list.begin(), list.end());
  }
  check(resamples >= 100 && level > 0 && level < 1,
        "[bootstrap_spearman] {} resamples for a level of {}; give 100 or more, and a level in (0, 1)",
        resamples, level);
  std::vector<double> values(static_cast<std::size_t>(resamples));
  const std::size_t n = all[0].size();
  parallel_for(resamples, 16, [&](std::int64_t begin, std::int64_t end) {
    Lists drawn = all;
    for (std::int64_t r = begin; r < end; ++r) {
      Random random(seed, static_cast<std::uint64_t>(r));
      for (std::size_t i = 0; i < n; ++i) {
        const auto k = static_cast<std::size_t>(random.below(n));
        for (std::size_t list = 0; list < all.size(); ++list) drawn[list][i] = all[list][k];
      }
      values[static_cast<std::size_t>(r)] = statistic(drawn);
    }
  });
  std::sort(values.begin(), values.end());
  const auto at = [&](double p) {
    return values[static_cast<std::size_t>(std::llround(p * static_cast<double>(resamples - 1)))];
  };
  return {statistic(all), at((1 - level) / 2), at((1 + level) / 2)};
}

}  // namespace

double spearman(std::span<const double> x, std::span<const double> y) {
  check_pairs(x, y);
  return correlation(x, y);
}

RankCorrelation bootstrap_spearman(std::span<const double> x, std::span<const double> y, int resamples,
                                   double level, std::uint64_t seed) {
  return bootstrap({x, y}, resamples, level, seed,
                   [](const Lists& drawn) { return correlation(drawn[0], drawn[1]); });
}

RankCorrelation bootstrap_spearman_difference(std::span<const double> x, std::span<const double> other,
                                              std::span<const double> y, int resamples, double level,
                                              std::uint64_t seed) {
  return bootstrap({x, other, y}, resamples, level, seed, [](const Lists& drawn) {
    return correlation(drawn[0], drawn[2]) - correlation(drawn[1], drawn[2]);
  });
}

}  // namespace goshawk
