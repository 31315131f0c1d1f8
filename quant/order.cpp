#include "quant/order.hpp"

#include <algorithm>
#include <limits>
#include <set>

#include "core/file.hpp"
#include "quant/json_file.hpp"
#include "quant/quantizer.hpp"

namespace goshawk {
namespace {

constexpr std::string_view kFormat = "goshawk-stages-1";

}  // namespace

std::string_view block_of(std::string_view layer) {
  constexpr std::string_view kEverything = "features.", kUnit = "unit";
  const auto end_of_component = [&](std::size_t begin) {
    return std::min(layer.find('.', begin), layer.size());
  };
  const auto is_index = [](std::string_view component) {
    return !component.empty() && component.find_first_not_of("0123456789") == std::string_view::npos;
  };
  const std::size_t begin = layer.starts_with(kEverything) ? kEverything.size() : 0;
  const std::size_t first = end_of_component(begin);
  if (first == layer.size() || is_index(layer.substr(begin, first - begin))) return layer.substr(0, first);
  const std::size_t second = end_of_component(first + 1);
  std::string_view component = layer.substr(first + 1, second - first - 1);
  if (component.starts_with(kUnit)) component.remove_prefix(kUnit.size());
  return layer.substr(0, is_index(component) ? second : first);
}

std::vector<OrderedBlock> finetune_order(const Costs& costs, const BitAssignment& bits, bool by_block) {
  std::vector<OrderedBlock> blocks;
  for (const LayerBits& layer : bits.layers) {
    const std::string_view name = by_block ? block_of(layer.name) : std::string_view(layer.name);
    auto block =
        std::find_if(blocks.begin(), blocks.end(), [&](const OrderedBlock& b) { return b.name == name; });
    if (block == blocks.end()) block = blocks.insert(blocks.end(), OrderedBlock{.name = std::string(name)});
    if (layer.weight != kFullPrecision) block->omega += costs.choice(layer.name, layer.weight).cost;
    block->layers.push_back(layer.name);
  }
  const auto quantized = [&](const OrderedBlock& block) {
    return std::any_of(block.layers.begin(), block.layers.end(),
                       [&](const std::string& layer) { return bits.layer(layer).weight != kFullPrecision; });
  };
  std::stable_sort(blocks.begin(), blocks.end(), [&](const OrderedBlock& a, const OrderedBlock& b) {
    const bool first = quantized(a), second = quantized(b);
    return first != second ? first : a.omega > b.omega;
  });
  return blocks;
}

std::vector<Stage> stage_plan(const Costs& costs, const BitAssignment& bits, const StageOptions& options) {
  check(options.stages >= 1 && options.epochs_per_stage >= 0 && options.final_epochs >= 0,
        "[stage_plan] {} stages of {} epochs and {} final epochs make no plan; use at least one stage and no "
        "negative "
        "epochs",
        options.stages, options.epochs_per_stage, options.final_epochs);
  std::vector<OrderedBlock> blocks = finetune_order(costs, bits, options.by_block);
  check(!blocks.empty(), "[stage_plan] the assignment has no layers");
  if (options.reversed) std::reverse(blocks.begin(), blocks.end());
  const std::size_t stages = std::min(static_cast<std::size_t>(options.stages), blocks.size());
  std::vector<Stage> plan(stages);
  std::size_t next = 0;
  for (std::size_t s = 0; s < stages; ++s) {
    plan[s].epochs = options.epochs_per_stage;
    const std::size_t count = blocks.size() / stages + (s < blocks.size() % stages ? 1 : 0);
    for (std::size_t k = 0; k < count; ++k, ++next) {
      plan[s].layers.insert(plan[s].layers.end(), blocks[next].layers.begin(), blocks[next].layers.end());
    }
  }
  plan.back().epochs += options.final_epochs;
  return plan;
}

std::vector<Stage> single_stage(const BitAssignment& bits, int epochs) {
  check(epochs >= 0, "[single_stage] {} epochs make no stage", epochs);
  Stage stage{.epochs = epochs};
  for (const LayerBits& layer : bits.layers) stage.layers.push_back(layer.name);
  return {stage};
}

std::string to_json(const std::vector<Stage>& stages) {
  nlohmann::ordered_json json;
  json["format"] = kFormat;
  json["stages"] = nlohmann::ordered_json::array();
  for (const Stage& stage : stages)
    json["stages"].push_back({{"epochs", stage.epochs}, {"layers", stage.layers}});
  return json_text(json);
}

std::vector<Stage> stages_from_json(std::string_view text, const std::string& source) {
  const JsonObject json = JsonObject::parse(text, source);
  json.require_format(kFormat);
  std::vector<Stage> stages;
  std::set<std::string> seen;
  for (const JsonObject& entry : json.objects("stages")) {
    stages.push_back(
        {.layers = entry.strings("layers"),
         .epochs = static_cast<int>(entry.integer("epochs", 0, std::numeric_limits<int>::max()))});
    for (const std::string& layer : stages.back().layers) {
      check(seen.insert(layer).second, "[json] {}: layer '{}' is in two stages", entry.where(), layer);
    }
  }
  return stages;
}

void write_stages(const std::filesystem::path& path, const std::vector<Stage>& stages) {
  write_file_atomic(path.string(), to_json(stages));
}

std::vector<Stage> read_stages(const std::filesystem::path& path) {
  return stages_from_json(read_file(path.string()), path.string());
}

}  // namespace goshawk
