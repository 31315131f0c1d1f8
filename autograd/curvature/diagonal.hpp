// The diagonal of an operator, element by element with error bars.
#pragma once

#include <cstdint>
#include <functional>

#include "autograd/curvature/operator.hpp"

namespace goshawk {

/// Everything drawn so far: enough to go on after a break and end with the same bits. Vectors are never
/// changed in place once they are here.
struct DiagonalState {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  int samples = 0;
  Vector mean;     ///< of z ⊙ A z (f64)
  Vector squares;  ///< Σ_k (z_k ⊙ A z_k − mean)² (f64)
};

/// diag(A), with the blocks of the operator, in f64.
struct DiagonalEstimate {
  Vector value;
  /// Standard error of each element over the probes.
  Vector standard_error;
  /// ‖standard_error‖ / ‖value‖: the expected relative error of the diagonal as a whole.
  double relative_error = 0;
  int samples = 0;
  bool converged = false;
};

struct DiagonalOptions {
  /// Rademacher probe k is drawn from the random stream (seed, stream + k).
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  /// Stop when ‖standard errors‖ ≤ relative_error · ‖diagonal‖.
  double relative_error = 0.1;
  /// Rademacher probes of few rows repeat each other: of a 2×2 operator all of 8 give the same sample, which
  /// looks exact, in one run of 128, all of 16 in one of 32,768.
  int min_samples = 16;
  int max_samples = 1000;
  /// Probes per pass over the data (LinearOperator::apply_many). The stop rule is looked at after each pass.
  int probes_per_pass = 4;
  /// Called after each pass with the state (save it to resume later) and the relative error reached;
  /// returning false ends the loop.
  std::function<bool(const DiagonalState& state, double relative_error)> progress = {};
};

/// diag(A) ≈ (1/m) Σ_k z_k ⊙ A z_k with Rademacher probes (Bekas, Kokiopoulou & Saad, Appl. Numer. Math.
/// 57(11–12), 2007; their divisor Σ z ⊙ z is m here). Unbiased; one probe's variance of element i is
/// Σ_{j≠i} A_ij². A non-null `state` is where to start (as a former call left it, or empty) and is kept up to
/// date. Throws Error for options out of range, a state that does not belong to them, or a product that is
/// not finite.
DiagonalEstimate diagonal(const LinearOperator& a, const DiagonalOptions& options = {},
                          DiagonalState* state = nullptr);

}  // namespace goshawk
