// goshawk models: which models there are, and what one is made of.
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/goshawk/commands.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/text_table.hpp"
#include "models/registry.hpp"
#include "nn/layers.hpp"
#include "nn/state_dict.hpp"

namespace goshawk {
namespace {

struct Options {
  std::string model;
  std::int64_t classes = 10;
  bool json = false;
};

struct Measured {
  std::unique_ptr<Module> model;
  InputSpec input;
  std::vector<std::pair<std::string, WeightedLayer*>> layers;
  std::int64_t macs = 0;  // of one picture
};

/// The model after one picture, from which the layers know their sizes.
Measured measure(const std::string& name, std::int64_t classes) {
  Measured m;
  m.input = model_input(name);
  m.model = make_model(name, {.classes = classes});
  m.model->set_mode(Mode::eval);
  const NoGrad no_grad;
  (*m.model)(Tensor::zeros({1, m.input.height, m.input.width, m.input.channels}, DType::f32));
  m.layers = weighted_layers(*m.model);
  for (const auto& [layer_name, layer] : m.layers) m.macs += layer->last_macs();
  return m;
}

nlohmann::ordered_json model_json(const std::string& name, const Measured& m) {
  return {{"name", name},
          {"parameters", m.model->parameter_count()},
          {"layers", m.layers.size()},
          {"input", {m.input.channels, m.input.height, m.input.width}},
          {"macs", m.macs}};
}

/// OIHW or [out, in], as in files.
Shape file_shape(const WeightedLayer& layer) {
  return to_file_layout(layer.weight.value()).shape();
}

void list_models(const Options& options) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  std::vector<std::vector<std::string>> table{
      {"model", "parameters", "layers", "input", "MACs of one picture"}};
  for (const std::string& name : model_names()) {
    const Measured m = measure(name, options.classes);
    list.push_back(model_json(name, m));
    table.push_back({name, std::to_string(m.model->parameter_count()), std::to_string(m.layers.size()),
                     fmt::format("{}x{}x{}", m.input.channels, m.input.height, m.input.width),
                     std::to_string(m.macs)});
  }
  print_result(options.json ? list.dump() + "\n" : text_table(table));
}

void describe_model(const Options& options) {
  const Measured m = measure(options.model, options.classes);
  nlohmann::ordered_json json = model_json(options.model, m);
  json["layers"] = nlohmann::ordered_json::array();
  std::vector<std::vector<std::string>> table{{"layer", "weights", "parameters", "MACs of one picture"}};
  for (const auto& [name, layer] : m.layers) {
    const Shape shape = file_shape(*layer);
    json["layers"].push_back({{"name", name},
                              {"shape", std::vector<std::int64_t>(shape.begin(), shape.end())},
                              {"parameters", layer->weight_count()},
                              {"macs", layer->last_macs()},
                              {"input_elements", layer->last_input_elements()}});
    table.push_back({name, fmt::format("{}", shape), std::to_string(layer->weight_count()),
                     std::to_string(layer->last_macs())});
  }
  if (options.json) {
    print_result("{}\n", json.dump());
    return;
  }
  print_result("{}: {} parameters, input {}x{}x{}, {} MACs of one picture\n\n{}", options.model,
               m.model->parameter_count(), m.input.channels, m.input.height, m.input.width, m.macs,
               text_table(table));
}

}  // namespace

void add_models_command(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App& command =
      *program.add_subcommand("models", "The models there are: parameters, input size, multiply-accumulates");
  command.add_option("model", options->model, "Only this model, layer by layer")->type_name("NAME");
  command.add_option("--classes", options->classes, "Classes that the models tell apart")
      ->check(CLI::Range(1, 1000000))
      ->type_name("N")
      ->capture_default_str();
  command.add_flag("--json", options->json,
                   "Print JSON: a list of name, parameters, layers, input (C, H, W), macs; of one model an "
                   "object whose layers have name, shape, parameters, macs, input_elements");
  command.footer("Example:\n  goshawk models resnet20");
  command.callback([options] { options->model.empty() ? list_models(*options) : describe_model(*options); });
}

}  // namespace goshawk
