#include "quant/sensitivity.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/file.hpp"
#include "quant/json_file.hpp"
#include "quant/quantizer.hpp"

namespace goshawk {
namespace {

constexpr std::string_view kFormat = "goshawk-sensitivity-1";

LayerSensitivity read_layer(const JsonObject& json) {
  LayerSensitivity layer;
  layer.name = json.string("name");
  layer.parameters = json.integer("parameters", 1, kMaxCount);
  layer.macs = json.integer("macs", 0, kMaxCount);
  layer.input_elements = json.integer("input_elements", 0, kMaxCount);
  layer.lambda_max = json.number("lambda_max");
  layer.lambda_residual = json.number("lambda_residual");
  const JsonObject trace = json.object("trace");
  layer.trace.value = trace.number("value");
  layer.trace.standard_error = trace.number("standard_error");
  layer.trace.samples = trace.integer("samples", 0, kMaxCount);
  const JsonObject perturbation = json.object("perturbation");
  for (const auto& [key, value] : perturbation.json().items()) {
    int bits = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), bits);
    check(error == std::errc() && end == key.data() + key.size() && bits >= 1 && bits <= 8,
          "[json] {}: \"{}\" is no bit width; use 1 to 8", perturbation.where(), key);
    const double norm = perturbation.number(key.c_str());
    check(norm >= 0, "[json] {}: ‖Q(W) − W‖² at {} bits is {} and cannot be negative", perturbation.where(),
          bits, norm);
    layer.perturbation[bits] = norm;
  }
  return layer;
}

}  // namespace

double LayerSensitivity::mean_trace() const {
  return trace.value / static_cast<double>(parameters);
}

std::string to_json(const Sensitivity& sensitivity) {
  nlohmann::ordered_json json;
  json["format"] = kFormat;
  json["model"] = sensitivity.model;
  json["weights"] = sensitivity.weights;
  json["quantizer"] = sensitivity.quantizer;
  json["images"] = sensitivity.images;
  json["layers"] = nlohmann::ordered_json::array();
  for (const LayerSensitivity& layer : sensitivity.layers) {
    const auto number = [&](double value, const char* what) {
      return finite(value, fmt::format("{} of layer '{}'", what, layer.name));
    };
    nlohmann::ordered_json entry;
    entry["name"] = layer.name;
    entry["parameters"] = layer.parameters;
    entry["macs"] = layer.macs;
    entry["input_elements"] = layer.input_elements;
    entry["lambda_max"] = number(layer.lambda_max, "the eigenvalue");
    entry["lambda_residual"] = number(layer.lambda_residual, "the eigenvalue's residual");
    entry["trace"] = {{"value", number(layer.trace.value, "the trace")},
                      {"standard_error", number(layer.trace.standard_error, "the trace's standard error")},
                      {"samples", layer.trace.samples}};
    // Derived, for the reader; ignored when the file is read back.
    entry["mean_trace"] = number(layer.mean_trace(), "the mean trace");
    entry["perturbation"] = nlohmann::ordered_json::object();
    for (const auto& [bits, value] : layer.perturbation) {
      entry["perturbation"][std::to_string(bits)] = number(value, "‖Q(W) − W‖²");
    }
    json["layers"].push_back(std::move(entry));
  }
  return json_text(json);
}

Sensitivity sensitivity_from_json(std::string_view text, const std::string& source) {
  const JsonObject json = JsonObject::parse(text, source);
  json.require_format(kFormat);
  Sensitivity sensitivity;
  sensitivity.model = json.string("model");
  sensitivity.weights = json.string("weights");
  sensitivity.quantizer = json.string("quantizer");
  sensitivity.images = json.integer("images", 0, kMaxCount);
  sensitivity.layers = json.named_list("layers", read_layer);
  return sensitivity;
}

void write_sensitivity(const std::filesystem::path& path, const Sensitivity& sensitivity) {
  write_file_atomic(path.string(), to_json(sensitivity));
}

Sensitivity read_sensitivity(const std::filesystem::path& path) {
  return sensitivity_from_json(read_file(path.string()), path.string());
}

}  // namespace goshawk
