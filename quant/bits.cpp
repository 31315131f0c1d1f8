#include "quant/bits.hpp"

#include "core/file.hpp"
#include "quant/json_file.hpp"
#include "quant/quantizer.hpp"

namespace goshawk {
namespace {

constexpr std::string_view kFormat = "goshawk-bits-1";

int read_width(const JsonObject& json, const char* key) {
  const std::int64_t bits = json.integer(key);
  check((bits >= 1 && bits <= 8) || bits == kFullPrecision,
        "[json] {}: \"{}\" is {}; use 1 to 8, or 32 for not quantized", json.where(), key, bits);
  return static_cast<int>(bits);
}

LayerBits read_layer(const JsonObject& json) {
  return {.name = json.string("name"),
          .parameters = json.integer("parameters", 1, kMaxCount),
          .input_elements = json.integer("input_elements", 0, kMaxCount),
          .weight = read_width(json, "weight_bits"),
          .activation = read_width(json, "activation_bits"),
          .pinned = json.boolean("pinned")};
}

}  // namespace

const LayerBits& BitAssignment::layer(std::string_view name) const {
  for (const LayerBits& layer : layers) {
    if (layer.name == name) return layer;
  }
  fail("[bits] there is no layer '{}' among the {} assigned ones", name, layers.size());
}

double SizeReport::weight_compression() const {
  return 32 * static_cast<double>(weight_count) / static_cast<double>(weight_bits);
}

double SizeReport::total_compression() const {
  return 4 * static_cast<double>(weight_count + other_parameters) / total_bytes();
}

double SizeReport::activation_compression() const {
  return 32 / mean_activation_bits;
}

SizeReport size_report(const BitAssignment& bits, const SizeOptions& options) {
  check(!bits.layers.empty(), "[size_report] the assignment has no layers");
  SizeReport report{.other_parameters = options.other_parameters, .scales = options.scales};
  double sum = 0, elements = 0, weighted = 0;
  std::int64_t counted = 0;
  bool all_known = true;
  for (std::size_t i = 0; i < bits.layers.size(); ++i) {
    const LayerBits& layer = bits.layers[i];
    report.weight_count += layer.parameters;
    report.weight_bits += layer.parameters * layer.weight;
    // A network of one layer has no activation but its input.
    if (i == 0 && !options.count_network_input && bits.layers.size() > 1) continue;
    ++counted;
    sum += layer.activation;
    elements += static_cast<double>(layer.input_elements);
    weighted += static_cast<double>(layer.input_elements) * layer.activation;
    all_known = all_known && layer.input_elements > 0;
  }
  report.mean_activation_bits = sum / static_cast<double>(counted);
  report.mean_activation_bits_by_element = all_known ? weighted / elements : 0;
  return report;
}

BitAssignment uniform_assignment(const std::vector<LayerBits>& layers, int weight_bits, int activation_bits) {
  check_bits(weight_bits, "uniform_assignment");
  check_bits(activation_bits, "uniform_assignment");
  BitAssignment bits{.method = "direct", .layers = layers};
  for (LayerBits& layer : bits.layers) {
    layer.weight = weight_bits;
    layer.activation = activation_bits;
    layer.pinned = false;
  }
  return bits;
}

std::string to_json(const BitAssignment& bits) {
  nlohmann::ordered_json json;
  json["format"] = kFormat;
  json["method"] = bits.method;
  json["budget_bytes"] = finite(bits.budget_bytes, "the budget");
  json["omega"] = finite(bits.omega, "omega");
  if (!bits.layers.empty()) {
    // Derived, for the reader; ignored when the file is read back.
    const SizeReport size = size_report(bits);
    json["size"] = {{"weight_bytes", size.weight_bytes()},
                    {"weight_compression", size.weight_compression()},
                    {"activation_compression", size.activation_compression()}};
  }
  json["layers"] = nlohmann::ordered_json::array();
  for (const LayerBits& layer : bits.layers) {
    json["layers"].push_back({{"name", layer.name},
                              {"parameters", layer.parameters},
                              {"input_elements", layer.input_elements},
                              {"weight_bits", layer.weight},
                              {"activation_bits", layer.activation},
                              {"pinned", layer.pinned}});
  }
  return json_text(json);
}

BitAssignment bits_from_json(std::string_view text, const std::string& source) {
  const JsonObject json = JsonObject::parse(text, source);
  json.require_format(kFormat);
  BitAssignment bits;
  bits.method = json.string("method");
  bits.budget_bytes = json.number("budget_bytes");
  bits.omega = json.number("omega");
  bits.layers = json.named_list("layers", read_layer);
  return bits;
}

void write_bits(const std::filesystem::path& path, const BitAssignment& bits) {
  write_file_atomic(path.string(), to_json(bits));
}

BitAssignment read_bits(const std::filesystem::path& path) {
  return bits_from_json(read_file(path.string()), path.string());
}

}  // namespace goshawk
