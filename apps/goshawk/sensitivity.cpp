// goshawk sensitivity: what quantizing each layer to each width costs, by every measure there is.
#include <algorithm>
#include <cmath>
#include <memory>

#include "apps/goshawk/commands.hpp"
#include "apps/goshawk/sensitivity_problem.hpp"
#include "apps/goshawk/sensitivity_report.hpp"
#include "apps/goshawk/sensitivity_state.hpp"
#include "apps/support/interrupt.hpp"
#include "apps/support/progress.hpp"
#include "apps/support/run_directory.hpp"
#include "core/file.hpp"
#include "core/parallel.hpp"
#include "core/timer.hpp"
#include "quant/quantizer.hpp"
#include "quant/residual_groups.hpp"
#include "quant/sensitivities/naive.hpp"

namespace goshawk {
namespace {

// Not among `all`: its time is that of all others many times over.
constexpr std::string_view kOnRequest = "hawq-v2-hutchinson";

constexpr const char* kResult = "sensitivity.json";
constexpr const char* kTable = "sensitivity.md";

struct Options {
  SensitivityProblemOptions problem;
  std::vector<std::string> costs{"all"};
  std::vector<int> bits{2, 3, 4, 8};
  std::vector<std::string> pins;
  bool tie_residuals = false;
  int bops_activation_bits = 0;
  std::string road = "automatic";
  double error = 0.02;
  int max_probes = 64;
  std::vector<int> activation_bits;
  std::string activation_scheme = "fixed", calibration = "mse", activation_count = "layers";
  std::string out;
  bool resume = false, json = false;
};

/// The costs asked for, in the order of the registry, each once.
std::vector<std::string> chosen_costs(const std::vector<std::string>& asked) {
  for (const std::string& name : asked) {
    if (name != "all") sensitivity_method(name);
  }
  const bool all = std::find(asked.begin(), asked.end(), "all") != asked.end();
  std::vector<std::string> chosen;
  for (const SensitivityMethod& method : sensitivity_methods()) {
    if ((all && method.name != kOnRequest) ||
        std::find(asked.begin(), asked.end(), method.name) != asked.end()) {
      chosen.emplace_back(method.name);
    }
  }
  return chosen;
}

nlohmann::ordered_json configuration(const Options& options) {
  nlohmann::ordered_json config{{"program", "goshawk sensitivity"}};
  config.update(sensitivity_problem_config(options.problem));
  const std::int64_t images = options.problem.images;
  config["images"] = images > 0 ? nlohmann::ordered_json(images) : nullptr;
  config.update({{"cost", options.costs},
                 {"bits", options.bits},
                 {"pin", options.pins},
                 {"tie-residuals", options.tie_residuals ? nlohmann::ordered_json(true) : nullptr},
                 {"bops-activation-bits", options.bops_activation_bits},
                 {"road", options.road},
                 {"error", options.error},
                 {"max-probes", options.max_probes},
                 {"activations", options.activation_bits},
                 {"activation-scheme", options.activation_scheme},
                 {"calibration", options.calibration},
                 {"activation-count", options.activation_count}});
  return config;
}

void measure_activations(const Options& options, const SensitivityData& data, const RunDirectory& directory,
                         nlohmann::ordered_json& json) {
  const Timer timer;
  const auto layers =
      activation_costs(data, {.bits = options.activation_bits,
                              .scheme = parse_activation_scheme(options.activation_scheme),
                              .calibration = {.rule = parse_calibration_rule(options.calibration),
                                              .percentile = options.problem.percentile},
                              .seed = options.problem.seed});
  json["activation_seconds"] = timer.seconds();
  json["activations"] = activation_layers_json(layers);
  const ActivationCount count =
      options.activation_count == "layers" ? ActivationCount::layers : ActivationCount::elements;
  write_file_atomic(directory.file("costs-activations.json"), to_json(to_costs(layers, count, false)));
  write_file_atomic(directory.file("costs-activations-exact-taylor.json"),
                    to_json(to_costs(layers, count, true)));
}

void run(const Options& options) {
  const std::vector<std::string> names = chosen_costs(options.costs);
  const WeightSpec spec = weight_spec_of(options.problem);
  const Road road = road_of(options.road);
  CostFileOptions file_options{.pinned = pins_of(options.pins),
                               .activation_bits = options.bops_activation_bits};
  const SensitivityProblem problem(options.problem, "sensitivity");
  const SensitivityData data = problem.data();
  if (options.tie_residuals) file_options.tied = residual_groups(data.pass()(0));
  const Timer quantizing;
  const WeightCandidates candidates = weight_candidates(data, options.bits, spec);
  nlohmann::ordered_json json{{"model", options.problem.model},
                              {"weights", options.problem.weights},
                              {"images", data.size()},
                              {"quantizer", describe(spec)},
                              {"bits", candidates.bits},
                              {"seed", options.problem.seed},
                              {"threads", num_threads()},
                              {"quantizing_seconds", quantizing.seconds()},
                              {"loss", data.loss()}};
  check(std::isfinite(json["loss"].get<double>()),
        "[sensitivity] the loss is not finite; check that weights, --mean and --std belong together");
  // Before anything is written or measured for long.
  MeasuredCosts norms;
  norms.costs = delta_norm_costs(candidates);
  to_costs(candidates, norms, file_options);
  const RunDirectory directory(options.out, configuration(options), options.resume);
  const FileLock lock = directory.lock("sensitivity");
  if (directory.has(kResult)) {
    const std::string text = directory.read_json(kResult, [&](const nlohmann::json& result) {
      check_same_loss(directory.file(kResult), result.at("loss").get<double>(), json["loss"]);
      return options.json ? result.dump() + "\n" : sensitivity_table(nlohmann::ordered_json(result));
    });
    SensitivityState::finish(directory);  // which a run that was killed at its very end has not done
    print_result(text);
    return;
  }
  const InterruptHandler on_interrupt("goshawk", resume_hint("goshawk sensitivity", options.out));
  SensitivityState state(directory, candidates, json["loss"]);

  SensitivityMeasurement measurement(data, candidates,
                                     {.road = road,
                                      .trace_error = options.error,
                                      .max_probes = options.max_probes,
                                      .seed = options.problem.seed,
                                      .microbatches = MicrobatchOptions::for_this_machine()});
  std::vector<MeasuredCosts> measured;
  Progress progress("sensitivities", static_cast<std::int64_t>(names.size()));
  for (const std::string& name : names) {
    measured.push_back(state.cost(name, [&] {
      MeasuredCosts cost = measurement.measure(name);
      write_file_atomic(directory.file(cost_file_name(name)),
                        to_json(to_costs(candidates, cost, file_options)));
      return cost;
    }));
    progress.update(static_cast<std::int64_t>(measured.size()), name);
  }
  progress.clear();
  json["methods"] = sensitivity_methods_json(measured);
  json["layers"] = sensitivity_layers(candidates, measured);
  if (!options.activation_bits.empty()) measure_activations(options, data, directory, json);
  const std::string table = sensitivity_table(json);
  write_file_atomic(directory.file(kTable), table);
  directory.write_json(kResult, json);
  SensitivityState::finish(directory);
  print_result(options.json ? json.dump() + "\n" : table);
}

}  // namespace

void add_sensitivity_command(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App& command = *program.add_subcommand(
      "sensitivity", "What quantizing each layer to each bit width costs, by every measure there is");
  add_sensitivity_problem_options(command, options->problem);
  command
      .add_option(
          "--images", options->problem.images,
          "Number of images: drawn at random from a data set (1024 or all, if not given), the first of a "
          "batch file (all)")
      ->check(positive_number())
      ->type_name("N");
  std::string known;
  for (const SensitivityMethod& method : sensitivity_methods()) {
    known += fmt::format("{}{}", known.empty() ? "" : ", ", method.name);
  }
  command
      .add_option(
          "--cost", options->costs,
          fmt::format("What to measure, with commas between: {}; all is all but {}", known, kOnRequest))
      ->delimiter(',')
      ->type_name("LIST")
      ->default_str("all");
  add_widths_option(command, "--bits", options->bits, "Weight widths each layer may take");
  command.add_option("--pin", options->pins, "Layers that keep a width, with commas between")
      ->delimiter(',')
      ->type_name("LAYER=BITS,...");
  command.add_flag(
      "--tie-residuals", options->tie_residuals,
      "Layers whose outputs meet in a residual sum get equal widths; those of --pin keep theirs");
  command
      .add_option("--bops-activation-bits", options->bops_activation_bits,
                  "Activation bits that BOPs are counted with; 0 for the weight's own")
      ->check(CLI::Range(0, 32))
      ->type_name("B")
      ->capture_default_str();
  command
      .add_option(
          "--road", options->road,
          "Of hawq and hawq-v2: exact (first derivatives), double-backward (any network), or automatic: "
          "exact where it holds")
      ->check(CLI::IsMember({"automatic", "exact", "double-backward"}))
      ->type_name("ROAD")
      ->capture_default_str();
  command.add_option("--error", options->error, "Wanted relative standard error of a trace by random probes")
      ->check(CLI::Range(1e-6, 1.0))
      ->type_name("E")
      ->capture_default_str();
  command
      .add_option(
          "--max-probes", options->max_probes,
          "Random probes for a layer's trace at most; the seconds to the wanted error are then projected")
      ->check(CLI::Range(8, 1000000))
      ->type_name("N")
      ->capture_default_str();
  add_widths_option(command, "--activations", options->activation_bits,
                    "Also what quantizing each layer's input to these widths costs");
  command
      .add_option("--activation-scheme", options->activation_scheme,
                  "fixed (levels up to a calibrated clip) or asymmetric (over a calibrated range)")
      ->check(CLI::IsMember({"fixed", "asymmetric"}))
      ->type_name("NAME")
      ->capture_default_str();
  command
      .add_option("--calibration", options->calibration,
                  "Range of the activations: max, percentile (--percentile), mse or ema")
      ->check(CLI::IsMember({"max", "percentile", "mse", "ema"}))
      ->type_name("NAME")
      ->capture_default_str();
  command
      .add_option("--activation-count", options->activation_count,
                  "What a budget on activations counts: layers (mean bits, the papers' A-comp) or elements")
      ->check(CLI::IsMember({"layers", "elements"}))
      ->type_name("NAME")
      ->capture_default_str();
  command
      .add_option("--out", options->out, "Directory for sensitivity.json, sensitivity.md and costs-NAME.json")
      ->required()
      ->type_name("DIR");
  command.add_flag("--resume", options->resume,
                   "Continue an interrupted run in --out: costs that are there are not measured again, one "
                   "that was under way begins anew");
  command.add_flag("--json", options->json, "Print one JSON object: that of sensitivity.json");
  command.footer(
      "Each costs-NAME.json is what goshawk allocate reads. Example:\n  goshawk sensitivity --model resnet20 "
      "--weights resnet20.safetensors --data cifar-10-batches-bin --cost fisher,exact-quadratic,joint --bits "
      "2,3,4,8 --out runs/sensitivity\n  goshawk allocate --costs runs/sensitivity/costs-joint.json --method "
      "joint --budget-ratio 10 --out bits.json");
  command.callback([options] { run(*options); });
}

}  // namespace goshawk
