#include "apps/goshawk/bits_file.hpp"

#include <algorithm>

#include "apps/support/suggestions.hpp"
#include "core/file.hpp"
#include "quant/json_file.hpp"
#include "quant/quantizer.hpp"

namespace goshawk {
namespace {

/// What goshawk allocate writes.
BitAssignment read_allocation(const JsonObject& json, int activation_bits) {
  BitAssignment bits;
  bits.method = json.string("method");
  bits.omega = json.number("objective");
  const JsonObject budget = json.object("budget");
  if (budget.has("bytes")) bits.budget_bytes = budget.number("bytes");
  bits.layers = json.named_list("layers", [&](const JsonObject& entry) {
    return LayerBits{.name = entry.string("name"),
                     .weight = static_cast<int>(entry.integer("bits", 1, kFullPrecision)),
                     .activation = activation_bits};
  });
  return bits;
}

}  // namespace

BitAssignment read_bits_for(const std::string& path, const std::vector<LayerBits>& layers,
                            int activation_bits) {
  const std::string text = read_file(path);
  const JsonObject json = JsonObject::parse(text, path);
  const bool has_format = json.has("format");
  BitAssignment bits = has_format ? bits_from_json(text, path) : read_allocation(json, activation_bits);
  std::vector<std::string> names;
  for (const LayerBits& layer : layers) names.push_back(layer.name);
  for (const LayerBits& given : bits.layers) {
    check(std::find(names.begin(), names.end(), given.name) != names.end(),
          "[bits] {}: the model has no layer '{}'; did you mean {}?", path, given.name,
          nearest_names(given.name, names, 1));
  }
  std::vector<LayerBits> ordered;
  for (const LayerBits& layer : layers) {
    const auto given = std::find_if(bits.layers.begin(), bits.layers.end(),
                                    [&](const LayerBits& b) { return b.name == layer.name; });
    check(given != bits.layers.end(),
          "[bits] {}: layer '{}' of the model is missing; give it bits, 32 to "
          "leave it as it is",
          path, layer.name);
    check(!has_format || given->parameters == layer.parameters,
          "[bits] {}: layer '{}' has {} weights but that of the model has {}; the file is another model's",
          path, layer.name, given->parameters, layer.parameters);
    check_bits(given->weight, fmt::format("{}, layer '{}'", path, layer.name));
    check_bits(given->activation, fmt::format("{}, layer '{}'", path, layer.name));
    LayerBits& entry = ordered.emplace_back(*given);
    entry.parameters = layer.parameters;
    entry.input_elements = layer.input_elements;
  }
  bits.layers = std::move(ordered);
  return bits;
}

}  // namespace goshawk
