// goshawk evaluate: how often a model is right.
#include "apps/support/evaluate.hpp"

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/goshawk/commands.hpp"
#include "apps/goshawk/model_file.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/normalization.hpp"
#include "apps/support/progress.hpp"
#include "datasets/open.hpp"
#include "models/registry.hpp"

namespace goshawk {
namespace {

struct Options {
  std::string model, weights, data;
  std::string split = "test";
  std::int64_t batch_size = 250;
  std::int64_t images = 0;  // 0: all
  bool json = false;
  std::string convolution = "winograd";
  NormalizationOptions normalization;
};

Normalization model_normalization(const InputSpec& input) {
  Normalization normalization;
  for (std::size_t c = 0; c < 3; ++c) {
    normalization.mean[c] = static_cast<float>(input.mean[c]);
    normalization.stddev[c] = static_cast<float>(input.std[c]);
  }
  return normalization;
}

/// Pictures from files come in the model's input size: large ones by the usual protocol (shorter side 256 for
/// 224, then the centre), small ones whole as far as they are square.
ImageFolderOptions folder_options(const InputSpec& input) {
  return {.size = input.height, .resize = input.height < 128 ? input.height : input.height * 8 / 7};
}

void run(const Options& options) {
  choose_convolution(options.convolution);
  const InputSpec input = model_input(options.model);
  const LoadedModel loaded = load_model(options.model, options.weights, DType::f32);
  std::shared_ptr<const Dataset> data = open_dataset(
      options.data, options.split == "train" ? Split::train : Split::test, folder_options(input));
  check(data->num_classes() == loaded.classes,
        "[evaluate] {} has {} classes but the model in {} has {}; give the data it was trained for",
        options.data, data->num_classes(), options.weights, loaded.classes);
  if (options.images > 0) data = first_images(data, options.images);

  // An unusable normalisation in the file does not matter when both options replace it.
  Normalization normalization = model_normalization(input);
  if (!(options.normalization.mean_given && options.normalization.std_given)) {
    normalization = normalization_of(loaded.metadata, options.weights).value_or(normalization);
  }
  Progress progress("evaluating", data->size());
  const Evaluation result = evaluate(*loaded.model, data,
                                     {.batch_size = options.batch_size,
                                      .normalization = options.normalization.or_else(normalization),
                                      .progress = [&](std::int64_t images) { progress.update(images); }});
  progress.clear();
  check(std::isfinite(result.loss),
        "[evaluate] the model in {} has loss {} on {}: its outputs overflow; check that weights, --mean and "
        "--std "
        "belong together",
        options.weights, result.loss, options.data);
  if (options.json) {
    const nlohmann::ordered_json object = {{"accuracy", result.accuracy()},
                                           {"correct", result.correct},
                                           {"images", result.images},
                                           {"loss", result.loss}};
    print_result("{}\n", object.dump());
  } else {
    print_result("accuracy {:.2f} %, {} of {} images correct, loss {:.6g}\n", 100 * result.accuracy(),
                 result.correct, result.images, result.loss);
  }
}

}  // namespace

void add_evaluate_command(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App& command =
      *program.add_subcommand("evaluate", "Accuracy and loss of a model on labelled pictures");
  command.add_option("--model", options->model, "Name of the model, such as resnet20")
      ->required()
      ->type_name("NAME");
  command.add_option("--weights", options->weights, "Its state dict (safetensors)")
      ->required()
      ->type_name("FILE");
  command
      .add_option(
          "--data", options->data,
          "CIFAR-10 directory, one batch file, or directory of train/ and val/ or test/ class folders")
      ->required()
      ->type_name("PATH");
  command.add_option("--split", options->split, "test or train; a batch file is taken whatever the split")
      ->check(CLI::IsMember({"test", "train"}))
      ->type_name("NAME")
      ->capture_default_str();
  command
      .add_option("--images", options->images, "Take only the first N pictures (all when there are fewer)")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  command.add_option("--batch-size", options->batch_size, "Pictures at a time")
      ->check(CLI::PositiveNumber)
      ->type_name("N")
      ->capture_default_str();
  add_normalization_options(command, options->normalization);
  command.add_flag("--json", options->json,
                   "Print one JSON object: accuracy (0 to 1), correct, images, loss");
  add_threads_option(command);
  add_convolution_option(command, options->convolution);
  command.footer(
      "Pixels are scaled to [0,1], then normalised with --mean and --std, by default those in the metadata "
      "of the "
      "weights file\n(normalization.mean, normalization.std) or else the model's usual ones: .485 .456 .406 "
      "and .229 "
      ".224 .225.");
  command.callback([options] { run(*options); });
}

}  // namespace goshawk
