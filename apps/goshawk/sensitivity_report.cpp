#include "apps/goshawk/sensitivity_report.hpp"

#include <fmt/format.h>

#include "apps/support/text_table.hpp"
#include "quant/json_file.hpp"

namespace goshawk {
namespace {

using Json = nlohmann::ordered_json;

std::string number(const Json& value) {
  return fmt::format("{:.3g}", value.get<double>());
}

Json by_width(const WeightCandidates& candidates, const std::vector<double>& values,
              const std::string& what) {
  Json json = Json::object();
  for (std::size_t b = 0; b < values.size(); ++b) {
    json[std::to_string(candidates.bits[b])] = finite(values[b], what);
  }
  return json;
}

std::string method_table(const Json& methods) {
  std::vector<std::vector<std::string>> rows{{"cost", "formula", "seconds", "to the wanted error"}};
  for (const Json& method : methods) {
    rows.push_back({method.at("name").get<std::string>(), method.at("formula").get<std::string>(),
                    number(method.at("seconds")), number(method.at("projected_seconds"))});
  }
  return text_table(rows);
}

std::string layer_table(const Json& layers, const Json& methods, const std::string& width) {
  std::vector<std::vector<std::string>> rows{{"layer", "weights"}};
  for (const Json& method : methods) rows[0].push_back(method.at("name").get<std::string>());
  for (const Json& layer : layers) {
    auto& row = rows.emplace_back();
    row.push_back(layer.at("name").get<std::string>());
    row.push_back(std::to_string(layer.at("parameters").get<std::int64_t>()));
    for (const Json& method : methods) {
      row.push_back(number(layer.at("costs").at(method.at("name").get<std::string>()).at(width)));
    }
  }
  return text_table(rows);
}

std::string activation_table(const Json& layers) {
  std::vector<std::vector<std::string>> rows{{"input of", "elements", "mean trace", "bits", "perturbation",
                                              "hawq-v2", "first order", "second order", "|first order|"}};
  for (const Json& layer : layers) {
    for (const Json& choice : layer.at("choices")) {
      rows.push_back(
          {layer.at("name").get<std::string>(), std::to_string(layer.at("elements").get<std::int64_t>()),
           number(layer.at("mean_trace")), std::to_string(choice.at("bits").get<int>()),
           number(choice.at("perturbation")), number(choice.at("hawq-v2")), number(choice.at("first_order")),
           number(choice.at("second_order")), number(choice.at("first_order_size"))});
    }
  }
  return text_table(rows);
}

}  // namespace

std::string cost_file_name(const std::string& name) {
  return fmt::format("costs-{}.json", name);
}

Json sensitivity_layers(const WeightCandidates& candidates, const std::vector<MeasuredCosts>& measured) {
  Json layers = Json::array();
  for (std::size_t l = 0; l < candidates.layers.size(); ++l) {
    const WeightCandidates::Layer& from = candidates.layers[l];
    Json layer{{"name", from.name},
               {"parameters", from.parameters},
               {"macs", from.macs},
               {"input_elements", from.input_elements},
               {"weight_norm", from.weight_norm}};
    layer["perturbation"] =
        by_width(candidates, from.norms, fmt::format("a perturbation of '{}'", from.name));
    for (const MeasuredCosts& m : measured) {
      const std::string what = fmt::format("{} of '{}'", m.name, from.name);
      for (const auto& [key, values] : m.details) layer["details"][m.name][key] = finite(values[l], what);
      if (!m.score.empty()) layer["scores"][m.name] = finite(m.score[l], what);
      layer["costs"][m.name] = by_width(candidates, m.costs[l], what);
      if (!m.errors.empty()) layer["image_errors"][m.name] = by_width(candidates, m.errors[l], what);
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

Json sensitivity_methods_json(const std::vector<MeasuredCosts>& measured) {
  Json methods = Json::array();
  for (const MeasuredCosts& m : measured) {
    const SensitivityMethod& method = sensitivity_method(m.name);
    Json entry{{"name", m.name},
               {"formula", method.formula},
               {"source", method.source},
               {"seconds", m.seconds},
               {"projected_seconds", finite(m.projected_seconds, "projected seconds")},
               {"file", cost_file_name(m.name)}};
    if (!m.road.empty()) entry["road"] = m.road;
    methods.push_back(std::move(entry));
  }
  return methods;
}

Json activation_layers_json(const std::vector<ActivationLayerCosts>& layers) {
  Json json = Json::array();
  for (const ActivationLayerCosts& layer : layers) {
    Json entry{{"name", layer.name},
               {"elements", layer.elements},
               {"signed", layer.is_signed},
               {"picture", layer.is_picture},
               {"trace", layer.trace.value},
               {"trace_image_error", layer.trace.subset_error.value_or(0)},
               {"mean_trace", layer.mean_trace()}};
    for (const ActivationCost& cost : layer.widths) {
      entry["choices"].push_back({{"bits", cost.bits},
                                  {"perturbation", cost.perturbation},
                                  {"hawq-v2", cost.hawq_v2},
                                  {"first_order", cost.first_order},
                                  {"first_order_error", cost.first_order_error},
                                  {"first_order_size", cost.first_order_size},
                                  {"second_order", cost.second_order},
                                  {"second_order_error", cost.second_order_error}});
    }
    json.push_back(std::move(entry));
  }
  return json;
}

std::string sensitivity_table(const Json& sensitivity) {
  const Json& methods = sensitivity.at("methods");
  std::string text =
      fmt::format("{} on {} images of loss {:.4g}; weights {}, quantized in {:.2g} s\n\n",
                  sensitivity.at("model").get<std::string>(), sensitivity.at("images").get<std::int64_t>(),
                  sensitivity.at("loss").get<double>(), sensitivity.at("quantizer").get<std::string>(),
                  sensitivity.at("quantizing_seconds").get<double>());
  text += method_table(methods);
  const std::string width = std::to_string(sensitivity.at("bits").at(0).get<int>());
  text += fmt::format("\nCosts at {} bits\n\n", width);
  text += layer_table(sensitivity.at("layers"), methods, width);
  if (sensitivity.contains("activations")) {
    text += fmt::format("\nActivations ({:.3g} s)\n\n", sensitivity.at("activation_seconds").get<double>());
    text += activation_table(sensitivity.at("activations"));
  }
  return text;
}

}  // namespace goshawk
