// How networks are trained and fine-tuned here: optimiser, schedule, augmentation, and the log of epochs.
#pragma once

#include <string>

#include "apps/support/run_directory.hpp"
#include "apps/support/trainer.hpp"

namespace goshawk {

/// What training takes from its user.
struct RecipeOptions {
  std::string label;  ///< for progress
  std::string job;    ///< names the checkpoint, checkpoints/JOB.training.safetensors, and the log's lines
  std::int64_t epochs = 0;
  std::int64_t batch_size = 128;
  double lr = 0.1;
  double weight_decay = 5e-4;
  std::uint64_t seed = 0;
  Normalization normalization = {};
  /// Train on random regions that the data set chooses, and mirrored ones (ImageNet's habit), instead of
  /// shifted and mirrored pictures (CIFAR's).
  bool random_regions = false;
};

/// Throws UsageError listing the recipes there are.
void check_recipe(const std::string& recipe);

/// Training from scratch on `train_images` pictures. "cosine": one epoch of warm-up, then half a cosine to
/// zero, Nesterov. "he2016": He et al., Deep Residual Learning, 2016, section 4.2, in epochs (200 of them
/// there): plain momentum, a tenth after half and a hundredth after three quarters of the epochs. Every epoch
/// is a line of the run's log.
TrainerOptions training_recipe(const std::string& recipe, const RunDirectory& run,
                               const RecipeOptions& options, std::int64_t train_images);
/// Quantization-aware fine-tuning: half a cosine to zero, Nesterov, activation clips decay as weights do.
TrainerOptions finetuning_recipe(const RunDirectory& run, const RecipeOptions& options,
                                 std::int64_t train_images);

}  // namespace goshawk
