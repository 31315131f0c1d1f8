// predict_loss: which sensitivity predicts best what a mixed-precision assignment does to the loss?
#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "apps/goshawk/sensitivity_problem.hpp"
#include "apps/report/predictions.hpp"
#include "apps/report/write.hpp"
#include "apps/support/interrupt.hpp"
#include "apps/support/program.hpp"
#include "apps/support/progress.hpp"
#include "apps/support/run_directory.hpp"
#include "apps/support/text_table.hpp"
#include "core/file.hpp"
#include "core/random.hpp"
#include "core/rank_correlation.hpp"
#include "quant/quantizer.hpp"
#include "quant/sensitivities/naive.hpp"
#include "quant/sensitivities/registry.hpp"

namespace goshawk {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kLevel = 0.95;  // of all intervals
constexpr const char* kLosses = "losses.json";

struct Options {
  SensitivityProblemOptions problem;
  std::int64_t calibration = 512, held_out = 512;
  std::string held_out_split;  ///< empty: that of the calibration pictures
  int draws = 200;
  std::vector<std::string> widths{"4,6,8", "3,4,6", "2,3,4,6,8", "2,3,4"};
  std::vector<std::string> costs;
  int resamples = 2000;
  std::string out;
  bool resume = false;
};

std::vector<int> parse_widths(const std::string& text) {
  std::set<int> widths;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    if (part.size() != 1 || part[0] < '1' || part[0] > '8') {
      throw UsageError(
          fmt::format("--widths: '{}' is not a list of widths from 1 to 8, such as 2,3,4", text));
    }
    widths.insert(part[0] - '0');
    begin = end + 1;
  }
  if (widths.size() < 2)
    throw UsageError(fmt::format("--widths: '{}' leaves nothing to draw; give two", text));
  return {widths.begin(), widths.end()};
}

/// One random assignment and what it did.
struct Point {
  std::vector<int> choice;
  double held_out = 0, calibration = 0;  // true loss changes
};

/// Every layer's width is drawn with equal probability from the set, from the random stream of the draw.
std::vector<int> draw(const std::vector<int>& widths, const WeightCandidates& candidates, std::uint64_t seed,
                      std::size_t set, int number) {
  Random random(seed, (static_cast<std::uint64_t>(set + 1) << 32) + static_cast<std::uint64_t>(number));
  std::vector<int> choice;
  for (std::size_t l = 0; l < candidates.layers.size(); ++l) {
    const int bits = widths[static_cast<std::size_t>(random.below(widths.size()))];
    const auto place = std::find(candidates.bits.begin(), candidates.bits.end(), bits);
    choice.push_back(static_cast<int>(place - candidates.bits.begin()));
  }
  return choice;
}

double predicted(const MeasuredCosts& measured, const std::vector<int>& choice) {
  if (measured.pairs) return measured.pairs->cost(choice);
  double sum = 0;
  for (std::size_t l = 0; l < choice.size(); ++l)
    sum += measured.costs[l][static_cast<std::size_t>(choice[l])];
  return sum;
}

double weight_bytes(const WeightCandidates& candidates, const std::vector<int>& choice) {
  double bytes = 0;
  for (std::size_t l = 0; l < choice.size(); ++l) {
    bytes += static_cast<double>(candidates.layers[l].parameters) *
             candidates.bits[static_cast<std::size_t>(choice[l])] / 8;
  }
  return bytes;
}

double weights_of(const WeightCandidates& candidates) {
  double weights = 0;
  for (const WeightCandidates::Layer& layer : candidates.layers)
    weights += static_cast<double>(layer.parameters);
  return weights;
}

/// Whether the held-out pictures come from a split of their own.
bool has_two_splits(const Options& options) {
  const PictureOptions& pictures = options.problem.pictures;
  if (options.held_out_split.empty() || options.held_out_split == pictures.split) return false;
  const std::string& file = options.problem.batch.empty() ? pictures.source.path : options.problem.batch;
  if (!file.empty() && !std::filesystem::is_directory(file)) {
    throw UsageError(
        "--held-out-split: one file of pictures has no splits; leave it out, and other pictures of the file "
        "are held out");
  }
  return true;
}

