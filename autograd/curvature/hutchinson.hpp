// Hutchinson's estimator of traces, of a whole operator or of all its diagonal blocks at once.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "autograd/curvature/operator.hpp"
#include "autograd/curvature/probe.hpp"
#include "autograd/curvature/results.hpp"

namespace goshawk {

/// Everything drawn so far: enough to go on after a break and end with the same bits.
struct HutchinsonState {
  Probe probe = Probe::rademacher;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  /// samples[k][l] = z_lᵀ (H z)_l for probe k and block l.
  std::vector<std::vector<double>> samples;
  /// Σ_k z_lᵀ (H_b z)_l as subset_sums[b][l], for operators with subsets.
  std::vector<std::vector<double>> subset_sums;
};

struct HutchinsonOptions {
  Probe probe = Probe::rademacher;
  /// Probe k is drawn from the random stream (seed, stream + k).
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  /// Stop when the standard error is at most max(relative_error · |mean|, absolute_error) …
  double relative_error = 0.05;
  double absolute_error = 0;
  /// … for every block, or (false) for the trace of the whole operator only. Of use in layer_traces.
  bool every_block = true;
  /// At least 8: a standard error from fewer says little. Stopping early favours runs whose spread looks
  /// small; with 16, intervals cover what they say all the same (docs/curvature/hutchinson.md has the
  /// measurements).
  int min_samples = 16;
  int max_samples = 1000;
  /// Probes per pass over the data (LinearOperator::quadratic_forms). The stop rule is looked at after each
  /// pass.
  int probes_per_pass = 4;
  /// Called after each pass with the state (save it to resume later) and the current estimates, as they would
  /// be returned; returning false ends the loop.
  std::function<bool(const HutchinsonState& state, std::span<const Estimate> estimates)> progress = {};
};

/// Throws Error, naming `op`, for options out of range. Estimators that draw other vectors first call it
/// before they do.
void check_sampling(const HutchinsonOptions& options, std::string_view op);

/// Tr(H) ≈ (1/m) Σ_k z_kᵀ H z_k (Hutchinson, Comm. Stat. Simul. Comput. 19(2), 1990), with its standard
/// error. Never stops on the step of the running mean. A non-null `state` is where to start (as a former call
/// left it, or empty) and is kept up to date. Throws Error for options out of range, a state that does not
/// belong to them, or a sample that is not finite.
Estimate hutchinson(const LinearOperator& a, const HutchinsonOptions& options = {},
                    HutchinsonState* state = nullptr);

/// The trace of each diagonal block, all from the same probes over the whole operator: z_lᵀ (H z)_l is
/// unbiased for Tr(H_ll), but the off-diagonal blocks add to its variance. A probe costs one product with the
/// whole operator; `hutchinson` on each block's own operator has less variance and costs a product a block.
std::vector<Estimate> layer_traces(const LinearOperator& a, const HutchinsonOptions& options = {},
                                   HutchinsonState* state = nullptr);

}  // namespace goshawk
