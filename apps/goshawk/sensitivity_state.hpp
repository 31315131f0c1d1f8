// What an interrupted goshawk sensitivity has measured already: whole costs, one after the other.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "apps/support/run_directory.hpp"
#include "quant/sensitivities/registry.hpp"

namespace goshawk {

class SensitivityState {
 public:
  /// Of the costs of these candidates, on data of this mean loss. Throws Error when the run began with
  /// another loss, and when its state is damaged. Both must outlive this.
  SensitivityState(const RunDirectory& run, const WeightCandidates& candidates, double loss);

  /// The cost as it was stored (without its `pairs`) if its cost file is still in the run, or what `measure`
  /// gives, having written that file, and is stored now.
  MeasuredCosts cost(const std::string& name, const std::function<MeasuredCosts()>& measure);
  /// Removes the state of a run: sensitivity.json has all of it.
  static void finish(const RunDirectory& run);

 private:
  MeasuredCosts stored(const std::string& name, const nlohmann::json& costs) const;

  const RunDirectory& run_;
  const WeightCandidates& candidates_;
  nlohmann::json state_;
};

}  // namespace goshawk
