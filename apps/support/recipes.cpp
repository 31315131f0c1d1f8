#include "apps/support/recipes.hpp"

#include "apps/support/progress.hpp"
#include "core/error.hpp"

namespace goshawk {
namespace {

/// Everything but the optimiser and its schedule.
TrainerOptions common_recipe(const RunDirectory& run, const RecipeOptions& options) {
  TrainerOptions t;
  t.label = options.label;
  t.epochs = options.epochs;
  t.loader = {.batch_size = options.batch_size,
              .shuffle = true,
              .drop_last = true,
              .seed = options.seed,
              .augmentation = {.horizontal_flip = true, .crop_padding = options.random_regions ? 0 : 4},
              .random_decode = options.random_regions,
              .normalization = options.normalization};
  t.checkpoint = run.file(fmt::format("checkpoints/{}.training.safetensors", options.job));
  t.on_epoch = [&run, label = options.label, job = options.job, first = true](const EpochReport& e) mutable {
    if (first) {
      run.trim_log([&](const nlohmann::json& line) {
        return line.value("row", "") != job || line.value("epoch", std::int64_t{0}) < e.epoch;
      });
      first = false;
    }
    run.log({{"row", job},
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

}  // namespace

void check_recipe(const std::string& recipe) {
  if (recipe != "cosine" && recipe != "he2016") {
    throw UsageError(
        fmt::format("--recipe: there is no recipe '{}'; the recipes are cosine and he2016", recipe));
  }
}

TrainerOptions training_recipe(const std::string& recipe, const RunDirectory& run,
                               const RecipeOptions& options, std::int64_t train_images) {
  TrainerOptions t = common_recipe(run, options);
  const std::int64_t epochs = options.epochs, steps = train_images / options.batch_size;
  const bool he2016 = recipe == "he2016";
  t.sgd = {.lr = options.lr, .momentum = 0.9, .nesterov = !he2016, .weight_decay = options.weight_decay};
  if (he2016) {
    t.schedule = StepSchedule{.lr = t.sgd.lr, .milestones = {epochs * steps / 2, epochs * steps * 3 / 4}};
  } else {
    t.schedule = with_warmup(CosineSchedule{.lr = t.sgd.lr, .total = epochs * steps}, steps);
  }
  return t;
}

TrainerOptions finetuning_recipe(const RunDirectory& run, const RecipeOptions& options,
                                 std::int64_t train_images) {
  TrainerOptions t = common_recipe(run, options);
  t.sgd = {.lr = options.lr, .momentum = 0.9, .nesterov = true, .weight_decay = options.weight_decay};
  t.clip_weight_decay = t.sgd.weight_decay;
  t.schedule = CosineSchedule{.lr = t.sgd.lr, .total = t.epochs * (train_images / options.batch_size)};
  return t;
}

}  // namespace goshawk
