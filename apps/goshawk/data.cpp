// goshawk data: what a data set holds.
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/goshawk/commands.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/data_source.hpp"
#include "apps/support/text_table.hpp"
#include "datasets/augment.hpp"

namespace goshawk {
namespace {

struct Options {
  DataSource source;
  std::int64_t size = 224;
  std::int64_t images = 0;  // 0: all
  std::uint64_t seed = 0;
  bool json = false;
};

struct SplitReport {
  std::string name;  // "train"; "all" of a file, which has no splits
  std::shared_ptr<const Dataset> data;
  std::vector<std::int64_t> counts;  // by class
  Normalization normalization;
};

/// Whether the source has this split at all. Folders may lack one; everything else that is missing is an
/// error for whoever opens it.
bool has_split(const DataSource& source, Split split) {
  const std::filesystem::path path = source.path;
  std::error_code none;
  const auto folder = [&](const char* name) { return std::filesystem::is_directory(path / name, none); };
  const bool train = folder("train"), test = folder("val") || folder("test");
  if (source.synthetic || (!train && !test)) return true;
  return split == Split::train ? train : test;
}

SplitReport open_split(const Options& options, Split split) {
  SplitReport report;
  std::error_code none;
  report.name = std::filesystem::is_regular_file(options.source.path, none) ? "all" : split_name(split);
  report.data =
      open_source(options.source, split, 0,
                  {.size = options.size, .resize = options.size < 128 ? options.size : options.size * 8 / 7});
  report.counts.resize(static_cast<std::size_t>(report.data->num_classes()));
  for (std::int64_t i = 0; i < report.data->size(); ++i) {
    ++report.counts[static_cast<std::size_t>(report.data->label(i))];
  }
  return report;
}

std::string triple(const std::array<float, 3>& values) {
  return fmt::format("{:.4f} {:.4f} {:.4f}", values[0], values[1], values[2]);
}

std::string text_report(const std::vector<SplitReport>& splits) {
  std::string text;
  std::vector<std::vector<std::string>> table{{"split", "pictures", "size", "mean", "std"}};
  for (const SplitReport& s : splits) {
    text += fmt::format("{}\n", s.data->name());
    const ImageSize size = s.data->image_size();
    table.push_back({s.name, std::to_string(s.data->size()), fmt::format("{}x{}", size.height, size.width),
                     triple(s.normalization.mean), triple(s.normalization.stddev)});
  }
  text += "\n" + text_table(table) + "\n";
  std::vector<std::vector<std::string>> classes{{"class", "name"}};
  for (const SplitReport& s : splits) classes.front().push_back(s.name);
  const std::vector<std::string>& names = splits.front().data->class_names();
  for (std::size_t c = 0; c < names.size(); ++c) {
    auto& row = classes.emplace_back(std::vector<std::string>{std::to_string(c), names[c]});
    for (const SplitReport& s : splits) row.push_back(std::to_string(s.counts[c]));
  }
  return text + text_table(classes);
}

std::string json_report(const std::vector<SplitReport>& splits, const std::string& source) {
  nlohmann::ordered_json json{{"classes", splits.front().data->class_names()}};
  for (const SplitReport& s : splits) {
    const ImageSize size = s.data->image_size();
    json["splits"].push_back({{"split", s.name},
                              {"name", s.data->name()},
                              {"images", s.data->size()},
                              {"counts", s.counts},
                              {"height", size.height},
                              {"width", size.width},
                              {"mean", s.normalization.mean},
                              {"std", s.normalization.stddev}});
  }
  try {
    return json.dump() + "\n";
  } catch (const nlohmann::json::type_error&) {
    fail(
        "[data] {} has a name in it that is not UTF-8, which JSON cannot hold; rename that class folder, or "
        "leave out --json",
        source);
  }
}

void run(const Options& options) {
  check_source(options.source);
  std::vector<SplitReport> splits;
  for (const Split split : {Split::train, Split::test}) {
    if (!has_split(options.source, split)) continue;
    splits.push_back(open_split(options, split));
    if (splits.back().name == "all") break;
  }
  for (SplitReport& s : splits) {
    check(s.data->class_names() == splits.front().data->class_names(),
          "[data] {} has {} classes and {} has {}, or they have other names; give both splits the same class "
          "folders",
          splits.front().data->name(), splits.front().data->num_classes(), s.data->name(),
          s.data->num_classes());
    s.normalization = measure_normalization(
        options.images > 0 ? *random_images(s.data, options.images, options.seed) : *s.data);
  }
  print_result(options.json ? json_report(splits, options.source.path) : text_report(splits));
}

}  // namespace

void add_data_command(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App& command =
      *program.add_subcommand("data", "What a data set holds: pictures and classes of each split, mean, std");
  command.add_option("data", options->source.path, kDataHelp)->type_name("PATH");
  command.add_flag("--synthetic", options->source.synthetic, kSyntheticHelp);
  command.add_option("--synthetic-seed", options->source.synthetic_seed, kSyntheticSeedHelp)
      ->check(non_negative_number())
      ->type_name("S")
      ->capture_default_str();
  command
      .add_option("--size", options->size,
                  "Height and width that pictures in folders are brought to, as a model's input would be")
      ->check(CLI::Range(1, 4096))
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option("--images", options->images,
                  "Measure mean and std on N pictures of each split, drawn at random; all if not given")
      ->check(positive_number())
      ->type_name("N");
  command.add_option("--seed", options->seed, "Of that choice")
      ->check(non_negative_number())
      ->type_name("S")
      ->capture_default_str();
  command.add_flag("--json", options->json,
                   "Print one JSON object: classes, and for each of splits: split, name, images, counts, "
                   "height, width, mean, std");
  add_threads_option(command);
  command.footer(
      "Mean and std are those of pixels in [0,1], as --mean and --std take them. Example:\n"
      "  goshawk data cifar-10-batches-bin --json");
  command.callback([options] { run(*options); });
}

}  // namespace goshawk
