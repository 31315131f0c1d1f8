#include "quant/costs.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

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

bool narrower(const CostChoice& a, const CostChoice& b) {
  return a.bits < b.bits;
}

/// `sorted`: whether the choices stand in the file by growing bits.
LayerCosts read_layer(const JsonObject& json, bool& sorted) {
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
  sorted = std::is_sorted(layer.choices.begin(), layer.choices.end(), narrower);
  std::sort(layer.choices.begin(), layer.choices.end(), narrower);
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

std::vector<double> read_pairs(const nlohmann::json& rows, std::size_t count, const std::string& where) {
  const std::string what = fmt::format(
      "[json] {}: \"pair_costs\" must be a list of {} lists of 0, 1, 2, … numbers, one list for "
      "each choice",
      where, count);
  check(rows.is_array() && rows.size() == count, "{}", what);
  std::vector<double> pairs(count * count);
  for (std::size_t k = 0; k < count; ++k) {
    check(rows[k].is_array() && rows[k].size() == k, "{}", what);
    for (std::size_t j = 0; j < k; ++j) {
      check(rows[k][j].is_number(), "{}", what);
      const double value = rows[k][j].get<double>();
      check(std::abs(value) <= kMaxCost, "[json] {}: \"pair_costs\" holds {}, which is too large", where,
            value);
      pairs[k * count + j] = pairs[j * count + k] = value;
    }
  }
  return pairs;
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
  bool sorted = true;
  std::size_t choices = 0;
  const auto read = [&](const JsonObject& entry) {
    bool layer_sorted = true;
    LayerCosts layer = read_layer(entry, layer_sorted);
    sorted = sorted && layer_sorted;
    choices += layer.choices.size();
    return layer;
  };
  Costs costs{.source = source, .layers = json.named_list("layers", read)};
  check(!costs.layers.empty(), "[json] {}: \"layers\" is empty; list at least one layer", source);
  if (json.has("pair_costs")) {
    check(sorted, "[json] {}: \"choices\" must stand by growing \"bits\" where there are \"pair_costs\"",
          source);
    costs.pairs = read_pairs(json.json().at("pair_costs"), choices, source);
  }
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
  std::size_t choices = 0;
  for (const LayerCosts& layer : costs.layers) choices += layer.choices.size();
  for (std::size_t k = 0; !costs.pairs.empty() && k < choices; ++k) {
    nlohmann::ordered_json row = nlohmann::ordered_json::array();
    for (std::size_t j = 0; j < k; ++j) row.push_back(finite(costs.pairs[k * choices + j], "a pair's cost"));
    json["pair_costs"].push_back(std::move(row));
  }
  return json_text(json);
}

void add_latencies(Costs& costs, const std::filesystem::path& path) {
  const JsonObject json = JsonObject::parse(read_file(path.string()), path.string());
  json.named_list("layers", [&](const JsonObject& entry) {
    const std::string name = entry.string("name");
    const auto same_name = [&](const LayerCosts& layer) { return layer.name == name; };
    const auto layer = std::find_if(costs.layers.begin(), costs.layers.end(), same_name);
    check(layer != costs.layers.end(), "[costs] {}: there is no such layer", entry.where());
    std::set<std::int64_t> seen;
    for (const JsonObject& timed : entry.objects("choices")) {
      const std::int64_t bits = timed.integer("bits", 1, 32);
      check(seen.insert(bits).second, "[costs] {}: {} bits are listed twice", entry.where(), bits);
      for (CostChoice& choice : layer->choices) {
        if (choice.bits == bits) choice.latency_ms = timed.number("latency_ms", 0, kMaxSize);
      }
    }
    return name;
  });
}

}  // namespace goshawk