Json configuration(const Options& options) {
  Json config{{"program", "predict_loss"}};
  config.update(sensitivity_problem_config(options.problem));
  config.update({{"calibration", options.calibration},
                 {"held-out", options.held_out},
                 {"held-out-split", options.held_out_split},
                 {"draws", options.draws},
                 {"widths", options.widths},
                 {"cost", options.costs},
                 {"resamples", options.resamples}});
  return config;
}

Json to_json(const RankCorrelation& r, const char* value) {
  return {{value, r.value}, {"low", r.low}, {"high", r.high}};
}

Json correlation(const std::vector<double>& x, const std::vector<double>& y, const Options& options) {
  return to_json(bootstrap_spearman(x, y, options.resamples, kLevel, options.problem.seed), "spearman");
}

/// Mean losses of the unchanged network.
struct Losses {
  double calibration = 0, held_out = 0;
};

/// Stores the losses that a run begins with. One that goes on takes draws from its log, which are of these
/// weights and pictures only.
void check_losses(const RunDirectory& directory, const Losses& now) {
  if (!directory.has(kLosses)) {
    directory.write_json(kLosses, {{"calibration_loss", now.calibration}, {"held_out_loss", now.held_out}});
    return;
  }
  const auto before = directory.read_json(kLosses, [](const nlohmann::json& json) {
    return Losses{.calibration = json.at("calibration_loss"), .held_out = json.at("held_out_loss")};
  });
  check(before.calibration == now.calibration && before.held_out == now.held_out,
        "[predict_loss] {} has losses of {} and {} where they are {} and {} now: weights, pictures or the "
        "kind of machine have changed since; give another --out",
        directory.file(kLosses), before.calibration, before.held_out, now.calibration, now.held_out);
}

/// The true loss changes of all draws of all sets, from the log as far as it goes.
std::vector<std::vector<Point>> measure_points(const Options& options, const RunDirectory& directory,
                                               const std::vector<std::vector<int>>& sets,
                                               const WeightCandidates& candidates,
                                               const SensitivityData& calibration,
                                               const SensitivityData& held_out, const Losses& losses) {
  std::map<std::pair<std::size_t, int>, std::pair<double, double>> known;
  directory.trim_log([&](const nlohmann::json& line) {
    for (const char* key : {"set", "draw"}) {
      if (!line.contains(key) || !line.at(key).is_number_unsigned()) return false;
    }
    for (const char* key : {"held_out", "calibration"}) {
      if (!line.contains(key) || !line.at(key).is_number()) return false;  // null stands for a NaN
    }
    known[{line.at("set").get<std::size_t>(), line.at("draw").get<int>()}] = {
        line.at("held_out").get<double>(), line.at("calibration").get<double>()};
    return true;
  });
  std::vector<std::vector<Point>> points(sets.size());
  Progress progress("assignments", static_cast<std::int64_t>(sets.size()) * options.draws,
                    static_cast<std::int64_t>(known.size()));
  for (std::size_t s = 0; s < sets.size(); ++s) {
    for (int d = 0; d < options.draws; ++d) {
      Point& point = points[s].emplace_back();
      point.choice = draw(sets[s], candidates, options.problem.seed, s, d);
      if (const auto found = known.find({s, d}); found != known.end()) {
        std::tie(point.held_out, point.calibration) = found->second;
        continue;
      }
      point.held_out = assignment_loss_change(held_out, candidates, point.choice, losses.held_out);
      point.calibration = assignment_loss_change(calibration, candidates, point.choice, losses.calibration);
      directory.log(
          {{"set", s}, {"draw", d}, {"held_out", point.held_out}, {"calibration", point.calibration}});
      progress.update(static_cast<std::int64_t>(s) * options.draws + d + 1, options.widths[s]);
    }
  }
  return points;
}

/// The measured sensitivity that ranks best on the held-out pictures, and by how much each other one is
/// behind.
void compare_with_best(const Options& options, const std::vector<double>& held_out, Json& set) {
  std::string best;
  double most = -INFINITY;
  for (const auto& [name, method] : set.at("methods").items()) {
    const double value = method.at("held_out").at("spearman");
    if (!method.contains("predicted") || value <= most) continue;
    best = name;
    most = value;
  }
  set["best"] = best;
  const auto first = set.at("methods").at(best).at("predicted").get<std::vector<double>>();
  for (auto& [name, method] : set["methods"].items()) {
    if (!method.contains("predicted")) continue;
    method["behind_best"] =
        to_json(bootstrap_spearman_difference(first, method.at("predicted").get<std::vector<double>>(),
                                              held_out, options.resamples, kLevel, options.problem.seed),
                "difference");
  }
}

