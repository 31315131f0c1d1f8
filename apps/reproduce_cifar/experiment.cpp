#include "apps/reproduce_cifar/experiment.hpp"

#include <algorithm>

#include "apps/reproduce_cifar/rows.hpp"
#include "apps/support/data_source.hpp"
#include "apps/support/normalization.hpp"
#include "apps/support/progress.hpp"
#include "apps/support/recipes.hpp"
#include "core/safetensors.hpp"
#include "models/registry.hpp"
#include "nn/checkpoint.hpp"

namespace goshawk {
namespace {

constexpr const char* kBaselineFile = "baseline.safetensors";

std::shared_ptr<const Dataset> open_split(const ReproduceOptions& options, Split split) {
  const DataSource source{
      .path = options.data, .synthetic = options.data.empty(), .synthetic_seed = options.seed};
  const std::int64_t limit = split == Split::train ? options.train_images : options.test_images;
  auto dataset = open_source(source, split, limit, folder_options(model_input(options.model)));
  return source.synthetic ? dataset : load_into_memory(*dataset);
}

// Before there is a run directory: a run with other options would need another one.
const ReproduceOptions& checked(const ReproduceOptions& options, const Dataset& train_set) {
  check(train_set.size() >= options.batch_size,
        "[data] {} has {} training pictures, fewer than one batch of {}; give a smaller --batch-size",
        train_set.name(), train_set.size(), options.batch_size);
  // A run that is there has a copy of its own.
  if (!options.weights.empty() && RunDirectory::stored_config(options.out).is_null()) {
    const auto model = make_model(options.model, {.classes = train_set.num_classes()});
    load_checkpoint(options.weights, *model);
  }
  return options;
}

}  // namespace

Experiment::Experiment(const ReproduceOptions& options)
    : options_(options),
      train_set_(open_split(options, Split::train)),
      test_set_(open_split(options, Split::test)),
      run_(options.out, to_config(checked(options, *train_set_)), options.resume) {
  say(fmt::format("run directory {}", options_.out));
  say(fmt::format("{}: {} training and {} test pictures of {} classes", train_set_->name(),
                  train_set_->size(), test_set_->size(), train_set_->num_classes()));
}

void Experiment::make_baseline() {
  // Not "baseline", which is the lock of that row.
  const FileLock lock = run_.lock("make-baseline");
  const std::string file = run_.file(kBaselineFile);
  if (run_.has(kBaselineFile)) {
    normalization_ = normalization_of(read_safetensors(file).metadata, file).value_or(normalization_);
    return;
  }
  auto model = new_model();
  if (options_.weights.empty()) {
    train(*model, nullptr, {}, baseline_training());
  } else {
    normalization_ = normalization_of(load_checkpoint(options_.weights, *model), options_.weights)
                         .value_or(normalization_);
  }
  save_checkpoint(file, *model, checkpoint_metadata());
}

std::unique_ptr<Module> Experiment::new_model() const {
  return make_model(options_.model, {.classes = train_set_->num_classes(), .seed = options_.seed});
}

std::unique_ptr<Module> Experiment::baseline_model() const {
  auto model = new_model();
  load_checkpoint(run_.file(kBaselineFile), *model);
  model->set_mode(Mode::eval);
  return model;
}

std::vector<Batch> Experiment::training_pictures(std::int64_t count, std::int64_t batch_size) const {
  return random_batches(train_set_, count, batch_size, options_.seed, normalization_);
}

std::int64_t Experiment::curvature_images() const {
  return std::min(options_.curvature_images, train_set_->size());
}

Evaluation Experiment::test(Module& model) const {
  return evaluate(model, test_set_, {.normalization = normalization_});
}

TrainerOptions Experiment::baseline_training() const {
  const Row& row = baseline_row();
  return training_recipe(options_.recipe, run_,
                         {.label = row.name,
                          .job = row.slug,
                          .epochs = options_.epochs,
                          .batch_size = options_.batch_size,
                          .lr = options_.lr,
                          .weight_decay = options_.weight_decay,
                          .seed = options_.seed,
                          .normalization = normalization_},
                         train_set_->size());
}

TrainerOptions Experiment::finetuning(const std::string& label, const std::string& job,
                                      std::uint64_t seed) const {
  return finetuning_recipe(run_,
                           {.label = label,
                            .job = job,
                            .epochs = options_.finetune_epochs,
                            .batch_size = options_.batch_size,
                            .lr = options_.finetune_lr,
                            .weight_decay = options_.finetune_weight_decay,
                            .seed = seed,
                            .normalization = normalization_},
                           train_set_->size());
}

void Experiment::train(Module& model, QuantizedModel* quantized, const std::vector<Stage>& stages,
                       const TrainerOptions& options) const {
  goshawk::train(model, quantized, stages, train_set_, test_set_, options);
}

std::map<std::string, std::string> Experiment::checkpoint_metadata() const {
  auto metadata = normalization_metadata(normalization_);
  metadata.emplace("model", options_.model);
  return metadata;
}

}  // namespace goshawk
