// goshawk quantize: the whole pipeline for a model of one's own, from sensitivities to a packed model.
#include <memory>

#include "apps/goshawk/budgets.hpp"
#include "apps/goshawk/commands.hpp"
#include "apps/goshawk/finetune_options.hpp"
#include "apps/goshawk/sensitivity_problem.hpp"
#include "apps/report/write.hpp"
#include "apps/support/interrupt.hpp"
#include "apps/support/progress.hpp"
#include "apps/support/text_table.hpp"
#include "core/file.hpp"
#include "quant/residual_groups.hpp"
#include "quant/sensitivities/registry.hpp"

namespace goshawk {
namespace {

/// Pictures per gradient graph: its activations should stay near the caches.
constexpr std::int64_t kSensitivityBatch = 64;
constexpr const char* kCosts = "costs.json";

struct Options : FineTuneOptions {
  using FineTuneOptions::FineTuneOptions;
  BudgetOptions budgets;
  std::string latencies, cost = "exact-quadratic", method = "exact";
  std::vector<int> bits{2, 3, 4, 8};
  std::vector<std::string> pins;
  bool tie_residuals = false;
  std::int64_t images = 1024;
  std::string road = "automatic";
  double error = 0.1;
  int max_probes = 200;
};

void check_options(const Options& options) {
  options.budgets.check();
  if (options.budgets.latency_ms && options.latencies.empty()) {
    throw UsageError(
        "--budget-latency needs to know how long each layer takes at each width; give --latencies FILE");
  }
  sensitivity_method(options.cost);
  pins_of(options.pins);  // throws for what cannot be
  if (options.method == "joint" && options.cost != "joint") {
    throw UsageError("--method joint needs what pairs of layers cost together; give --cost joint as well");
  }
}

Costs cost_file(const Options& options, const SensitivityData& data, const WeightCandidates& candidates,
                const MeasuredCosts& measured) {
  CostFileOptions file_options{.pinned = pins_of(options.pins), .activation_bits = options.activation_bits};
  if (options.tie_residuals) file_options.tied = residual_groups(data.pass()(0));
  Costs costs = to_costs(candidates, measured, file_options);
  if (!options.latencies.empty()) add_latencies(costs, options.latencies);
  return costs;
}

/// What quantizing each layer costs; measured once, then read from the run.
Costs make_costs(const Options& options, const FineTuneProblem& problem, const RunDirectory& directory) {
  if (directory.has(kCosts)) return read_costs(directory.file(kCosts));
  const auto model = problem.baseline();
  const SensitivityData data(*model, random_batches(problem.data().train, options.images, kSensitivityBatch,
                                                    options.run.seed, problem.normalization()));
  say(fmt::format("measuring {} on {} pictures", options.cost, data.size()));
  const WeightCandidates candidates =
      weight_candidates(data, options.bits, initial_weight_spec(options.quantizer));
  SensitivityMeasurement measurement(data, candidates,
                                     {.road = road_of(options.road),
                                      .trace_error = options.error,
                                      .max_probes = options.max_probes,
                                      .seed = options.run.seed,
                                      .microbatches = MicrobatchOptions::for_this_machine()});
  const MeasuredCosts measured = measurement.measure(options.cost);
  const Costs costs = cost_file(options, data, candidates, measured);
  directory.log({{"sensitivity", measured.name},
                 {"seconds", measured.seconds},
                 {"projected_seconds", measured.projected_seconds},
                 {"road", measured.road}});
  write_file_atomic(directory.file(kCosts), to_json(costs));
  return read_costs(directory.file(kCosts));
}

BitAssignment make_bits(const Options& options, const FineTuneProblem& problem, const Costs& costs) {
  const AllocationBudgets budgets = options.budgets.of(costs);
  const CostAllocation allocation = allocate(costs, allocation_method(options.method), budgets);
  BitAssignment bits{.method = fmt::format("{} {}", options.cost, allocation.method),
                     .budget_bytes = budgets.bytes.value_or(0),
                     .omega = allocation.objective,
                     .layers = problem.layers()};
  for (std::size_t l = 0; l < bits.layers.size(); ++l) {
    bits.layers[l].weight = allocation.layers[l].bits;
    bits.layers[l].activation = options.activation_bits;
    bits.layers[l].pinned = costs.layers[l].pinned.has_value();
  }
  return bits;
}

/// Whether the budget can be met and the pins are layers and widths, before anything is measured.
void check_budget(const Options& options, const FineTuneProblem& problem) {
  const auto model = problem.baseline();
  const SensitivityData data(
      *model, random_batches(problem.data().train, 1, 1, options.run.seed, problem.normalization()));
  const WeightCandidates candidates =
      weight_candidates(data, options.bits, initial_weight_spec(options.quantizer));
  MeasuredCosts norms;
  norms.costs =
      make_table(candidates, [&](std::size_t l, std::size_t b) { return candidates.layers[l].norms[b]; });
  Costs costs = cost_file(options, data, candidates, norms);
  costs.source = options.latencies.empty() ? options.run.model : options.latencies;
  const AllocationBudgets budgets = options.budgets.of(costs);
  const AllocationMethod method = allocation_method(options.method);
  // These two begin with the smallest choices, whatever those cost. What the others find depends on the
  // costs, which are not known yet.
  if (method == AllocationMethod::ratio || method == AllocationMethod::greedy) {
    allocate(costs, method, budgets);
  } else {
    check_budgets(costs, budgets);
  }
}

std::string bits_table(const BitAssignment& bits) {
  std::vector<std::vector<std::string>> table{{"layer", "weights", "w-bits", "a-bits"}};
  for (const LayerBits& layer : bits.layers) {
    const bool first = &layer == &bits.layers.front();
    table.push_back({layer.name, std::to_string(layer.parameters), std::to_string(layer.weight),
                     std::to_string(first ? picture_bits(layer.activation) : layer.activation)});
  }
  return text_table(table);
}

void run(const Options& options) {
  check_options(options);
  const FineTuneProblem problem(options);
  check_budget(options, problem);
  const RunDirectory directory(options.run.out, options.settings.to_config(), options.run.resume);
  const FileLock lock = directory.lock("quantize");
  const InterruptHandler on_interrupt("goshawk", resume_hint(options.settings, options.run));
  problem.announce();
  const nlohmann::ordered_json baseline = problem.evaluate_baseline(directory);
  const Costs costs = make_costs(options, problem, directory);
  const BitAssignment bits = make_bits(options, problem, costs);
  if (!has_result(directory)) {
    nlohmann::ordered_json result =
        problem.fine_tune(directory, bits, stages_within(options.epochs, options.stages, costs, bits));
    result["baseline"] = baseline;
    directory.write_json(kResultFile, result);
  }
  if (!options.run.json) print_result("{}\n", bits_table(bits));
  print_finetune_result(options, directory);
  finish_with_report(options.run.out);
}

}  // namespace

void add_quantize_command(CLI::App& program) {
  CLI::App& command = *program.add_subcommand(
      "quantize", "The whole way: sensitivities, bits under a budget, fine-tuning in order, a packed model");
  const auto options = std::make_shared<Options>(command);
  Settings& settings = options->settings;
  add_finetune_options(*options);
  options->budgets.add_to(
      [&](const char* name, std::optional<double>& budget, const char* help,
          const char* type_name) -> CLI::Option& { return settings.add(name, budget, help, type_name); });
  settings.add("latencies", options->latencies,
               "For --budget-latency: what each width takes in each layer, as in a cost file's latency_ms",
               "FILE");
  std::string known;
  for (const SensitivityMethod& method : sensitivity_methods()) {
    known += fmt::format("{}{}", known.empty() ? "" : ", ", method.name);
  }
  settings.add("cost", options->cost, "What a width costs: " + known, "NAME");
  settings
      .add("method", options->method,
           "How bits are chosen: exact, ratio (HAWQ), pareto (HAWQ-V2), greedy (MPQCO) or joint (with --cost "
           "joint)",
           "NAME")
      .check(CLI::IsMember({"ratio", "pareto", "greedy", "exact", "joint"}));
  settings.add("bits", options->bits, "Weight widths each layer may take", "B,B,...")
      .default_str(fmt::format("{}", fmt::join(options->bits, ",")))
      ->check(bit_width());
  settings.add("pin", options->pins, "Layers that keep a width, with commas between", "LAYER=BITS,...");
  command.add_flag(
      "--tie-residuals", options->tie_residuals,
      "Layers whose outputs meet in a residual sum get equal widths; those of --pin keep theirs");
  // Null when it was not given, as in runs that were begun before there was such an option.
  settings.put("tie-residuals", [options = options.get()] {
    return options->tie_residuals ? nlohmann::ordered_json(true) : nlohmann::ordered_json();
  });
  settings
      .add("sensitivity-images", options->images, "Training pictures that the costs are measured on, at most",
           "N")
      .check(positive_number());
  settings
      .add("road", options->road,
           "Of hawq and hawq-v2: exact (first derivatives), double-backward (any network), or automatic: "
           "exact where it holds",
           "ROAD")
      .check(CLI::IsMember({"automatic", "exact", "double-backward"}));
  settings.add("error", options->error, "Wanted relative standard error of a trace by random probes", "E")
      .check(CLI::Range(1e-6, 1.0));
  settings.add("max-probes", options->max_probes, "Random probes for a layer's trace at most", "N")
      .check(CLI::Range(8, 1000000));
  command.footer(
      "RUN receives what goshawk finetune leaves there and costs.json (for goshawk allocate); "
      "report.html shows all of it. "
      "The papers' way is --cost hawq-v2 --method pareto. Ctrl-C saves and says how to go on. Example:\n  "
      "goshawk quantize --model resnet20 --weights resnet20.safetensors --data cifar-10-batches-bin "
      "--budget-ratio 10 --out runs/small");
  command.callback([options] { run(*options); });
}

}  // namespace goshawk