Json set_json(const Options& options, const WeightCandidates& candidates,
              const std::vector<MeasuredCosts>& measured, const std::vector<Point>& points) {
  std::vector<double> held_out, calibration, bytes, mean_bits;
  for (const Point& point : points) {
    held_out.push_back(point.held_out);
    calibration.push_back(point.calibration);
    bytes.push_back(weight_bytes(candidates, point.choice));
    mean_bits.push_back(8 * bytes.back() / weights_of(candidates));
  }
  Json json{{"bytes", bytes},
            {"mean_bits", mean_bits},
            {"true_held_out", held_out},
            {"true_calibration", calibration}};
  for (const Point& point : points) {
    std::vector<int> widths;
    for (int b : point.choice) widths.push_back(candidates.bits[static_cast<std::size_t>(b)]);
    json["widths_of_layers"].push_back(widths);
  }
  // What knowing nothing but the size, and what knowing the loss change on other pictures, would give.
  std::vector<double> narrow = mean_bits;
  for (double& b : narrow) b = -b;
  json["methods"]["mean-bits"] = {{"held_out", correlation(narrow, held_out, options)},
                                  {"calibration", correlation(narrow, calibration, options)}};
  for (const MeasuredCosts& m : measured) {
    std::vector<double> prediction;
    for (const Point& point : points) prediction.push_back(predicted(m, point.choice));
    json["methods"][m.name] = {{"held_out", correlation(prediction, held_out, options)},
                               {"calibration", correlation(prediction, calibration, options)},
                               {"predicted", prediction}};
  }
  json["methods"]["true-on-calibration"] = {{"held_out", correlation(calibration, held_out, options)},
                                            {"calibration", correlation(calibration, calibration, options)}};
  compare_with_best(options, held_out, json);
  return json;
}

std::string table(const Json& result, const char* pictures) {
  std::vector<std::vector<std::string>> rows{{"predicted by"}};
  for (const auto& [widths, set] : result.at("sets").items()) {
    rows[0].push_back(widths);
    std::size_t r = 0;
    for (const auto& [name, method] : set.at("methods").items()) {
      if (++r == rows.size()) rows.push_back({name});
      const Json& c = method.at(pictures);
      rows[r].push_back(fmt::format("{:.2f} [{:.2f}, {:.2f}]", c.at("spearman").get<double>(),
                                    c.at("low").get<double>(), c.at("high").get<double>()));
    }
  }
  return text_table(rows);
}

