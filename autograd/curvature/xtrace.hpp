// XTrace: every probe serves as sketch for the others and as sample beside their sketch.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "autograd/curvature/operator.hpp"
#include "autograd/curvature/results.hpp"

namespace goshawk {

/// Everything known so far: enough to go on after a break and end with the same bits. With probes
/// Ω = [ω_1 … ω_k] and A Ω = Q R:
struct XTraceState {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  std::vector<Vector> basis;                   ///< Q, orthonormal
  std::vector<std::vector<double>> triangle;   ///< R by columns, without the zeros below its diagonal
  std::vector<std::vector<double>> projected;  ///< Qᵀ A Q, the lower triangle by rows
  std::vector<std::vector<double>> overlap;    ///< Qᵀ Ω by rows
  int products = 0;                            ///< A v so far

  int probes() const { return static_cast<int>(triangle.size()); }
};

struct XTraceOptions {
  /// Probe k is drawn from the random stream (seed, stream + k), uniformly from the sphere of radius √n.
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  /// Stop when the standard error is at most max(relative_error · |trace|, absolute_error).
  double relative_error = 0.05;
  double absolute_error = 0;
  /// Each costs two products and memory for two vectors.
  int min_probes = 8;
  int max_probes = 200;
  /// Probes per pass over the data (LinearOperator::apply_many, twice). The stop rule is looked at after each
  /// pass.
  int probes_per_pass = 4;
  /// Called after each pass with the state (save it to resume later) and the estimate; returning false ends
  /// the loop.
  std::function<bool(const XTraceState& state, const Estimate& estimate)> progress = {};
};

/// Tr(A) ≈ (1/k) Σ_i t_i, where t_i is the Hutch++ estimate with all probes but i as sketch and ω_i as the
/// only sample: t_i = tr(Q_iᵀ A Q_i) + c_i ω_iᵀ P_i A P_i ω_i, P_i = I − Q_i Q_iᵀ, with Q_i an orthonormal
/// basis of A [ω_j]_{j≠i} and c_i = (n − k + 1) / ‖P_i ω_i‖² (Epperly, Tropp & Webber, "XTrace", SIAM J.
/// Matrix Anal. Appl. 45(1), 2024). All of them follow from one QR factorisation, 2k products in all.
/// Unbiased.
///
/// The t_i share their probes, so the spread between them alone, Σ_i (t_i − mean)² / (k (k − 1)), which the
/// paper suggests, makes the error too small by up to a half. The covariance of two of them is added, from
/// the estimates t_{i|j} that leave a second probe j out of the sketch:
///
///     standard_error² = Σ_i (t_i − mean)² / (k (k − 1)) + max(0, mean over i ≠ j of (t_i − t_{i|j}) (t_j −
///     t_{j|i})),
///
/// which without the max is unbiased for the variance of the mean, for any A
/// (docs/curvature/hutchpp_and_xtrace.md has the proof), and never less than the rounding of tr(Qᵀ A Q). It
/// needs no products, and k³ operations each time.
///
/// Where all of the spectrum but an outlier is a multiple of the identity, all t_i may miss the outlier
/// together: of 99 eigenvalues of 1 and one of 3, 95 % intervals from 8 probes cover the trace in 91 % of
/// runs, and 3 % are more than six standard errors off (10 rows, one eigenvalue of 1.3: 89 % and 6 %). Leave
/// a known multiple of the identity, such as damping, out of A.
///
/// Never more probes than the operator has rows; with as many, be it one, the trace is exact up to rounding.
/// A non-null `state` is where to start (as a former call left it, or empty) and is kept up to date. Throws
/// Error for options out of range, a state that does not belong to them, or a product that is not finite.
Estimate xtrace(const LinearOperator& a, const XTraceOptions& options = {}, XTraceState* state = nullptr);

}  // namespace goshawk
