// goshawk evaluate: how often a model is right.
#include "apps/support/evaluate.hpp"

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/goshawk/commands.hpp"
#include "apps/goshawk/model_file.hpp"
#include "apps/goshawk/pictures.hpp"
#include "apps/support/class_predictions.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/config_file.hpp"
#include "apps/support/output_file.hpp"
#include "apps/support/progress.hpp"

namespace goshawk {
namespace {

struct Options {
  std::string model, weights;
  PictureOptions pictures{.source = {}, .split = "test", .normalization = {}};
  std::int64_t batch_size = 250;
  std::int64_t images = 0;  // 0: all
  std::string predictions, against;
  bool json = false;
  std::string convolution = "winograd";
};

nlohmann::ordered_json comparison_json(const PairedComparison& comparison) {
  return {{"difference", comparison.difference()},
          {"standard_error", comparison.standard_error()},
          {"only_this", comparison.only_first},
          {"only_other", comparison.only_second}};
}

std::string comparison_text(const PairedComparison& comparison, const std::string& other) {
  return fmt::format(
      "{:+.2f} ± {:.2f} points against {} (standard error; of the same pictures, {} are right here only, {} "
      "there only)",
      100 * comparison.difference(), 100 * comparison.standard_error(), other, comparison.only_first,
      comparison.only_second);
}

void run(const Options& options) {
  check_source(options.pictures.source);
  check_apart({"--predictions", options.predictions}, {{"--weights", options.weights},
                                                       {"--data", options.pictures.source.path},
                                                       {"--against", options.against}});
  check_writable(options.predictions);
  // Before the work, which a file that cannot be read would waste.
  std::optional<ClassPredictions> other;
  if (!options.against.empty()) other = read_predictions(options.against);
  choose_convolution(options.convolution);
  const LoadedModel loaded = load_model(options.model, options.weights, DType::f32, PackedFiles::allowed);
  std::shared_ptr<const Dataset> data =
      open_pictures(options.pictures, options.model, loaded, options.weights);
  if (options.images > 0) data = some_images(data, options.images);
  const Normalization normalization =
      normalization_for(options.pictures.normalization, options.model, loaded.metadata, options.weights);
  Progress progress("evaluating", data->size());
  ClassPredictions predictions;
  const Evaluation result = evaluate(
      *loaded.model, data,
      {.batch_size = options.batch_size,
       .normalization = normalization,
       .progress = [&](std::int64_t images) { progress.update(images); },
       .on_logits = [&](const Batch& batch, const Tensor& logits) { predictions.add(batch, logits); }});
  progress.clear();
  check(std::isfinite(result.loss),
        "[evaluate] the model in {} has loss {} on {}: its outputs overflow; check that weights, --mean and "
        "--std "
        "belong together",
        options.weights, result.loss, options.pictures.name());
  if (!options.predictions.empty()) write_predictions(options.predictions, predictions);
  std::optional<PairedComparison> comparison;
  if (other) comparison = compare(predictions, *other, options.against);
  if (options.json) {
    nlohmann::ordered_json json = evaluation_json(result);
    if (comparison) json["against"] = comparison_json(*comparison);
    print_result("{}\n", json.dump());
    return;
  }
  print_result("{}\n", evaluation_text(result));
  if (comparison) print_result("{}\n", comparison_text(*comparison, options.against));
}

}  // namespace

void add_evaluate_command(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App& command = *program.add_subcommand(
      "evaluate", "Accuracy and loss of a model, packed or not, on labelled pictures");
  add_model_options(command, options->model, options->weights);
  add_picture_options(command, options->pictures);
  command
      .add_option("--images", options->images,
                  "Take only the first N pictures (of class folders N random ones; all when there are fewer)")
      ->check(positive_number())
      ->type_name("N");
  command.add_option("--batch-size", options->batch_size, "Pictures at a time")
      ->check(positive_number())
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option("--predictions", options->predictions,
                  "Write what each picture was taken for: image,label,predicted")
      ->type_name("FILE");
  command
      .add_option(
          "--against", options->against,
          "Also compare with another model, of which --predictions wrote this file, picture by picture")
      ->type_name("FILE");
  command.add_flag(
      "--json", options->json,
      "Print one JSON object: accuracy (0 to 1), correct, images, loss, and with --against the difference");
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
