// goshawk finetune: from full-precision weights and bits to a fine-tuned packed model.
#include <algorithm>
#include <memory>

#include "apps/goshawk/bits_file.hpp"
#include "apps/goshawk/commands.hpp"
#include "apps/goshawk/finetune_options.hpp"
#include "apps/report/write.hpp"
#include "apps/support/interrupt.hpp"
#include "apps/support/suggestions.hpp"

namespace goshawk {
namespace {

struct Options : FineTuneOptions {
  using FineTuneOptions::FineTuneOptions;
  std::string bits, costs, order;
};

/// The stages in a file, which must quantize every layer once.
std::vector<Stage> stages_from_file(const std::string& path, const BitAssignment& bits) {
  std::vector<Stage> stages = read_stages(path);
  std::vector<std::string> missing;
  for (const LayerBits& layer : bits.layers) missing.push_back(layer.name);
  const std::vector<std::string> names = missing;
  for (const Stage& stage : stages) {
    check(stages.size() == 1 || stage.epochs > 0,
          "[order] {}: a stage has 0 epochs; put its layers into the next one", path);
    for (const std::string& layer : stage.layers) {
      const auto it = std::find(missing.begin(), missing.end(), layer);
      check(it != missing.end(), "[order] {}: there is no layer '{}', or it is named twice; did you mean {}?",
            path, layer, nearest_names(layer, names, 1));
      missing.erase(it);
    }
  }
  check(missing.empty(), "[order] {}: no stage quantizes layer '{}'; add it to one", path,
        missing.empty() ? "" : missing.front());
  return stages;
}

std::vector<Stage> stages_of(const Options& options, const BitAssignment& bits) {
  if (!options.order.empty()) return stages_from_file(options.order, bits);
  if (options.costs.empty()) return single_stage(bits, static_cast<int>(options.epochs));
  return stages_within(options.epochs, options.stages, read_costs(options.costs), bits);
}

void run(const Options& options) {
  const FineTuneProblem problem(options);
  const BitAssignment bits = read_bits_for(options.bits, problem.layers(), options.activation_bits);
  const std::vector<Stage> stages = stages_of(options, bits);
  const RunDirectory directory(options.run.out, options.settings.to_config(), options.run.resume);
  const FileLock lock = directory.lock("finetune");
  const InterruptHandler on_interrupt("goshawk", resume_hint(options.settings, options.run));
  problem.announce();
  const nlohmann::ordered_json baseline = problem.evaluate_baseline(directory);
  if (!has_result(directory)) {
    nlohmann::ordered_json result = problem.fine_tune(directory, bits, stages);
    result["baseline"] = baseline;
    directory.write_json(kResultFile, result);
  }
  print_finetune_result(options, directory);
  finish_with_report(options.run.out);
}

}  // namespace

void add_finetune_command(CLI::App& program) {
  CLI::App& command = *program.add_subcommand(
      "finetune", "Quantize a model to given bits, fine-tune and pack it, and evaluate the packed model");
  const auto options = std::make_shared<Options>(command);
  Settings& settings = options->settings;
  add_finetune_options(*options);
  settings.add("bits", options->bits, "bits.json, of goshawk allocate or of another run", "FILE").required();
  CLI::Option& costs = settings.add(
      "costs", options->costs,
      "costs.json that orders the layers for --stages; without it all are quantized at once", "FILE");
  settings
      .add("order", options->order,
           "order.json with stages and their epochs to follow, in place of --costs, --stages and --epochs",
           "FILE")
      .excludes(&costs);
  command.footer(
      "RUN receives config.json, bits.json, baseline.json, order-model.json, log.jsonl (a line per epoch), "
      "model.packed.safetensors, model.safetensors (the same weights dequantized), result.json and "
      "report.html. Ctrl-C saves and says how to go on. Example:\n  goshawk finetune --model resnet20 "
      "--weights "
      "resnet20.safetensors --data cifar-10-batches-bin --bits bits.json --costs costs.json --out "
      "runs/mixed");
  command.callback([options] { run(*options); });
}

}  // namespace goshawk
