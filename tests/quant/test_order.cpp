#include <doctest/doctest.h>

#include "core/error.hpp"
#include "quant/order.hpp"
#include "resnet20_layers.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;
using namespace goshawk::test;

namespace {

// Five layers in four blocks, whose costs at 2 bits are 1, 2, 5, 4, 3 and at 4 bits a tenth of that.
struct Example {
  Costs costs{.source = "costs.json"};
  BitAssignment bits{.method = "hawq"};

  Example() {
    const std::vector<std::string> names = {"conv1", "layer1.0.conv1", "layer1.1.conv1", "layer1.0.conv2",
                                            "linear"};
    const std::vector<double> cost = {1, 2, 5, 4, 3};
    for (std::size_t i = 0; i < names.size(); ++i) {
      costs.layers.push_back({.name = names[i],
                              .parameters = 10,
                              .choices = {{.bits = 2, .bytes = 2.5, .cost = cost[i]},
                                          {.bits = 4, .bytes = 5, .cost = cost[i] / 10}}});
      bits.layers.push_back({.name = names[i], .parameters = 10, .weight = 2, .activation = 4});
    }
  }
};

std::vector<std::string> names(const std::vector<OrderedBlock>& order) {
  std::vector<std::string> out;
  for (const OrderedBlock& block : order) out.push_back(block.name);
  return out;
}

}  // namespace

TEST_CASE("blocks of layers") {
  CHECK(block_of("conv1") == "conv1");
  CHECK(block_of("layer1.0.conv1") == "layer1.0");
  CHECK(block_of("layer2.0.shortcut.0") == "layer2.0");
  CHECK(block_of("features.12") == "features.12");
  CHECK(block_of("fire2.squeeze") == "fire2");
  CHECK(block_of("Mixed_5b.branch1x1.conv") == "Mixed_5b");
  CHECK(block_of("features.3.squeeze") == "features.3");
  CHECK(block_of("features.1.0.conv") == "features.1");
  CHECK(block_of("features.init_block.conv.conv") == "features.init_block");
  CHECK(block_of("features.stage1.unit2.conv1.conv") == "features.stage1.unit2");
  CHECK(block_of("features.stage1.unit") == "features.stage1");
  CHECK(block_of("features.final_block.conv") == "features.final_block");
  CHECK(block_of("features") == "features");
  CHECK(block_of("output") == "output");
}

TEST_CASE("the order is by descending omega") {
  Example e;
  using Names = std::vector<std::string>;
  CHECK(names(finetune_order(e.costs, e.bits, false)) ==
        Names{"layer1.1.conv1", "layer1.0.conv2", "linear", "layer1.0.conv1", "conv1"});
  const auto blocks = finetune_order(e.costs, e.bits);
  CHECK(names(blocks) == Names{"layer1.0", "layer1.1", "linear", "conv1"});
  CHECK(blocks[0].omega == 6);
  CHECK(blocks[0].layers == Names{"layer1.0.conv1", "layer1.0.conv2"});
  // At 4 bits a layer's Ω is a tenth; at 32 bits it is 0.
  e.bits.layers[2].weight = 4;
  e.bits.layers[4].weight = 32;
  CHECK(names(finetune_order(e.costs, e.bits, false)) ==
        Names{"layer1.0.conv2", "layer1.0.conv1", "conv1", "layer1.1.conv1", "linear"});
  // What stays at 32 bits is last also where quantizing lowers the loss.
  e.costs.layers[0].choices[0].cost = -1;
  CHECK(names(finetune_order(e.costs, e.bits, false)) ==
        Names{"layer1.0.conv2", "layer1.0.conv1", "layer1.1.conv1", "conv1", "linear"});
  e.bits.layers[0].weight = 3;
  CHECK_THROWS_WITH_AS(finetune_order(e.costs, e.bits), doctest::Contains("3 bits for layer 'conv1'"), Error);
}

TEST_CASE("stages: every layer once, nearly equal numbers of blocks, epochs as asked") {
  const Example e;
  const auto plan = stage_plan(e.costs, e.bits, {.stages = 3, .epochs_per_stage = 2, .final_epochs = 5});
  REQUIRE(plan.size() == 3);
  CHECK(plan[0].layers == std::vector<std::string>{"layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1"});
  CHECK(plan[1].layers == std::vector<std::string>{"linear"});
  CHECK(plan[2].layers == std::vector<std::string>{"conv1"});
  CHECK(plan[0].epochs == 2);
  CHECK(plan[2].epochs == 7);
  const auto reversed = stage_plan(e.costs, e.bits, {.stages = 4, .reversed = true});
  CHECK(reversed.front().layers == std::vector<std::string>{"conv1"});
  CHECK(reversed.back().layers == std::vector<std::string>{"layer1.0.conv1", "layer1.0.conv2"});
  CHECK(stage_plan(e.costs, e.bits, {.stages = 99}).size() == 4);
  CHECK(single_stage(e.bits, 3).at(0).layers.size() == 5);
  CHECK_THROWS_AS(stage_plan(e.costs, e.bits, {.stages = 0}), Error);
  CHECK_THROWS_AS(stage_plan(e.costs, e.bits, {.epochs_per_stage = -1}), Error);
}

TEST_CASE("order.json: written, read back, and refused when damaged") {
  const Example e;
  const auto plan = stage_plan(e.costs, e.bits, {.stages = 2, .epochs_per_stage = 4});
  const ScratchDirectory scratch;
  write_stages(scratch.path() / "order.json", plan);
  const auto read = read_stages(scratch.path() / "order.json");
  REQUIRE(read.size() == plan.size());
  for (std::size_t i = 0; i < plan.size(); ++i) {
    CHECK(read[i].layers == plan[i].layers);
    CHECK(read[i].epochs == plan[i].epochs);
  }
  const std::string good = to_json(plan);
  CHECK_THROWS_AS(stages_from_json(good.substr(0, good.size() - 4), "order.json"), Error);
  CHECK_THROWS_AS(
      stages_from_json(R"({"format": "goshawk-stages-1", "stages": [{"epochs": -1, "layers": []}]})", "o"),
      Error);
  CHECK_THROWS_AS(
      stages_from_json(R"({"format": "goshawk-stages-1", "stages": [{"epochs": 1, "layers": [3]}]})", "o"),
      Error);
  CHECK_THROWS_AS(
      stages_from_json(R"({"format": "goshawk-stages-1", "stages": [{"epochs": 1, "layers": ["a", "a"]}]})",
                       "o"),
      Error);
}
