// What goshawk sensitivity writes: sensitivity.json and the table made of it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "quant/sensitivities/activation_costs.hpp"
#include "quant/sensitivities/registry.hpp"

namespace goshawk {

/// The file of a run that has a cost for goshawk allocate: "costs-fisher.json".
std::string cost_file_name(const std::string& name);

/// Layers with what is known of each, cost by cost and width by width.
nlohmann::ordered_json sensitivity_layers(const WeightCandidates& candidates,
                                          const std::vector<MeasuredCosts>& measured);
/// Name, formula, source, seconds and file of each cost.
nlohmann::ordered_json sensitivity_methods_json(const std::vector<MeasuredCosts>& measured);
nlohmann::ordered_json activation_layers_json(const std::vector<ActivationLayerCosts>& layers);

/// The table for people, of the whole of sensitivity.json. Throws nlohmann's exception for anything else, as
/// RunDirectory::read_json expects.
std::string sensitivity_table(const nlohmann::ordered_json& sensitivity);

}  // namespace goshawk
