#include "quant/costs.hpp"

#include <algorithm>
#include <limits>

#include "core/file.hpp"
#include "quant/json_file.hpp"

namespace goshawk {
namespace {

// Far above any real network, and sums of them stay exact enough.
constexpr double kMaxSize = 1e18, kMaxCost = 1e100;

CostChoice read_choice(const JsonObject& json) {
  CostChoice choice;
  choice.bits = static_cast<int>(json.integer("bits", 1, 32));
  choice.bytes = json.number("bytes", 0, kMaxSize);
  choice.cost = json.number("cost", -kMaxCost, kMaxCost);
  if (json.has("bops")) choice.bops = json.number("bops", 0, kMaxSize);
  if (json.has("latency_ms")) choice.latency_ms = json.number("latency_ms", 0, kMaxSize);
  return choice;
}

LayerCosts read_layer(const JsonObject& json) {
  LayerCosts layer;
  layer.name = json.string("name");
  layer.parameters = json.integer("parameters", 1, std::int64_t{1} << 53);
  if (json.has("macs")) layer.macs = json.integer("macs", 0, std::int64_t{1} << 53);
  if (json.has("tied")) {
    layer.tied = json.string("tied");
    check(!layer.tied.empty(), "[json] {}: \"tied\" is empty; name a group or leave it out", json.where());
  }
  if (json.has("score")) layer.score = json.number("score");
  for (const JsonObject& entry : json.objects("choices")) layer.choices.push_back(read_choice(entry));
  check(!layer.choices.empty(), "[json] {}: \"choices\" is empty; list the bit widths the layer may take",
        json.where());
  std::sort(layer.choices.begin(), layer.choices.end(),
            [](const CostChoice& a, const CostChoice& b) { return a.bits < b.bits; });
  for (std::size_t i = 1; i < layer.choices.size(); ++i) {
    check(layer.choices[i].bits != layer.choices[i - 1].bits,
          "[json] {}: \"choices\" lists \"bits\" {} twice; remove one", json.where(), layer.choices[i].bits);
  }
  if (json.has("pinned")) {
    layer.pinned = static_cast<int>(json.integer("pinned", 1, 32));
    check(std::any_of(layer.choices.begin(), layer.choices.end(),
                      [&](const CostChoice& choice) { return choice.bits == *layer.pinned; }),
          "[json] {}: \"pinned\" is {}, which is not among the \"bits\" of its \"choices\"; add it there",
          json.where(), *layer.pinned);
  }
  return layer;
}

}  // namespace

const LayerCosts& Costs::layer(std::string_view name) const {
  for (const LayerCosts& candidate : layers) {
    if (candidate.name == name) return candidate;
  }
  fail("[costs] {} has no layer '{}'", source, name);
}

const CostChoice& Costs::choice(std::string_view name, int bits) const {
  for (const CostChoice& candidate : layer(name).choices) {
    if (candidate.bits == bits) return candidate;
  }
  fail("[costs] {} has no choice of {} bits for layer '{}'; measure or list it", source, bits, name);
}

double full_precision_bytes(const Costs& costs) {
  double parameters = 0;
  for (const LayerCosts& layer : costs.layers) parameters += static_cast<double>(layer.parameters);
  return 4 * parameters;
}

Costs with_reversed_scores(Costs costs) {
  for (LayerCosts& layer : costs.layers) {
    if (layer.choices.size() < 2 || layer.pinned) continue;
    check(layer.score.has_value(), "[costs] {}: layer '{}' lacks \"score\", which orders the layers; add it",
          costs.source, layer.name);
    layer.score = -*layer.score;
  }
  return costs;
}

Costs costs_from_json(std::string_view text, const std::string& source) {
  const JsonObject json = JsonObject::parse(text, source);
  Costs costs{.source = source, .layers = json.named_list("layers", read_layer)};
  check(!costs.layers.empty(), "[json] {}: \"layers\" is empty; list at least one layer", source);
  return costs;
}

Costs read_costs(const std::filesystem::path& path) {
  return costs_from_json(read_file(path.string()), path.string());
}

std::string to_json(const Costs& costs) {
  nlohmann::ordered_json json;
  json["layers"] = nlohmann::ordered_json::array();
  for (const LayerCosts& layer : costs.layers) {
    nlohmann::ordered_json entry = {
        {"name", layer.name}, {"parameters", layer.parameters}, {"macs", layer.macs}};
    if (!layer.tied.empty()) entry["tied"] = layer.tied;
    if (layer.pinned) entry["pinned"] = *layer.pinned;
    if (layer.score) entry["score"] = finite(*layer.score, fmt::format("the score of '{}'", layer.name));
    entry["choices"] = nlohmann::ordered_json::array();
    for (const CostChoice& choice : layer.choices) {
      nlohmann::ordered_json c = {{"bits", choice.bits},
                                  {"bytes", choice.bytes},
                                  {"cost", finite(choice.cost, fmt::format("a cost of '{}'", layer.name))}};
      if (choice.bops) c["bops"] = *choice.bops;
      if (choice.latency_ms) c["latency_ms"] = *choice.latency_ms;
      entry["choices"].push_back(std::move(c));
    }
    json["layers"].push_back(std::move(entry));
  }
  return json_text(json);
}

}  // namespace goshawk
