// What a curvature run has finished, on disk, so that it can go on after a break with the same bits.
#pragma once

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/support/run_directory.hpp"
#include "autograd/curvature/block_traces.hpp"
#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/results.hpp"

namespace goshawk {

/// checkpoints/curvature.state.json: the results of finished items by name, and what the one under way needs
/// to go on. Numbers are written with all their digits.
class CurvatureState {
 public:
  /// Reads what is there.
  explicit CurvatureState(const RunDirectory& run);

  /// The result of item `name`: the stored one, or that of `compute`, which is stored then.
  nlohmann::ordered_json item(const std::string& name,
                              const std::function<nlohmann::ordered_json()>& compute);

  /// What save_under_way stored for item `name`; null when nothing was.
  nlohmann::ordered_json under_way(const std::string& name) const;
  /// Stores how far item `name` has come, unless that happened a moment ago.
  void save_under_way(const std::string& name, const std::function<nlohmann::ordered_json()>& state);

 private:
  void write();

  const RunDirectory& run_;
  nlohmann::ordered_json state_;
  std::chrono::steady_clock::time_point saved_ = std::chrono::steady_clock::now();
};

/// {"estimate", "standard_error", "interval_95": [low, high], "samples", "converged"} and, if known,
/// "image_error".
nlohmann::ordered_json to_json(const Estimate& estimate);

nlohmann::ordered_json to_json(const HutchinsonState& state);
nlohmann::ordered_json to_json(const BlockTraceState& state);
/// The reverse. Throws nlohmann's exceptions for anything else; null gives an empty state.
HutchinsonState hutchinson_state_from(const nlohmann::ordered_json& json);
BlockTraceState block_trace_state_from(const nlohmann::ordered_json& json);

/// The standard error of Σ_b weights[b] · values[b] from the spread of the values over independent subsets of
/// the images (as Estimate::subset_error); null for fewer than two.
nlohmann::ordered_json subset_error(const std::vector<double>& weights, const std::vector<double>& values);

}  // namespace goshawk
