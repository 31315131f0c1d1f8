#include "apps/support/fine_tuning.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "apps/support/class_predictions.hpp"
#include "apps/support/data_source.hpp"
#include "core/safetensors.hpp"
#include "quant/qat.hpp"

namespace goshawk {
namespace {

/// Pictures that set the activation ranges before fine-tuning.
constexpr std::int64_t kCalibrationImages = 1024, kCalibrationBatch = 256;

// The parts of a packed file and their names.
constexpr std::array kPackedParts = {
    std::pair("codes", &PackedSize::codes),   std::pair("scales", &PackedSize::scales),
    std::pair("ranges", &PackedSize::ranges), std::pair("full_weights", &PackedSize::full_weights),
    std::pair("other", &PackedSize::other),   std::pair("header", &PackedSize::header)};

// Every layer quantized, with calibrated ranges and nothing trained.
Evaluation test_untuned(const FineTuningInput& input, std::span<const Tensor> calibration) {
  const auto model = input.baseline();
  QuantizedModel quantized(*model, input.bits, input.quantizer);
  quantized.calibrate(calibration);
  quantized.enable_all();
  return evaluate(*model, input.test_set, {.normalization = input.training.loader.normalization});
}

// The packed file, read back and tested: the sizes and accuracies that are reported are those of files.
PackedSize check_packed(const FineTuningInput& input, const QuantizedModel& quantized,
                        const std::string& file, const Evaluation& expected) {
  const PackedSize size = write_packed_model(file, quantized, input.metadata);
  const auto model = input.baseline();
  const PackedModel packed = load_packed_model(file, *model);
  const Evaluation test =
      evaluate(*model, input.test_set, {.normalization = input.training.loader.normalization});
  check(test.correct == expected.correct && test.loss == expected.loss,
        "[fine_tune] {} classifies {} test pictures right and the model it was made of {}; keep both and "
        "report this",
        file, test.correct, expected.correct);
  return size;
}

}  // namespace

std::vector<Stage> stages_within(std::int64_t epochs, int stages, const Costs& costs,
                                 const BitAssignment& bits, bool reversed) {
  const auto all = static_cast<int>(epochs);
  if (all == 0) return single_stage(bits, all);
  // No more than there are blocks to begin one with, or the epochs of the others would be missing.
  const int count = std::min({stages, all, static_cast<int>(finetune_order(costs, bits).size())});
  const int each = std::max(1, all / (2 * count));
  return stage_plan(
      costs, bits,
      {.stages = count, .epochs_per_stage = each, .final_epochs = all - count * each, .reversed = reversed});
}

std::string predictions_file(const std::string& job) {
  return fmt::format("predictions-{}.csv", job);
}

FineTuned fine_tune(const RunDirectory& run, const FineTuningInput& input) {
  const auto model = input.baseline();
  QuantizedModel quantized(*model, input.bits, input.quantizer);
  const Normalization& normalization = input.training.loader.normalization;
  std::vector<Tensor> calibration;
  for (Batch& batch : random_batches(input.train_set, kCalibrationImages, kCalibrationBatch,
                                     input.calibration_seed, normalization)) {
    calibration.push_back(std::move(batch.images));
  }
  quantized.calibrate(calibration);

  const std::string order = fmt::format("order-{}.json", input.job);
  check(!run.has(order) || to_json(read_stages(run.file(order))) == to_json(input.stages),
        "[fine_tune] {} has other stages than this run would have now; give another --out", run.file(order));
  write_stages(run.file(order), input.stages);
  train(*model, &quantized, input.stages, input.train_set, input.test_set, input.training);

  FineTuned result;
  result.untuned = test_untuned(input, calibration);
  ClassPredictions predictions;
  result.test = evaluate(
      *model, input.test_set,
      {.normalization = normalization,
       .on_logits = [&](const Batch& batch, const Tensor& logits) { predictions.add(batch, logits); }});
  check(
      std::isfinite(result.test.loss),
      "[fine_tune] the loss of {} on the test pictures is {} after fine-tuning: its outputs overflow; start "
      "again in another run directory with a learning rate below {:g} (--lr, of reproduce_cifar "
      "--finetune-lr)",
      input.job, result.test.loss, input.training.sgd.lr);
  write_predictions(run.file(predictions_file(input.job)), predictions);
  result.size = measure_size(quantized);
  write_safetensors(run.file(fmt::format("{}.safetensors", input.job)), dequantized_state_dict(quantized),
                    input.metadata);
  result.packed =
      check_packed(input, quantized, run.file(fmt::format("{}.packed.safetensors", input.job)), result.test);
  return result;
}

nlohmann::ordered_json packed_to_json(const PackedSize& size) {
  nlohmann::ordered_json json{{"total", size.total()}};
  for (const auto& [name, part] : kPackedParts) json[name] = size.*part;
  return json;
}

PackedSize packed_from_json(const nlohmann::json& json) {
  PackedSize size;
  for (const auto& [name, part] : kPackedParts) json.at(name).get_to(size.*part);
  return size;
}

}  // namespace goshawk
