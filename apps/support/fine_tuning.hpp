// From full-precision weights and a bit for every layer to a fine-tuned packed model that was tested.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/support/run_directory.hpp"
#include "apps/support/trainer.hpp"
#include "quant/packed_model.hpp"

namespace goshawk {

/// The stages of `epochs` epochs: half of them go to at most `stages` stages one after another in the order
/// of Ω (`reversed`: the other way), the rest to the whole network. One stage with everything when epochs is
/// 0.
std::vector<Stage> stages_within(std::int64_t epochs, int stages, const Costs& costs,
                                 const BitAssignment& bits, bool reversed = false);

struct FineTuningInput {
  std::string job;  ///< names the files: order-JOB.json, JOB.safetensors, JOB.packed.safetensors
  /// A new model with the full-precision weights, in eval mode, each time.
  std::function<std::unique_ptr<Module>()> baseline;
  BitAssignment bits;
  QuantizationOptions quantizer;
  std::vector<Stage> stages;
  TrainerOptions training;
  std::shared_ptr<const Dataset> train_set, test_set;
  std::uint64_t calibration_seed = 0;                ///< of the pictures that set the first activation ranges
  std::map<std::string, std::string> metadata = {};  ///< of the weight files
};

struct FineTuned {
  Evaluation untuned;  ///< calibrated and all layers quantized, before any training
  Evaluation test;     ///< after it
  SizeReport size;
  PackedSize packed;
};

/// "predictions-JOB.csv": what the fine-tuned model took each test picture for.
std::string predictions_file(const std::string& job);

/// Calibrates, fine-tunes stage by stage (resuming from training.checkpoint), and writes the order, the
/// dequantized weights, the packed model and the predictions to the run. Throws Error when the packed file
/// does not classify every test picture as the model it was made of, besides what train() throws.
FineTuned fine_tune(const RunDirectory& run, const FineTuningInput& input);

/// {"total", "codes", "scales", …} in bytes.
nlohmann::ordered_json packed_to_json(const PackedSize& size);
/// The inverse; throws nlohmann's exception for anything else.
PackedSize packed_from_json(const nlohmann::json& json);

}  // namespace goshawk
