// What the curvature algorithms report: plain structs.
#pragma once

#include <optional>
#include <span>

#include "autograd/curvature/block_vector.hpp"

namespace goshawk {

/// The mean of independent samples.
struct Estimate {
  double value = 0;
  /// Standard deviation of the samples (divisor samples − 1) / √samples; infinite for fewer than two samples.
  double standard_error = 0;
  int samples = 0;
  /// Of the samples (adjusted Fisher–Pearson coefficient); 0 for fewer than three. For confidence_interval.
  double skewness = 0;
  /// The standard error reached the wanted size.
  bool converged = false;
  /// Standard error from the choice of pictures, estimated from the spread between the operator's subsets; a
  /// source of error apart from standard_error, which is that of the random probes on the given pictures.
  /// Absent when the operator has fewer than two subsets. Probe noise makes it a little too large, less so
  /// with more samples.
  std::optional<double> subset_error;
};

/// Mean and standard error of independent samples, summed in their order.
Estimate estimate_mean(std::span<const double> samples);

struct Interval {
  double low = 0;
  double high = 0;
};

/// An interval that contains the exact value with probability `level`: value ± t · standard_error, where t is
/// the quantile of Student's distribution with samples − 1 degrees of freedom, so that few samples give the
/// wide interval that they deserve (2.4 standard errors for 95 % of 8 samples, 1.96 for many). Where the
/// samples are skewed, the end on the side of their tail is moved out to where Hall's transformation (J.
/// Royal Stat. Soc. B 54(1), 1992) puts it. That matters for operators of low rank, where zᵀHz has a long
/// upper tail and the plain interval of few samples fails up to three times as often as it says. It covers
/// the probes only, not the choice of pictures (subset_error). Infinite for fewer than two samples. Throws
/// Error unless 0 < level < 1.
Interval confidence_interval(const Estimate& estimate, double level);

/// λ and v with A v ≈ λ v, ‖v‖ = 1.
struct Eigenpair {
  double value = 0;  ///< vᵀ A v, with its sign
  Vector vector;
  double residual = 0;  ///< ‖A v − λ v‖ / |λ|: an eigenvalue of A lies within residual · |λ| of λ; 0 when A v
                        ///< is zero to working precision
  int iterations = 0;  ///< products A v spent on this pair (by Lanczos: until then, on all pairs together)
  bool converged = false;
};

}  // namespace goshawk
