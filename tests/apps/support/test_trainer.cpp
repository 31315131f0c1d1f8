#include <doctest/doctest.h>
#include <filesystem>
#include <string>
#include <vector>

#include "apps/support/trainer.hpp"
#include "datasets/synthetic.hpp"
#include "nn/layers.hpp"
#include "quant/qat.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

// 3 → 4 → 10 channels on 32 × 32 pictures: two layers whose steps, one a channel, have the same shape at any
// width.
class SmallNet : public Module {
 public:
  SmallNet() : conv({.in = 3, .out = 4, .kernel = 3}), linear({.in = 4, .out = 10}) {
    register_module("conv", conv);
    register_module("linear", linear);
  }
  Variable forward(const Variable& x) override { return linear(global_avg_pool(relu(conv(x)))); }
  Conv2d conv;
  Linear linear;
};

struct Tuning {
  std::vector<int> weight_bits = {2, 3};
  std::vector<Stage> stages = {{.layers = {"conv"}, .epochs = 1}, {.layers = {"linear"}, .epochs = 1}};
  ClipRule clip = ClipRule::learned;
};

// Fine-tunes anew, or goes on from `checkpoint`; returns how many epochs that took.
int fine_tune(const Tuning& tuning, const std::string& checkpoint, int stop_after = 100) {
  const auto train_set = make_synthetic(Split::train, 32), test_set = make_synthetic(Split::test, 8);
  SmallNet model;
  BitAssignment bits{.method = "test", .layers = layer_list(model)};
  for (std::size_t l = 0; l < 2; ++l) {
    bits.layers[l].weight = tuning.weight_bits[l];
    bits.layers[l].activation = kFullPrecision;
  }
  QuantizedModel quantized(model, bits, {.weight_clip = tuning.clip, .calibration = {}});
  int epochs = 0;
  struct Killed {};
  TrainerOptions options{.label = "test",
                         .epochs = 2,
                         .schedule = [](std::int64_t) { return 0.01; },
                         .loader = {.batch_size = 16},
                         .checkpoint = checkpoint,
                         .on_epoch =
                             [&](const EpochReport&) {
                               if (epochs == stop_after) throw Killed();
                               ++epochs;
                             }};
  try {
    train(model, &quantized, tuning.stages, train_set, test_set, options);
  } catch (const Killed&) {
  }
  return epochs;
}

}  // namespace

TEST_CASE("a checkpoint is for the bits, the order and the quantizers that it was trained with") {
  const ScratchDirectory scratch;
  const std::string checkpoint = (scratch.path() / "test.training.safetensors").string();
  CHECK(fine_tune({}, checkpoint, 1) == 1);
  REQUIRE(std::filesystem::exists(checkpoint));

  CHECK_THROWS_WITH_AS(
      fine_tune({.weight_bits = {4, 3}}, checkpoint),
      doctest::Contains("was trained with conv at 2/32 bits from stage 1 on where this run has conv "
                        "at 4/32 bits"),
      Error);
  CHECK_THROWS_WITH_AS(
      fine_tune({.stages = {{.layers = {"linear"}, .epochs = 1}, {.layers = {"conv"}, .epochs = 1}}},
                checkpoint),
      doctest::Contains("conv at 2/32 bits from stage 2 on"), Error);
  CHECK_THROWS_WITH_AS(fine_tune({.clip = ClipRule::mse}, checkpoint),
                       doctest::Contains("was trained with mid_rise channel learned weights"), Error);
  // None of them has touched it.
  CHECK(fine_tune({}, checkpoint) == 1);
}
