// Hutch++: the trace as an exact part on a sketched subspace and a random part beside it.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/operator.hpp"
#include "autograd/curvature/results.hpp"

namespace goshawk {

/// Everything known so far: enough to go on after a break and end with the same bits. Vectors are never
/// changed in place once they are here.
struct HutchppState {
  Probe probe = Probe::rademacher;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  int rank = 0;
  int sketched = 0;              ///< sketch vectors multiplied so far
  std::vector<Vector> basis;     ///< Q: orthonormal, spans A S for the sketch vectors S multiplied so far
  std::vector<double> captured;  ///< qᵀ A q of each vector of Q whose product is known
  /// The same subset by subset, as captured_subsets[k][b], for operators with subsets.
  std::vector<std::vector<double>> captured_subsets;
  HutchinsonState residual;  ///< its samples are tr(Qᵀ A Q) + zᵀ P A P z

  /// A v so far.
  int products() const {
    return sketched + static_cast<int>(captured.size()) + static_cast<int>(residual.samples.size());
  }
};

struct HutchppOptions {
  /// Sketch vectors: the part of A that they catch needs no sampling. They cost 2 · rank products.
  int rank = 16;
  Probe probe = Probe::rademacher;
  /// Sketch vector i is drawn from the random stream (seed, stream + i), probe k from (seed, stream + rank +
  /// k).
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  /// Stop when the standard error is at most max(relative_error · |trace|, absolute_error).
  double relative_error = 0.05;
  double absolute_error = 0;
  int min_samples = 16;  ///< probes beside the sketch; at least 8
  int max_samples = 1000;
  /// Vectors per pass over the data. The stop rule is looked at after each pass.
  int probes_per_pass = 4;
  /// Called after each pass with the state (save it to resume later) and the estimate, which has no samples
  /// before the sketch is complete; returning false ends the loop.
  std::function<bool(const HutchppState& state, const Estimate& estimate)> progress = {};
};

/// Tr(A) = tr(Qᵀ A Q) + Tr(P A P), with Q an orthonormal basis of A S for `rank` random vectors S and
/// P = I − Q Qᵀ: the first term exactly, the second by Hutchinson's estimator (Hutch++: Meyer, Musco, Musco &
/// Woodruff, SOSA 2021). Unbiased for any symmetric A. The samples are given Q independent, so standard_error
/// and the interval mean what they say: they cover the probes z, the only random part of the error once Q is
/// drawn; Q decides how large it is. Ended before there are samples, the estimate has none and an infinite
/// standard error. A non-null `state` is where to start (as a former call left it, or empty) and is kept up
/// to date. Throws Error for options out of range, a state that does not belong to them, or a product that is
/// not finite.
Estimate hutchpp(const LinearOperator& a, const HutchppOptions& options = {}, HutchppState* state = nullptr);

}  // namespace goshawk
