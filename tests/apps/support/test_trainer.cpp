#include <cmath>
#include <doctest/doctest.h>
#include <filesystem>
#include <string>
#include <vector>

#include "apps/support/trainer.hpp"
#include "core/safetensors.hpp"
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

// Trains for two epochs anew, or goes on from `checkpoint`; returns how many epochs that took.
int train_two_epochs(Module& model, QuantizedModel* quantized, const std::vector<Stage>& stages,
                     const std::string& checkpoint, int stop_after = 100) {
  const auto train_set = make_synthetic(Split::train, 32), test_set = make_synthetic(Split::test, 8);
  int epochs = 0;
  struct Killed {};
  TrainerOptions options{.label = "test",
                         .epochs = 2,
                         .sgd = {.lr = 0.05},
                         .schedule = [](std::int64_t) { return 0.01; },
                         .loader = {.batch_size = 16},
                         .checkpoint = checkpoint,
                         .on_epoch =
                             [&](const EpochReport&) {
                               if (epochs == stop_after) throw Killed();
                               ++epochs;
                             }};
  try {
    train(model, quantized, stages, train_set, test_set, options);
  } catch (const Killed&) {
  }
  return epochs;
}

int fine_tune(const Tuning& tuning, const std::string& checkpoint, int stop_after = 100) {
  SmallNet model;
  BitAssignment bits{.method = "test", .layers = layer_list(model)};
  for (std::size_t l = 0; l < 2; ++l) {
    bits.layers[l].weight = tuning.weight_bits[l];
    bits.layers[l].activation = kFullPrecision;
  }
  QuantizedModel quantized(model, bits, {.weight_clip = tuning.clip, .calibration = {}});
  return train_two_epochs(model, &quantized, tuning.stages, checkpoint, stop_after);
}

// The checkpoint as it was written before checkpoints noted the bits.
void forget_bits(const std::string& checkpoint) {
  SafeTensors file = read_safetensors(checkpoint);
  REQUIRE(file.metadata.erase("quantization") == 1);
  write_safetensors(checkpoint, file.tensors, file.metadata);
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

TEST_CASE("a checkpoint that does not note the bits is good for full precision only") {
  const ScratchDirectory scratch;
  const std::string checkpoint = scratch / "test.training.safetensors";
  CHECK(fine_tune({}, checkpoint, 1) == 1);
  forget_bits(checkpoint);
  CHECK_THROWS_WITH_AS(fine_tune({}, checkpoint),
                       doctest::Contains("was written by an older version, which did not note the bits"),
                       Error);

  const std::string full = scratch / "full.training.safetensors";
  SmallNet model;
  CHECK(train_two_epochs(model, nullptr, {}, full, 1) == 1);
  forget_bits(full);
  CHECK(train_two_epochs(model, nullptr, {}, full) == 1);
}

TEST_CASE("a loss that is no number ends the training, with the rate that was asked for and the step's") {
  const ScratchDirectory scratch;
  SmallNet model;
  model.linear.weight.value().fill(NAN);
  CHECK_THROWS_WITH_AS(train_two_epochs(model, nullptr, {}, scratch / "test.training.safetensors"),
                       doctest::Contains("in test at step 0 of epoch 0; start again in another run directory "
                                         "with a learning rate below 0.05, which the schedule had made 0.01"),
                       Error);
}
