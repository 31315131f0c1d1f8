#include "quant/qat.hpp"

#include <algorithm>

namespace goshawk {

std::vector<LayerBits> layer_list(Module& model) {
  std::vector<LayerBits> layers;
  for (const auto& [name, layer] : weighted_layers(model)) {
    layers.push_back(
        {.name = name, .parameters = layer->weight_count(), .input_elements = layer->last_input_elements()});
  }
  return layers;
}

std::vector<WeightTensorReport> count_bits(const QuantizedModel& model) {
  std::vector<WeightTensorReport> reports;
  const QuantizationOptions& options = model.options();
  for (const LayerBits& layer : model.bits().layers) {
    check(model.enabled(layer.name), "[count_bits] layer '{}' is not quantized yet; enable it first",
          layer.name);
    const QuantizedTensor q = model.quantized_weight(layer.name);
    WeightTensorReport report{
        .name = layer.name + ".weight", .elements = q.dequantized.numel(), .bits = q.bits};
    if (q.bits != kFullPrecision) {
      report.levels = distinct_levels(q.dequantized, options.weight_granularity);
      const bool has_offset = options.weight_scheme == WeightScheme::asymmetric;
      report.scales =
          q.grid.basis.defined() ? q.grid.basis.numel() : q.grid.scale.numel() * (has_offset ? 2 : 1);
      check(report.levels <= (std::int64_t{1} << q.bits),
            "[count_bits] '{}' has {} levels in a group, more than {} bits hold", report.name, report.levels,
            q.bits);
    }
    reports.push_back(std::move(report));
  }
  return reports;
}

SizeReport measure_size(const QuantizedModel& model) {
  BitAssignment actual = model.bits();
  SizeOptions options;
  std::int64_t weights = 0;
  const std::vector<WeightTensorReport> reports = count_bits(model);
  for (std::size_t i = 0; i < reports.size(); ++i) {
    actual.layers[i].weight = reports[i].bits;
    options.scales += reports[i].scales;
    weights += reports[i].elements;
  }
  for (const auto& [name, tensor] : model.state()) {
    const bool range = name.ends_with(".act_clip") || name.ends_with(".act_step") ||
                       name.ends_with(".act_basis") || name.ends_with(".input_scale") ||
                       name.ends_with(".input_offset");
    if (range) options.scales += tensor.numel();
  }
  options.other_parameters = model.model().parameter_count() - weights;
  for (const NamedBuffer& buffer : model.model().named_buffers())
    options.other_parameters += buffer.tensor.numel();
  return size_report(actual, options);
}

StateDict dequantized_state_dict(const QuantizedModel& model) {
  StateDict state = state_dict(model.model());
  for (const LayerBits& layer : model.bits().layers) {
    const QuantizedTensor q = model.quantized_weight(layer.name);
    const auto it = std::find_if(state.begin(), state.end(),
                                 [&](const auto& entry) { return entry.first == layer.name + ".weight"; });
    check(it != state.end(), "[dequantized_state_dict] the model has no parameter '{}.weight'", layer.name);
    it->second = to_file_layout(q.dequantized);
  }
  return state;
}

}  // namespace goshawk
