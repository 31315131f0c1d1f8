#include "apps/reproduce_cifar/dnas.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "apps/support/interrupt.hpp"
#include "apps/support/progress.hpp"
#include "core/timer.hpp"
#include "quant/dnas_search.hpp"

namespace goshawk {
namespace {

/// Widths that the search chooses from: the table's rows begin at one bit.
const std::vector<int> kCandidates = {1, 2, 3, 4, 8};

/// A search may end at a smaller network than a row's; the row still has the row's size.
constexpr double kLeastShareOfBudget = 0.95;

constexpr double kLastTemperature = 0.09;

// The rows' quantizer, whose steps learn in the search as they do in the rows.
WeightSpec row_quantizer(const QuantizerSettings& settings) {
  WeightSpec spec = initial_weight_spec(settings);
  spec.clip = quantization_options(settings).weight_clip;
  return spec;
}

}  // namespace

BitAssignment dnas_bits(const Experiment& experiment, double bytes, int activation_bits) {
  const ReproduceOptions& options = experiment.options();
  const TrainerOptions recipe = experiment.finetuning("DNAS", "dnas", options.seed);
  const auto model = experiment.baseline_model();
  SuperNet net(*model, {.candidates = kCandidates, .quantizer = row_quantizer(options.quantizer)});
  DnasOptions search_options;
  search_options.epochs = recipe.epochs;
  search_options.warmup_epochs = std::min(search_options.warmup_epochs, recipe.epochs - 1);
  // With this the expected size ends between those of the two rows (docs/dnas.md).
  search_options.gamma = 5;
  // A high temperature mixes all candidates alike and hides what few bits cost, so the search begins at 1. It
  // ends where nearly one candidate is left at a time: none is judged by what wide ones do in its mixture.
  search_options.temperature = 1;
  search_options.temperature_decay = -std::log(kLastTemperature) / static_cast<double>(recipe.epochs);
  search_options.weights = recipe.sgd;
  search_options.loader = recipe.loader;
  search_options.loader.drop_last = false;  // a part of the data may be less than a batch
  search_options.seed = options.seed;
  search_options.schedule = CosineSchedule{
      .lr = recipe.sgd.lr,
      .total = recipe.epochs * weight_steps_per_epoch(experiment.train_set()->size(), search_options)};
  search_options.checkpoint = experiment.run().file("checkpoints/dnas.search.safetensors");
  std::optional<Progress> progress;
  search_options.on_step = [&](std::int64_t done, std::int64_t total) {
    if (!progress) progress.emplace("DNAS search", total, done);
    progress->update(done);
    // Another row has failed, or the user waits for rows beside this one; the last epoch is saved.
    if (DeferInterrupt::interrupted()) throw_interrupted();
  };
  Timer timer;
  bool first = true;
  search_options.on_epoch = [&](const DnasEpoch& e) {
    if (first) {  // a search that was broken off may have noted epochs that its checkpoint lacks
      experiment.run().trim_log([&](const nlohmann::json& line) {
        return line.value("search", "") != "dnas" || line.value("search_epoch", std::int64_t{0}) < e.epoch;
      });
      first = false;
    }
    experiment.run().log({{"search", "dnas"},
                          {"search_epoch", e.epoch},
                          {"temperature", e.temperature},
                          {"weight_loss", e.weight_loss},
                          {"architecture_loss", e.architecture_loss},
                          {"expected_bytes", e.expected_bytes},
                          {"confidence", e.confidence},
                          {"seconds", timer.seconds()}});
    timer = {};
    say(fmt::format("DNAS search epoch {:3}  loss {:.4f}  expected size {:.0f} bytes", e.epoch + 1,
                    e.weight_loss, e.expected_bytes));
  };
  search(net, experiment.train_set(), search_options);
  return net.most_probable_within(bytes, activation_bits, kLeastShareOfBudget * bytes);
}

}  // namespace goshawk
