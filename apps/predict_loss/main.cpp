// predict_loss: which sensitivity predicts best what a mixed-precision assignment does to the loss?
#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "apps/goshawk/sensitivity_problem.hpp"
#include "apps/support/program.hpp"
#include "apps/support/progress.hpp"
#include "apps/support/run_directory.hpp"
#include "apps/support/text_table.hpp"
#include "core/file.hpp"
#include "core/random.hpp"
#include "core/rank_correlation.hpp"
#include "quant/qat.hpp"
#include "quant/sensitivities/naive.hpp"
#include "quant/sensitivities/registry.hpp"

namespace goshawk {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  SensitivityProblemOptions problem;
  std::int64_t calibration = 512, held_out = 512;
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

double mean_bits(const WeightCandidates& candidates, const std::vector<int>& choice) {
  double bits = 0, weights = 0;
  for (std::size_t l = 0; l < choice.size(); ++l) {
    const auto n = static_cast<double>(candidates.layers[l].parameters);
    bits += n * candidates.bits[static_cast<std::size_t>(choice[l])];
    weights += n;
  }
  return bits / weights;
}

Json configuration(const Options& options) {
  Json config{{"program", "predict_loss"}};
  config.update(sensitivity_problem_config(options.problem));
  config.update({{"calibration", options.calibration},
                 {"held-out", options.held_out},
                 {"draws", options.draws},
                 {"widths", options.widths},
                 {"cost", options.costs},
                 {"resamples", options.resamples}});
  return config;
}

Json correlation(const std::vector<double>& x, const std::vector<double>& y, const Options& options) {
  const RankCorrelation r = bootstrap_spearman(x, y, options.resamples, 0.95, options.problem.seed);
  return {{"spearman", r.value}, {"low", r.low}, {"high", r.high}};
}

/// The true loss changes of all draws of all sets, from the log as far as it goes.
std::vector<std::vector<Point>> measure_points(const Options& options, const RunDirectory& directory,
                                               const std::vector<std::vector<int>>& sets,
                                               const WeightCandidates& candidates,
                                               const SensitivityData& calibration,
                                               const SensitivityData& held_out) {
  std::map<std::pair<std::size_t, int>, std::pair<double, double>> known;
  directory.trim_log([&](const nlohmann::json& line) {
    if (!line.contains("set") || !line.contains("draw")) return false;
    known[{line.at("set").get<std::size_t>(), line.at("draw").get<int>()}] = {
        line.at("held_out").get<double>(), line.at("calibration").get<double>()};
    return true;
  });
  const double loss = calibration.loss(), held_out_loss = held_out.loss();
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
      point.held_out = assignment_loss_change(held_out, candidates, point.choice, held_out_loss);
      point.calibration = assignment_loss_change(calibration, candidates, point.choice, loss);
      directory.log(
          {{"set", s}, {"draw", d}, {"held_out", point.held_out}, {"calibration", point.calibration}});
      progress.update(static_cast<std::int64_t>(s) * options.draws + d + 1, options.widths[s]);
    }
  }
  return points;
}

Json set_json(const Options& options, const WeightCandidates& candidates,
              const std::vector<MeasuredCosts>& measured, const std::vector<Point>& points) {
  std::vector<double> held_out, calibration, bits;
  for (const Point& point : points) {
    held_out.push_back(point.held_out);
    calibration.push_back(point.calibration);
    bits.push_back(mean_bits(candidates, point.choice));
  }
  Json json{{"mean_bits", bits}, {"true_held_out", held_out}, {"true_calibration", calibration}};
  for (const Point& point : points) {
    std::vector<int> widths;
    for (int b : point.choice) widths.push_back(candidates.bits[static_cast<std::size_t>(b)]);
    json["widths_of_layers"].push_back(widths);
  }
  // What knowing nothing but the size, and what knowing the loss change on other pictures, would give.
  std::vector<double> narrow = bits;
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
  options.problem.images = options.calibration + options.held_out;
  const SensitivityProblem problem(options.problem, "predict_loss");
  const RunDirectory directory(options.out, configuration(options), options.resume);
  const SensitivityData calibration = problem.data(0, options.calibration);
  const SensitivityData held_out = problem.data(options.calibration, problem.images());
  const WeightCandidates candidates = weight_candidates(calibration, {all.begin(), all.end()}, spec);

  Json result{{"model", options.problem.model},
              {"weights", options.problem.weights},
              {"quantizer", describe(spec)},
              {"calibration_images", options.calibration},
              {"held_out_images", options.held_out},
              {"calibration_loss", calibration.loss()},
              {"held_out_loss", held_out.loss()},
              {"draws", options.draws},
              {"interval", 0.95}};
  SensitivityMeasurement measurement(calibration, candidates, {.seed = options.problem.seed});
  std::vector<MeasuredCosts> measured;
  Progress progress("sensitivities", static_cast<std::int64_t>(options.costs.size()));
  for (const std::string& name : options.costs) {
    measured.push_back(measurement.measure(name));
    result["seconds"][name] = measured.back().seconds;
    progress.update(static_cast<std::int64_t>(measured.size()), name);
  }
  progress.clear();
  const auto points = measure_points(options, directory, sets, candidates, calibration, held_out);
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
        ->check(CLI::PositiveNumber)
        ->type_name("N")
        ->capture_default_str();
    program.add_option("--held-out", options.held_out, "Other pictures, for the true loss change")
        ->check(CLI::PositiveNumber)
        ->type_name("N")
        ->capture_default_str();
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
    program.add_option("--out", options.out, "Directory for predictions.json, predictions.md and log.jsonl")
        ->required()
        ->type_name("DIR");
    program.add_flag("--resume", options.resume,
                     "Go on with the interrupted run in --out, given the same options");
    program.callback([&] { run(options); });
    run_command_line(program, argc, argv);
    return 0;
  });
}
