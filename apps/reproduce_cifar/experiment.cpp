#include "apps/reproduce_cifar/experiment.hpp"

#include <algorithm>
#include <numeric>

#include "apps/reproduce_cifar/rows.hpp"
#include "apps/support/normalization.hpp"
#include "core/safetensors.hpp"
#include "datasets/open.hpp"
#include "datasets/synthetic.hpp"
#include "models/registry.hpp"
#include "nn/checkpoint.hpp"

namespace goshawk {
namespace {

constexpr std::int64_t kSyntheticTrain = 10000, kSyntheticTest = 2000;
constexpr const char* kBaselineFile = "baseline.safetensors";

std::shared_ptr<const Dataset> open_split(const ReproduceOptions& options, Split split) {
  const bool train = split == Split::train;
  const std::int64_t limit = train ? options.train_images : options.test_images;
  if (options.data.empty()) {
    const std::int64_t all = train ? kSyntheticTrain : kSyntheticTest;
    return make_synthetic(split, limit > 0 ? limit : all, {.seed = options.seed});
  }
  auto dataset = open_dataset(options.data, split, {.size = 32, .resize = 32});
  if (limit > 0) dataset = first_images(dataset, limit);
  return load_into_memory(*dataset);
}

}  // namespace

Experiment::Experiment(const ReproduceOptions& options)
    : options_(options),
      train_set_(open_split(options, Split::train)),
      test_set_(open_split(options, Split::test)),
      run_(options.out, to_config(options), options.resume) {
  say(fmt::format("run directory {}", options_.out));
  say(fmt::format("{}: {} training and {} test pictures of {} classes", train_set_->name(),
                  train_set_->size(), test_set_->size(), train_set_->num_classes()));
}

void Experiment::make_baseline() {
  const FileLock lock = run_.lock("baseline");
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
  const auto sample = random_images(train_set_, count, options_.seed);
  std::vector<Batch> batches;
  for (std::int64_t begin = 0; begin < sample->size(); begin += batch_size) {
    std::vector<std::int64_t> indices(static_cast<std::size_t>(std::min(batch_size, sample->size() - begin)));
    std::iota(indices.begin(), indices.end(), begin);
    batches.push_back(make_batch(*sample, indices, normalization_));
  }
  return batches;
}

Evaluation Experiment::test(Module& model) const {
  return evaluate(model, test_set_, {.normalization = normalization_});
}

TrainerOptions Experiment::trainer_options(const std::string& label, const std::string& job,
                                           std::int64_t epochs, std::uint64_t seed) const {
  TrainerOptions t;
  t.label = label;
  t.epochs = epochs;
  t.loader = {.batch_size = options_.batch_size,
              .shuffle = true,
              .drop_last = true,
              .seed = seed,
              .augmentation = {.horizontal_flip = true, .crop_padding = 4},
              .normalization = normalization_};
  t.checkpoint = run_.file(fmt::format("checkpoints/{}.training.safetensors", job));
  t.on_epoch = [this, label, job, first = true](const EpochReport& e) mutable {
    if (first) {
      run_.trim_log([&](const nlohmann::json& line) {
        return line.value("row", "") != job || line.value("epoch", std::int64_t{0}) < e.epoch;
      });
      first = false;
    }
    run_.log({{"row", job},
              {"stage", e.stage},
              {"epoch", e.epoch},
              {"lr", e.lr},
              {"train_loss", e.train_loss},
              {"train_accuracy", e.train_accuracy},
              {"test_loss", e.test.loss},
              {"test_accuracy", e.test.accuracy()},
              {"seconds", e.seconds},
              {"images_per_second", e.images_per_second}});
    say(fmt::format("{} epoch {:3}  loss {:.4f}  train {:5.2f} %  test {:5.2f} %  {:.0f} images/s", label,
                    e.epoch + 1, e.train_loss, 100 * e.train_accuracy, 100 * e.test.accuracy(),
                    e.images_per_second));
  };
  return t;
}

TrainerOptions Experiment::baseline_training() const {
  const Row& row = baseline_row();
  TrainerOptions t = trainer_options(row.name, row.slug, options_.epochs, options_.seed);
  const std::int64_t epochs = options_.epochs, steps = steps_per_epoch();
  // He et al., Deep Residual Learning, 2016, section 4.2, in epochs: 200 of them there.
  const bool he2016 = options_.recipe == "he2016";
  t.sgd = {.lr = options_.lr, .momentum = 0.9, .nesterov = !he2016, .weight_decay = options_.weight_decay};
  if (he2016) {
    t.schedule = StepSchedule{.lr = t.sgd.lr, .milestones = {epochs / 2 * steps, epochs * 3 / 4 * steps}};
  } else {
    t.schedule = with_warmup(CosineSchedule{.lr = t.sgd.lr, .total = epochs * steps}, steps);
  }
  return t;
}

TrainerOptions Experiment::finetuning(const std::string& label, const std::string& job,
                                      std::uint64_t seed) const {
  TrainerOptions t = trainer_options(label, job, options_.finetune_epochs, seed);
  t.sgd = {.lr = options_.finetune_lr,
           .momentum = 0.9,
           .nesterov = true,
           .weight_decay = options_.finetune_weight_decay};
  t.clip_weight_decay = t.sgd.weight_decay;
  t.schedule = CosineSchedule{.lr = t.sgd.lr, .total = t.epochs * steps_per_epoch()};
  return t;
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

void Experiment::say(const std::string& text) const {
  if (!options_.quiet) fmt::print(stderr, "{}\n", text);
}

}  // namespace goshawk
