// What goshawk sensitivity writes: sensitivity.json and the table made of it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "quant/sensitivities/activation_costs.hpp"
#include "quant/sensitivities/registry.hpp"

namespace goshawk {

/// Layers with what is known of each, cost by cost and width by width.
nlohmann::ordered_json sensitivity_layers(const WeightCandidates& candidates,
                                          const std::vector<MeasuredCosts>& measured);
/// Name, formula, source, seconds and file of each cost.
nlohmann::ordered_json sensitivity_methods_json(const std::vector<MeasuredCosts>& measured);
nlohmann::ordered_json activation_layers_json(const std::vector<ActivationLayerCosts>& layers);

/// How a budget on activations counts them.
enum class ActivationCount : std::uint8_t {
  layers,    ///< every input once: a budget ratio is the papers' A-comp, 32 over the plain mean of the bits
  elements,  ///< by the elements of the input
};
/// The inputs of all layers but the network's own, whose quantizer is the user's affair, as costs that the
/// allocators take: parameters and bytes are those of the count. `exact`: the expansion's first and second
/// order in place of HAWQ-V2's cost.
Costs activation_cost_file(const std::vector<ActivationLayerCosts>& layers, ActivationCount count,
                           bool exact);

/// The table for people, of the whole of sensitivity.json.
std::string sensitivity_table(const nlohmann::ordered_json& sensitivity);

}  // namespace goshawk
