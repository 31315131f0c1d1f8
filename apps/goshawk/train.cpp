// goshawk train: full-precision training of any model on any data.
#include <cmath>
#include <memory>

#include "apps/goshawk/commands.hpp"
#include "apps/goshawk/model_file.hpp"
#include "apps/goshawk/pictures.hpp"
#include "apps/goshawk/run_options.hpp"
#include "apps/report/write.hpp"
#include "apps/support/interrupt.hpp"
#include "apps/support/normalization.hpp"
#include "apps/support/progress.hpp"
#include "apps/support/recipes.hpp"
#include "nn/checkpoint.hpp"

namespace goshawk {
namespace {

constexpr const char* kWeights = "model.safetensors";
constexpr const char* kResult = "result.json";

struct Options {
  explicit Options(CLI::App& command) : settings(command) {}

  Settings settings;
  RunOptions run;
  std::string weights;
  std::optional<std::int64_t> epochs;
  std::string recipe = "cosine";
  double lr = 0.1, weight_decay = 5e-4;
};

std::unique_ptr<Module> initial_model(const Options& options, std::int64_t classes,
                                      std::map<std::string, std::string>& metadata) {
  if (options.weights.empty()) {
    return make_model(options.run.model, {.classes = classes, .seed = options.run.seed});
  }
  LoadedModel loaded = load_model(options.run.model, options.weights, DType::f32);
  check(loaded.classes == classes,
        "[train] the data have {} classes but the model in {} has {}; give the data it was made for", classes,
        options.weights, loaded.classes);
  metadata = loaded.metadata;
  return std::move(loaded.model);
}

void print(const Options& options, const nlohmann::json& result) {
  if (options.run.json) {
    print_result("{}\n", result.dump());
  } else {
    print_result("{}\n{}\n", evaluation_text(evaluation_from_json(result)),
                 fmt::format("{}/{}", options.run.out, kWeights));
  }
}

void run(const Options& options) {
  check_recipe(options.recipe);
  choose_convolution(options.run.convolution);
  const std::int64_t epochs = options.epochs.value_or(options.run.source.synthetic ? 12 : 60);
  const RunData data = open_run_data(options.run);
  std::map<std::string, std::string> initial;
  const auto model = initial_model(options, data.train->num_classes(), initial);
  const Normalization normalization =
      normalization_for(options.run.normalization, options.run.model, initial, options.weights);
  const RunDirectory directory(options.run.out, options.settings.to_config(), options.run.resume);
  const FileLock lock = directory.lock("train");
  if (directory.has(kResult) && directory.has(kWeights)) {
    directory.read_json(kResult, [&](const nlohmann::json& result) { print(options, result); });
    finish_with_report(options.run.out);
    return;
  }
  const InterruptHandler on_interrupt("goshawk", resume_hint(options.settings, options.run));
  say(fmt::format("{}: {} training and {} test pictures of {} classes", data.train->name(),
                  data.train->size(), data.test->size(), data.train->num_classes()));
  train(*model, nullptr, {}, data.train, data.test,
        training_recipe(options.recipe, directory,
                        {.label = options.run.model,
                         .job = "train",
                         .epochs = epochs,
                         .batch_size = options.run.batch_size,
                         .lr = options.lr,
                         .weight_decay = options.weight_decay,
                         .seed = options.run.seed,
                         .normalization = normalization,
                         .random_regions = data.random_regions},
                        data.train->size()));
  const Evaluation test = evaluate(*model, data.test, {.normalization = normalization});
  // JSON has no such number, and weights that give one are of no use.
  check(std::isfinite(test.loss),
        "[train] the loss on the test pictures is {} after training: the outputs of {} overflow; start again "
        "in another run directory with a learning rate below {:g} (--lr). The checkpoints stay in {}",
        test.loss, options.run.model, options.lr, directory.file("checkpoints"));
  auto metadata = normalization_metadata(normalization);
  metadata.emplace("model", options.run.model);
  save_checkpoint(directory.file(kWeights), *model, metadata);
  const nlohmann::ordered_json result = evaluation_json(test);
  directory.write_json(kResult, result);
  print(options, result);
  finish_with_report(options.run.out);
}

}  // namespace

void add_train_command(CLI::App& program) {
  CLI::App& command = *program.add_subcommand("train", "Train a model in full precision on any data set");
  const auto options = std::make_shared<Options>(command);
  Settings& settings = options->settings;
  add_run_options(settings, options->run);
  settings.add("weights", options->weights,
               "Start from this state dict (safetensors) instead of random weights", "FILE");
  settings.add("epochs", options->epochs, "Epochs; by default 12 of the synthetic set and 60 of another", "N")
      .check(CLI::Range(std::int64_t{1}, kMaxEpochs));
  settings.add("recipe", options->recipe,
               "cosine (one epoch of warm-up, then half a cosine to zero, Nesterov) or he2016 (plain "
               "momentum, a tenth after half and a hundredth after three quarters of the epochs)",
               "NAME");
  settings.add("lr", options->lr, "Highest learning rate", "LR").check(positive_number());
  settings.add("weight-decay", options->weight_decay, "L2 penalty on the parameters", "W")
      .check(non_negative_number());
  command.footer(
      "RUN receives config.json, log.jsonl (a line per epoch), model.safetensors, result.json and "
      "report.html. Ctrl-C "
      "saves and says how to go on. Example:\n  goshawk train --model resnet20 --data cifar-10-batches-bin "
      "--epochs 60 --out runs/resnet20");
  command.callback([options] { run(*options); });
}

}  // namespace goshawk
