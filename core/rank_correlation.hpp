// Rank correlation with an interval.
#pragma once

#include <cstdint>
#include <span>

namespace goshawk {

/// Spearman's rank correlation of two equally long lists, with mean ranks for ties; 0 when either is
/// constant. Throws Error for fewer than 2 pairs, different lengths, and NaN.
double spearman(std::span<const double> x, std::span<const double> y);

/// A correlation, or the difference of two.
struct RankCorrelation {
  double value = 0;
  double low = 0, high = 0;  ///< of the interval
};

/// With the percentile bootstrap interval that holds `level` of `resamples` correlations of pairs drawn with
/// replacement (Efron, "Bootstrap methods: another look at the jackknife", 1979), resample r from the random
/// stream (seed, r). Throws Error as spearman does, for fewer than 100 resamples, and unless 0 < level < 1.
RankCorrelation bootstrap_spearman(std::span<const double> x, std::span<const double> y, int resamples = 2000,
                                   double level = 0.95, std::uint64_t seed = 0);

/// By how much x ranks y better than `other` does: the difference of their correlations with y, with an
/// interval from the same resamples. Two methods that are right about the same pairs are told apart by it
/// long before their own intervals are disjoint. Throws as bootstrap_spearman does.
RankCorrelation bootstrap_spearman_difference(std::span<const double> x, std::span<const double> other,
                                              std::span<const double> y, int resamples = 2000,
                                              double level = 0.95, std::uint64_t seed = 0);

}  // namespace goshawk
