// Training and quantization-aware fine-tuning: epochs of SGD, resumable after each one.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "apps/support/evaluate.hpp"
#include "datasets/loader.hpp"
#include "nn/optimizer.hpp"
#include "nn/schedule.hpp"
#include "quant/order.hpp"
#include "quant/quantized_model.hpp"

namespace goshawk {

/// More than anybody trains; larger numbers are typing errors.
inline constexpr std::int64_t kMaxEpochs = 1'000'000;

/// What one epoch did.
struct EpochReport {
  std::int64_t epoch = 0;  ///< counted from 0 over all stages
  std::int64_t stage = 0;
  double lr = 0;  ///< of the epoch's last step
  double train_loss = 0;
  double train_accuracy = 0;  ///< in train mode, on augmented pictures, while the weights changed
  Evaluation test;
  double seconds = 0;
  double images_per_second = 0;  ///< of training alone
};

struct TrainerOptions {
  std::string label;  ///< for progress, such as "HAWQ"
  std::int64_t epochs = 0;
  SgdOptions sgd = {};  ///< its rate is the highest of the schedule, for messages
  Schedule schedule;    ///< of the step, counted over all epochs
  double quantizer_lr_multiplier = 1;
  double clip_weight_decay = 0;  ///< L2 penalty on activation clips (PACT)
  LoaderOptions loader = {};
  std::string checkpoint;  ///< file; written after every epoch, and when the user interrupts
  /// After every epoch and before its checkpoint is written: a run that is killed in between reports the
  /// epoch again.
  std::function<void(const EpochReport&)> on_epoch = {};
};

/// Trains `model` from its present weights for options.epochs epochs. With `quantized`, stage k's layers are
/// enabled before its first epoch and the optimiser starts anew with each stage, since its parameters change;
/// `stages` then says how the epochs are shared and must sum to options.epochs. When options.checkpoint
/// exists, continues from it: the outcome has the same bits as an uninterrupted run. Throws Interrupted,
/// after the present step is done and saved, on a signal that an InterruptHandler caught; Error when the
/// checkpoint belongs to another model or plan, when the loss is not finite, or a file cannot be written.
void train(Module& model, QuantizedModel* quantized, const std::vector<Stage>& stages,
           std::shared_ptr<const Dataset> train_set, std::shared_ptr<const Dataset> test_set,
           const TrainerOptions& options);

}  // namespace goshawk
