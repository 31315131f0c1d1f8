#include "apps/goshawk/run_options.hpp"

#include "apps/support/config_file.hpp"
#include "apps/support/interrupt.hpp"
#include "core/error.hpp"

namespace goshawk {
namespace {

nlohmann::ordered_json triple_or_null(bool given, const std::array<float, 3>& values) {
  return given ? nlohmann::ordered_json(values) : nlohmann::ordered_json();
}

}  // namespace

void add_run_options(Settings& settings, RunOptions& options) {
  CLI::App& command = settings.command();
  settings.add("model", options.model, "Name of the model, such as resnet20; see goshawk models", "NAME")
      .required();
  settings.add("data", options.source.path, kDataHelp, "PATH");
  settings.add("synthetic", options.source.synthetic, kSyntheticHelp);
  settings.add("synthetic-seed", options.source.synthetic_seed, kSyntheticSeedHelp, "S");
  settings
      .add("train-images", options.train_images,
           "Use only the first N training pictures (of class folders N random ones); 0 for all", "N")
      .check(non_negative_number());
  settings
      .add("test-images", options.test_images,
           "Use only the first N test pictures (of class folders N random ones); 0 for all", "N")
      .check(non_negative_number());
  add_normalization_options(command, options.normalization);
  const NormalizationOptions& n = options.normalization;
  settings.put("mean", [&n] { return triple_or_null(n.mean_given, n.value.mean); });
  settings.put("std", [&n] { return triple_or_null(n.std_given, n.value.stddev); });
  settings.add("batch-size", options.batch_size, "Pictures a step", "N").check(positive_number());
  settings.add("seed", options.seed, "Of everything random", "S");
  settings.add("convolution", options.convolution, kConvolutionHelp, "NAME");
  command.add_option("--out", options.out, "Run directory")->required()->type_name("RUN");
  command.add_flag("--resume", options.resume,
                   "Continue the run in --out where it stopped, with its options; ends with the same bits");
  command.add_flag("--json", options.json, "Print the result as one JSON object");
  add_threads_option(command);
  add_quiet_option(command);
  add_config_option(command);
}

std::string resume_hint(const Settings& settings, const RunOptions& options) {
  return resume_hint("goshawk " + settings.command().get_name(), options.out);
}

RunData open_run_data(const RunOptions& options) {
  check_source(options.source);
  const InputSpec input = model_input(options.model);
  ImageFolderOptions folder = folder_options(input);
  RunData data;
  data.test = open_source(options.source, Split::test, options.test_images, folder);
  data.random_regions = is_large(input);
  folder.random_resized_crop = data.random_regions;
  data.train = open_source(options.source, Split::train, options.train_images, folder);
  check(data.train->class_names() == data.test->class_names(),
        "[data] {} has {} classes and {} has {}, or they have other names; give both splits the same class "
        "folders",
        data.train->name(), data.train->num_classes(), data.test->name(), data.test->num_classes());
  check(data.train->num_classes() > 1,
        "[data] {} has one class, '{}', and nothing to tell it from; give each class a folder of its own",
        data.train->name(), data.train->class_names().front());
  check(data.train->size() >= options.batch_size,
        "[data] {} has {} training pictures, fewer than one batch of {}; give a smaller --batch-size",
        data.train->name(), data.train->size(), options.batch_size);
  if (!data.random_regions && !options.source.synthetic) {
    data.train = load_into_memory(*data.train);
    data.test = load_into_memory(*data.test);
  }
  return data;
}

}  // namespace goshawk
