// What a curvature run has finished, on disk, so that it can go on after a break with the same bits.
#pragma once

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "apps/support/run_directory.hpp"
#include "autograd/curvature/block_traces.hpp"
#include "autograd/curvature/exact_traces.hpp"
#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/lanczos.hpp"
#include "autograd/curvature/results.hpp"
#include "autograd/curvature/spectral_density.hpp"

namespace goshawk {

/// How far an item has come: numbers, written with all their digits, and what is large.
struct Checkpoint {
  nlohmann::ordered_json numbers;  ///< null for an item that begins
  std::vector<std::pair<std::string, Tensor>> tensors;
};

/// checkpoints/curvature.state.json has the results of finished items by name,
/// checkpoints/under_way.safetensors the checkpoint of one that is not.
class CurvatureState {
 public:
  /// Reads what is there.
  explicit CurvatureState(const RunDirectory& run);

  /// The result of item `name`: the stored one, or that of `compute`, which is stored then.
  nlohmann::ordered_json item(const std::string& name,
                              const std::function<nlohmann::ordered_json()>& compute);

  /// What save_under_way stored for item `name`; empty when nothing was.
  Checkpoint under_way(const std::string& name) const;
  /// Stores how far item `name` has come, unless that happened a moment ago. Writing takes a small part of
  /// the time, however much there is to write.
  void save_under_way(const std::string& name, const std::function<Checkpoint()>& make);

 private:
  const RunDirectory& run_;
  nlohmann::ordered_json state_;
  std::optional<std::chrono::steady_clock::time_point> saved_;
  std::chrono::steady_clock::duration writing_{};  // took so long
};

/// {"estimate", "standard_error", "interval_95": [low, high], "samples", "converged"} and, if known,
/// "image_error".
nlohmann::ordered_json to_json(const Estimate& estimate);

Checkpoint checkpoint(const HutchinsonState& state);
Checkpoint checkpoint(const BlockTraceState& state);
Checkpoint checkpoint(const ExactTraceState& state);
Checkpoint checkpoint(const LanczosState& state);
Checkpoint checkpoint(const SpectralDensityState& state);
/// The reverse; an empty checkpoint gives an empty state. Throws Error or nlohmann's exceptions for one of
/// something else.
HutchinsonState hutchinson_state_from(const Checkpoint& from);
BlockTraceState block_trace_state_from(const Checkpoint& from);
ExactTraceState exact_trace_state_from(const Checkpoint& from);
LanczosState lanczos_state_from(const Checkpoint& from);
SpectralDensityState spectral_density_state_from(const Checkpoint& from);

/// The standard error of Σ_b weights[b] · values[b] from the spread of the values over independent subsets of
/// the images (as Estimate::subset_error); null for fewer than two.
nlohmann::ordered_json subset_error(const std::vector<double>& weights, const std::vector<double>& values);

}  // namespace goshawk
