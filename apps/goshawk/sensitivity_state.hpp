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
  /// another loss, since then its weights or pictures have changed, and when its state is damaged. Both must
  /// outlive this.
  SensitivityState(const RunDirectory& run, const WeightCandidates& candidates, double loss);

  /// The cost as it was stored (without its `pairs`), or what `measure` gives and is stored now.
  MeasuredCosts cost(const std::string& name, const std::function<MeasuredCosts()>& measure);
  /// Removes the state: sensitivity.json has all of it.
  void finish();

 private:
  MeasuredCosts stored(const std::string& name, const nlohmann::json& costs) const;

  const RunDirectory& run_;
  const WeightCandidates& candidates_;
  nlohmann::json state_;
};

}  // namespace goshawk
