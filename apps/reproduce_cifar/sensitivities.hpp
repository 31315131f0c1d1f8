// The sensitivities that the rows ask for, measured when the first one needs them and kept in the run.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "apps/reproduce_cifar/experiment.hpp"
#include "quant/costs.hpp"

namespace goshawk {

class Sensitivities {
 public:
  explicit Sensitivities(const Experiment& experiment) : experiment_(experiment) {}

  /// The costs that measure(name) of SensitivityMeasurement finds (docs/sensitivity.md), for the run's
  /// candidate widths and weight quantizer; kept as costs-NAME.json. "hawq" and "hawq-v2" are measured
  /// together and leave sensitivity.json. One thread of one process at a time measures.
  const Costs& costs(const std::string& name);
  /// HAWQ-V2's costs of the layers' inputs at the run's candidate widths, every input counted once; kept as
  /// costs-activations.json. Quantizers that learn their range are taken at the calibrated one.
  const Costs& activation_costs() { return costs(kActivations); }

 private:
  static constexpr const char* kActivations = "activations";

  void measure(const std::string& name) const;
  void measure_activations() const;
  void measure_weights(const std::vector<std::string>& names) const;

  const Experiment& experiment_;
  std::mutex mutex_;
  std::map<std::string, Costs> known_;
};

}  // namespace goshawk
