// The whole page: what to see first, the sections that have something, how to make the run again.
#include "apps/report/page.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <iterator>

#include "apps/report/sections.hpp"
#include "apps/reproduce_cifar/options.hpp"
#include "apps/reproduce_cifar/rows.hpp"
#include "apps/support/figure_text.hpp"

namespace goshawk {
namespace {

using Json = nlohmann::json;

constexpr const char* kSameBytes = "The same seed gives the same bytes for any number of threads";

// A word of a shell's command line, in quotes where it needs them.
std::string shell_word(const std::string& word) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) != 0 ||
           std::string_view("_-./,:=@+%").find(static_cast<char>(c)) != std::string_view::npos;
  };
  if (!word.empty() && std::all_of(word.begin(), word.end(), plain)) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string setting_text(const Json& value) {
  if (value.is_string()) return without_directories(value.get<std::string>());
  if (!value.is_array()) return value.dump();
  std::string text;
  for (const Json& item : value) text += (text.empty() ? "" : ",") + setting_text(item);
  return text;
}

// A value that stands for "not given".
bool is_empty(const Json& value) {
  // empty() of a JSON string is false: it has one value.
  return value.is_null() || (value.is_array() && value.empty()) ||
         (value.is_string() && setting_text(value).empty());
}

// Breaks a command line into lines that end in a backslash.
std::string command_text(const std::vector<std::string>& words) {
  constexpr std::size_t kWidth = 76;
  std::string text, line;
  for (const std::string& word : words) {
    if (!line.empty() && line.size() + 1 + word.size() > kWidth) {
      text += line + " \\\n";
      line = "   ";
    }
    line += (line.empty() ? "" : " ") + word;
  }
  return text + line;
}

// An option and its value are one word here: they stay on one line.
std::string option(const std::string& name, const std::string& value) {
  return fmt::format("--{} {}", name, shell_word(value));
}

/// The directory's own name, also of "." and "runs/a/".
std::string run_name(const ReportRun& run) {
  std::filesystem::path path = std::filesystem::absolute(run.path).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

/// Another directory: this one already holds a run.
std::string out_option(const ReportRun& run) {
  return option("out", run_name(run) + "-again");
}

std::string reproduce_command(const ReportRun& run) {
  std::vector<std::string> words{"reproduce_cifar"};
  const nlohmann::ordered_json defaults = to_config(ReproduceOptions{});
  for (const auto& [name, usual] : defaults.items()) {
    if (!run.config.contains(name)) continue;
    const Json& value = run.config.at(name);
    if (!is_empty(value) && value != Json(usual)) words.push_back(option(name, setting_text(value)));
  }
  const bool synthetic = !run.config.contains("data") || is_empty(run.config.at("data"));
  std::vector<std::string> usual, made;
  for (const Row* row : find_rows(synthetic ? "main" : "all")) {
    // A group has the rows that belong to it wherever they stand in the table.
    usual.emplace_back(row->slug);
  }
  std::size_t seeds = 1;
  for (const ReportRow& row : run.rows) {
    made.push_back(row.slug);
    seeds = std::max(seeds, row.seeds);
  }
  std::string list;
  for (const std::string& slug : made) list += (list.empty() ? "" : ",") + slug;
  std::sort(usual.begin(), usual.end());
  std::sort(made.begin(), made.end());
  if (!made.empty() && made != usual) words.push_back(option("only", list));
  if (seeds > 1) words.push_back(option("finetune-seeds", std::to_string(seeds)));
  words.push_back(out_option(run));
  return command_text(words);
}

// The command of predict_loss or of a subcommand of goshawk, whose config.json has all of its options.
std::string full_command(const ReportRun& run) {
  std::vector<std::string> words{run.program};
  const auto add = [&](const std::string& name, const Json& value) {
    // A number of images or directions that was not given is written as 0 or -1.
    const bool open =
        run.is_curvature_run() && ((name == "images" && value == 0) || (name == "directions" && value == -1));
    if (name == "program" || is_empty(value) || open || value == Json(false)) return;
    if (value == Json(true)) {
      words.push_back("--" + name);
    } else if ((name == "layer" || name == "widths") && value.is_array()) {
      for (const Json& item : value) words.push_back(option(name, setting_text(item)));
    } else {
      words.push_back(option(name, setting_text(value)));
    }
  };
  // What the command is about, and then the rest.
  static constexpr const char* kFirst[] = {"model", "weights", "data", "synthetic"};
  for (const char* name : kFirst) {
    if (run.config.contains(name)) add(name, run.config.at(name));
  }
  for (const auto& [name, value] : run.config.items()) {
    if (std::find(std::begin(kFirst), std::end(kFirst), name) == std::end(kFirst)) add(name, value);
  }
  words.push_back(out_option(run));
  return command_text(words);
}

// The row to show first: the quantized one with mixed precision that loses least.
const ReportRow* best_row(const ReportRun& run) {
  if (run.one_model) return run.row(kModelJob);
  const ReportRow* best = nullptr;
  for (const ReportRow& row : run.rows) {
    if (row.slug == kBaselineJob || !row.drop || row.weight_bits.find("MP") == std::string::npos) continue;
    if (best == nullptr || *row.drop < *best->drop) best = &row;
  }
  return best;
}

}  // namespace

