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

/// λ and v with A v ≈ λ v, ‖v‖ = 1.
struct Eigenpair {
  double value = 0;  ///< vᵀ A v, with its sign
  Vector vector;
  double residual = 0;  ///< ‖A v − λ v‖ / |λ|: an eigenvalue of A lies within residual · |λ| of λ; 0 when A v
                        ///< is zero to working precision
  int iterations = 0;  ///< products A v spent on this pair
  bool converged = false;
};

}  // namespace goshawk
