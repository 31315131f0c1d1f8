// What every step of a run has in common: the data, the run directory, the baseline and the training recipe.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/reproduce_cifar/options.hpp"
#include "apps/support/run_directory.hpp"
#include "apps/support/trainer.hpp"
#include "nn/module.hpp"

namespace goshawk {

class Experiment {
 public:
  /// Loads the data and opens the run directory.
  explicit Experiment(const ReproduceOptions& options);

  const ReproduceOptions& options() const { return options_; }
  const RunDirectory& run() const { return run_; }
  const std::shared_ptr<const Dataset>& train_set() const { return train_set_; }
  const std::shared_ptr<const Dataset>& test_set() const { return test_set_; }

  /// Trains or loads the baseline unless the run has it; everything below needs it. One process at a time.
  void make_baseline();
  /// A model with the baseline's weights, in eval mode.
  std::unique_ptr<Module> baseline_model() const;

  /// `count` training pictures drawn under the run's seed, or all if there are fewer, unaugmented, in
  /// batches.
  std::vector<Batch> training_pictures(std::int64_t count, std::int64_t batch_size) const;
  /// How many of them the curvature is averaged over.
  std::int64_t curvature_images() const;
  Evaluation test(Module& model) const;

  /// The fine-tuning recipe of all rows; `job` names the checkpoint and the lines of the log.
  TrainerOptions finetuning(const std::string& label, const std::string& job, std::uint64_t seed) const;
  void train(Module& model, QuantizedModel* quantized, const std::vector<Stage>& stages,
             const TrainerOptions& options) const;

  /// What the metadata of every weight file says.
  std::map<std::string, std::string> checkpoint_metadata() const;

 private:
  std::unique_ptr<Module> new_model() const;
  TrainerOptions baseline_training() const;

  ReproduceOptions options_;
  std::shared_ptr<const Dataset> train_set_, test_set_;
  RunDirectory run_;  // after the data: a wrong --data leaves no run directory behind
  Normalization normalization_;
};

}  // namespace goshawk
