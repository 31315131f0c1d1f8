// goshawk evaluate: how often a model is right.
#include "apps/support/evaluate.hpp"

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/goshawk/commands.hpp"
#include "apps/goshawk/model_file.hpp"
#include "apps/goshawk/pictures.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/config_file.hpp"
#include "apps/support/progress.hpp"

namespace goshawk {
namespace {

struct Options {
  std::string model, weights;
  PictureOptions pictures{.source = {}, .split = "test", .normalization = {}};
  std::int64_t batch_size = 250;
  std::int64_t images = 0;  // 0: all
  bool json = false;
  std::string convolution = "winograd";
};

void run(const Options& options) {
  check_source(options.pictures.source);
  choose_convolution(options.convolution);
  const LoadedModel loaded = load_model(options.model, options.weights, DType::f32, PackedFiles::allowed);
  std::shared_ptr<const Dataset> data =
      open_pictures(options.pictures, options.model, loaded, options.weights);
  if (options.images > 0) data = first_images(data, options.images);
  const Normalization normalization =
      normalization_for(options.pictures.normalization, options.model, loaded.metadata, options.weights);
  Progress progress("evaluating", data->size());
  const Evaluation result = evaluate(*loaded.model, data,
                                     {.batch_size = options.batch_size,
                                      .normalization = normalization,
                                      .progress = [&](std::int64_t images) { progress.update(images); }});
  progress.clear();
  check(std::isfinite(result.loss),
        "[evaluate] the model in {} has loss {} on {}: its outputs overflow; check that weights, --mean and "
        "--std "
        "belong together",
        options.weights, result.loss, options.pictures.name());
  if (options.json) {
    print_result("{}\n", evaluation_json(result).dump());
  } else {
    print_result("{}\n", evaluation_text(result));
  }
}

}  // namespace

void add_evaluate_command(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App& command = *program.add_subcommand(
      "evaluate", "Accuracy and loss of a model, packed or not, on labelled pictures");
  add_model_options(command, options->model, options->weights);
  add_picture_options(command, options->pictures);
  command
      .add_option("--images", options->images, "Take only the first N pictures (all when there are fewer)")
      ->check(positive_number())
      ->type_name("N");
  command.add_option("--batch-size", options->batch_size, "Pictures at a time")
      ->check(positive_number())
      ->type_name("N")
      ->capture_default_str();
  command.add_flag("--json", options->json,
                   "Print one JSON object: accuracy (0 to 1), correct, images, loss");
  add_threads_option(command);
  add_quiet_option(command);
  add_config_option(command);
  add_convolution_option(command, options->convolution);
  command.footer(
      "Pixels are scaled to [0,1], then normalised with --mean and --std, by default those in the metadata "
      "of the "
      "weights file (normalization.mean, normalization.std) or else the model's usual ones: .485 .456 .406 "
      "and .229 "
      ".224 .225. Example:\n  goshawk evaluate --model resnet20 --weights resnet20.safetensors --data "
      "cifar-10-batches-bin");
  command.callback([options] { run(*options); });
}

}  // namespace goshawk