std::string file_name_part(const std::string& name) {
  std::string part = name;
  for (char& c : part) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '.' && c != '-') c = '_';
  }
  return part;
}

ReportSection reproduction_section(const ReportRun& run) {
  ReportSection section{.id = "reproduce", .title = "How to reproduce it"};
  if (run.config.is_null()) return section;
  if (!run.program.empty()) {
    if (run.one_model) section.blocks.emplace_back(ReportText{kSameBytes + std::string(".")});
    section.blocks.emplace_back(ReportCode{full_command(run)});
    if (run.one_model) {
      section.blocks.emplace_back(ReportText{"The same from this directory's config.json:"});
      section.blocks.emplace_back(
          ReportCode{command_text({run.program, option("config", "config.json"), out_option(run)})});
    }
  } else {
    section.blocks.emplace_back(
        ReportText{kSameBytes + std::string(". Settings that are not named are the program's own.")});
    section.blocks.emplace_back(ReportCode{reproduce_command(run)});
  }
  ReportTable settings{.rows = {{"setting", "value"}}, .caption = "All settings", .folded = true};
  bool shortened = false;
  for (const auto& [name, value] : run.config.items()) {
    settings.rows.push_back({name, setting_text(value)});
    shortened = shortened || (value.is_string() && setting_text(value) != value.get<std::string>());
  }
  if (shortened) section.blocks.emplace_back(ReportText{"Of an absolute path only the last name is shown."});
  section.blocks.emplace_back(std::move(settings));
  return section;
}

ReportPage report_page(const ReportRun& run) {
  ReportPage page;
  page.title = run_name(run);
  if (!run.model.empty())
    page.summary = run.data.empty() ? run.model : fmt::format("{}, {}", run.model, run.data);
  if (const ReportRow* baseline = run.baseline()) {
    page.highlights.emplace_back(run.one_model ? "full precision" : "baseline",
                                 fmt::format("{:.2f} %", baseline->accuracy));
  }
  if (const ReportRow* best = best_row(run)) {
    page.highlights.emplace_back(best->name, fmt::format("{:.2f} %", best->accuracy));
    if (best->drop) page.highlights.emplace_back("drop, in points", fmt::format("{:.2f}", *best->drop));
    page.highlights.emplace_back("weights smaller by", fmt::format("{:.2f}×", best->weight_compression));
    if (best->packed) {
      page.highlights.emplace_back(
          "packed file", fmt::format("{:.1f} kB", static_cast<double>(best->packed->total()) / 1000));
    }
  }
  if (run.predictions) {
    const ReportPredictions& predictions = *run.predictions;
    const std::string& best = predictions.ranking.front();
    std::size_t draws = 0;
    for (const ReportPredictionSet& set : predictions.sets) draws += set.draws();
    page.highlights = {
        {"random assignments", with_thousands(static_cast<double>(draws))},
        {"held-out pictures", with_thousands(static_cast<double>(predictions.held_out_images))},
        {"ranks best on average", predictor_title(best)},
        {"its mean rank correlation", fmt::format("{:.2f}", predictions.mean_correlation(best))}};
  }
  for (ReportSection& section :
       std::vector{ranking_section(run), predictions_section(run), table_section(run), layers_section(run),
                   frontier_section(run), curvature_section(run), training_section(run), size_section(run),
                   reproduction_section(run)}) {
    if (!section.blocks.empty()) page.sections.push_back(std::move(section));
  }
  if (!run.missing.empty()) {
    page.sections.push_back({"missing", "Not in this run", {ReportList{run.missing}}});
  }
  return page;
}

std::string hidden_points(const Figure& figure) {
  if (figure.x.scale != AxisScale::log) return "";
  std::ptrdiff_t hidden = 0;
  for (const FigureSeries& series : figure.series) {
    hidden += std::ranges::count_if(series.points, [](const FigurePoint& p) { return !(p.x > 0); });
  }
  if (hidden == 0) return "";
  return fmt::format(" {} {} not positive and {} no place on it.", hidden,
                     hidden == 1 ? "value is" : "values are", hidden == 1 ? "has" : "have");
}

}  // namespace goshawk