void run(Options options) {
  std::vector<std::vector<int>> sets;
  std::set<int> all;
  for (const std::string& text : options.widths) {
    sets.push_back(parse_widths(text));
    all.insert(sets.back().begin(), sets.back().end());
  }
  if (options.costs.empty()) {
    for (const SensitivityMethod& method : sensitivity_methods()) {
      if (method.name != "hawq-v2-hutchinson") options.costs.emplace_back(method.name);
    }
  }
  for (const std::string& name : options.costs) sensitivity_method(name);
  const WeightSpec spec = weight_spec_of(options.problem);
  const bool two_splits = has_two_splits(options);
  options.problem.images = options.calibration + (two_splits ? 0 : options.held_out);
  const SensitivityProblem problem(options.problem, "predict_loss");
  std::optional<SensitivityProblem> other;
  if (two_splits) {
    SensitivityProblemOptions of_other = options.problem;
    of_other.pictures.split = options.held_out_split;
    of_other.images = options.held_out;
    other.emplace(of_other, "predict_loss");
  }
  const SensitivityData calibration = problem.data(0, options.calibration);
  const SensitivityData held_out = other ? other->data_for(problem.model(), 0, other->images())
                                         : problem.data(options.calibration, problem.images());
  const Losses losses{.calibration = calibration.loss(), .held_out = held_out.loss()};
  check(std::isfinite(losses.calibration) && std::isfinite(losses.held_out),
        "[predict_loss] the loss is not finite; check that weights, --mean and --std belong together");
  const RunDirectory directory(options.out, configuration(options), options.resume);
  const FileLock lock = directory.lock("predict_loss");
  const InterruptHandler on_interrupt("predict_loss", resume_hint("predict_loss", options.out));
  check_losses(directory, losses);
  const WeightCandidates candidates = weight_candidates(calibration, {all.begin(), all.end()}, spec);

  Json result{{"format", kPredictionsFormat},
              {"model", options.problem.model},
              {"weights", options.problem.weights},
              {"quantizer", describe(spec)},
              {"calibration_images", options.calibration},
              {"held_out_images", options.held_out},
              {"calibration_loss", losses.calibration},
              {"held_out_loss", losses.held_out},
              {"draws", options.draws},
              {"interval", kLevel}};
  if (two_splits) {
    result["calibration_split"] = options.problem.pictures.split;
    result["held_out_split"] = options.held_out_split;
  }
  for (const WeightCandidates::Layer& layer : candidates.layers) result["layers"].push_back(layer.name);
  SensitivityMeasurement measurement(
      calibration, candidates,
      {.seed = options.problem.seed, .microbatches = MicrobatchOptions::for_this_machine()});
  std::vector<MeasuredCosts> measured;
  Progress progress("sensitivities", static_cast<std::int64_t>(options.costs.size()));
  for (const std::string& name : options.costs) {
    measured.push_back(measurement.measure(name));
    result["seconds"][name] = measured.back().seconds;
    progress.update(static_cast<std::int64_t>(measured.size()), name);
  }
  progress.clear();
  const auto points = measure_points(options, directory, sets, candidates, calibration, held_out, losses);
  for (std::size_t s = 0; s < sets.size(); ++s) {
    result["sets"][options.widths[s]] = set_json(options, candidates, measured, points[s]);
  }
  directory.write_json("predictions.json", result);
  const std::string text = fmt::format(
      "Spearman's rank correlation [95 % bootstrap interval] of predicted with true loss change before "
      "fine-tuning, {} random assignments a column\n\nOn {} held-out pictures\n\n{}\nOn the {} pictures that "
      "the costs were measured on\n\n{}",
      options.draws, options.held_out, table(result, "held_out"), options.calibration,
      table(result, "calibration"));
  write_file_atomic(directory.file("predictions.md"), text);
  print_result(text);
  finish_with_report(options.out);
}

}  // namespace
}  // namespace goshawk

int main(int argc, char** argv) {
  using namespace goshawk;
  return run_program("predict_loss", [&] {
    Options options;
    CLI::App program(
        "Predicted against true loss change of random mixed-precision assignments of the weights, before "
        "fine-tuning, for every sensitivity.\n\nExample: predict_loss --model resnet20 --weights "
        "resnet20.safetensors --data cifar-10-batches-bin --out runs/predict\n",
        "predict_loss");
    set_up_command_line(program);
    add_sensitivity_problem_options(program, options.problem);
    program.add_option("--calibration", options.calibration, "Pictures that the costs are measured on")
        ->check(positive_number())
        ->type_name("N")
        ->capture_default_str();
    program.add_option("--held-out", options.held_out, "Other pictures, for the true loss change")
        ->check(positive_number())
        ->type_name("N")
        ->capture_default_str();
    program
        .add_option("--held-out-split", options.held_out_split,
                    "test or train, of the held-out pictures; by default other pictures of --split")
        ->check(CLI::IsMember({"test", "train"}))
        ->type_name("NAME");
    program.add_option("--draws", options.draws, "Random assignments from each set of widths")
        ->check(CLI::Range(8, 100000))
        ->type_name("R")
        ->capture_default_str();
    program
        .add_option("--widths", options.widths,
                    "A set of widths to draw every layer's from, such as 2,3,4; may be given several times")
        ->type_name("B,B,...")
        ->default_str("4,6,8 then 3,4,6 then 2,3,4,6,8 then 2,3,4");
    program
        .add_option("--cost", options.costs,
                    "Sensitivities, as for goshawk sensitivity; by default all but hawq-v2-hutchinson")
        ->delimiter(',')
        ->type_name("LIST");
    program.add_option("--resamples", options.resamples, "Of the bootstrap")
        ->check(CLI::Range(100, 1000000))
        ->type_name("N")
        ->capture_default_str();
    program
        .add_option("--out", options.out,
                    "Directory for predictions.json, predictions.md, the report and log.jsonl")
        ->required()
        ->type_name("DIR");
    program.add_flag("--resume", options.resume,
                     "Go on with the interrupted run in --out, with its options: assignments that are in its "
                     "log are not measured again");
    program.callback([&] { run(options); });
    run_command_line(program, argc, argv);
    return 0;
  });
}
