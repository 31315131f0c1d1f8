#include "apps/reproduce_cifar/job.hpp"

#include <algorithm>

#include "apps/reproduce_cifar/dnas.hpp"
#include "apps/support/fine_tuning.hpp"
#include "apps/support/progress.hpp"
#include "quant/qat.hpp"

namespace goshawk {
namespace {

constexpr const char* kBits = "bits.json";

std::string result_file(const std::string& job) {
  return fmt::format("results/{}.json", job);
}

nlohmann::ordered_json to_json(const JobResult& r) {
  nlohmann::ordered_json json{{"row", r.row},
                              {"seed", r.seed},
                              {"weight_bits", r.weight_bits},
                              {"activation_bits", r.activation_bits},
                              {"accuracy", r.accuracy()},
                              {"correct", r.correct},
                              {"images", r.images}};
  if (r.untuned_correct) json["untuned_correct"] = *r.untuned_correct;
  json["weight_compression"] = r.weight_compression;
  json["activation_compression"] = r.activation_compression;
  json["total_compression"] = r.total_compression;
  json["packed_bytes"] = packed_to_json(r.packed);
  return json;
}

// "2", or "2 MP" when wider layers are mixed in. `widths`: LayerBits::weight or activation.
std::string describe_bits(const BitAssignment& bits, int LayerBits::*widths) {
  int low = kFullPrecision, high = 0;
  for (const LayerBits& layer : bits.layers) {
    low = std::min(low, layer.*widths);
    high = std::max(high, layer.*widths);
  }
  return low == high ? std::to_string(low) : fmt::format("{} MP", low);
}

// Bits of the layers between the first and the last, which may have widths of their own.
std::string describe_inner_bits(BitAssignment bits) {
  if (bits.layers.size() > 2) {
    bits.layers.pop_back();
    bits.layers.erase(bits.layers.begin());
  }
  return describe_bits(bits, &LayerBits::weight);
}

// Gives the inputs of all layers but the network's own widths whose mean is at most the run's: the cheapest
// of all. Among those that follow the order of the traces the cheapest may be the mean everywhere, as it is
// on CIFAR-10, which would be the row without mixed activations.
void mix_activations(const Experiment& experiment, Sensitivities& sensitivities, BitAssignment& bits) {
  const int mean = experiment.options().activation_bits;
  if (mean == kFullPrecision) return;
  const Costs& costs = sensitivities.activation_costs();
  const double bytes = static_cast<double>(mean * costs.layers.size()) / 8;
  const CostAllocation allocation = allocate(costs, AllocationMethod::exact, {.bytes = bytes});
  for (LayerBits& layer : bits.layers) {
    for (const CostAllocation::Layer& chosen : allocation.layers) {
      if (chosen.name == layer.name) layer.activation = chosen.bits;
    }
  }
}

BitAssignment make_bits(const Experiment& experiment, Sensitivities& sensitivities, const Row& row) {
  const ReproduceOptions& options = experiment.options();
  const int activations = row.activation_bits.value_or(options.activation_bits);
  const auto model = experiment.baseline_model();
  {
    // The layers learn their sizes from a forward pass.
    const NoGrad no_grad;
    (*model)(experiment.training_pictures(1, 1).front().images);
  }
  BitAssignment bits = uniform_assignment(layer_list(*model), row.weight_bits, activations);
  bits.method = row.slug;
  if (row.edge_bits) {
    for (LayerBits* edge : {&bits.layers.front(), &bits.layers.back()}) {
      edge->weight = *row.edge_bits;
      if (activations != kFullPrecision) edge->activation = *row.edge_bits;
      edge->pinned = true;
    }
  }
  if (row.bits == BitsFrom::uniform) return bits;
  if (row.bits == BitsFrom::dnas) {
    double weights = 0;
    for (const LayerBits& layer : bits.layers) weights += static_cast<double>(layer.parameters);
    const double bytes = 4 * weights / row.compression;
    const BitAssignment found = dnas_bits(experiment, bytes, activations);
    for (LayerBits& layer : bits.layers) layer.weight = found.layer(layer.name).weight;
    bits.budget_bytes = bytes;
    bits.omega = found.omega;
    return bits;
  }

  const Costs& measured = sensitivities.costs(row.costs);
  const Costs costs = row.reversed_bits ? with_reversed_scores(measured) : measured;
  bits.budget_bytes = full_precision_bytes(costs) / options.compression;
  const CostAllocation allocation = allocate(costs, row.method, {.bytes = bits.budget_bytes});
  bits.omega = allocation.objective;
  for (std::size_t l = 0; l < bits.layers.size(); ++l) bits.layers[l].weight = allocation.layers[l].bits;
  if (row.mixed_activations) mix_activations(experiment, sensitivities, bits);
  if (row.method == AllocationMethod::pareto) {
    nlohmann::ordered_json frontier{{"costs", row.costs}, {"points", nlohmann::ordered_json::array()}};
    for (const FrontierPoint& p : monotone_frontier(costs))
      frontier["points"].push_back({{"bytes", p.bytes}, {"omega", p.objective}, {"bits", p.bits}});
    experiment.run().write_json(fmt::format("pareto-{}.json", row.slug), frontier);
  }
  return bits;
}

BitAssignment assign_bits(const Experiment& experiment, Sensitivities& sensitivities, const Row& row) {
  const RunDirectory& run = experiment.run();
  // The rows of the differentiable search share it. Nobody else waits while one row's bits are made.
  const FileLock making = run.lock(fmt::format("bits-{}", row.bits == BitsFrom::dnas ? "dnas" : row.slug));
  const auto stored = [&] {
    const FileLock reading = run.lock(kBits);
    return stored_bits(experiment);
  };
  if (const auto all = stored(); all.contains(row.slug)) return all.at(row.slug);
  const BitAssignment bits = make_bits(experiment, sensitivities, row);
  const FileLock writing = run.lock(kBits);
  auto all = stored_bits(experiment);
  all.emplace(row.slug, bits);
  nlohmann::ordered_json json;
  for (const auto& [slug, value] : all) json[slug] = nlohmann::ordered_json::parse(to_json(value));
  run.write_json(kBits, json);
  return bits;
}

std::vector<Stage> make_stages(const Experiment& experiment, Sensitivities& sensitivities, const Row& row,
                               const BitAssignment& bits) {
  const ReproduceOptions& options = experiment.options();
  if (row.tuning == Tuning::at_once) return single_stage(bits, static_cast<int>(options.finetune_epochs));
  return stages_within(options.finetune_epochs, options.stages, sensitivities.costs(row.costs), bits,
                       row.tuning == Tuning::reversed);
}

QuantizationOptions quantizer_of(const Experiment& experiment, const Row& row) {
  QuantizationOptions q = quantization_options(experiment.options().quantizer);
  if (row.quantizer) {
    q.weight_scheme = row.quantizer->weights;
    q.weight_granularity = row.quantizer->granularity;
    q.weight_clip = ClipRule::min_max;
    q.activation_scheme = row.quantizer->activations;
  }
  return q;
}

JobResult make_job(const Experiment& experiment, Sensitivities& sensitivities, const Row& row,
                   std::uint64_t seed, const std::string& job) {
  if (row.bits == BitsFrom::nothing) {
    const Evaluation test = experiment.test(*experiment.baseline_model());
    return {.row = row.slug,
            .seed = seed,
            .weight_bits = "32",
            .activation_bits = "32",
            .correct = test.correct,
            .images = test.images};
  }
  const BitAssignment bits = assign_bits(experiment, sensitivities, row);
  const FineTuned tuned =
      fine_tune(experiment.run(), {.job = job,
                                   .baseline = [&] { return experiment.baseline_model(); },
                                   .bits = bits,
                                   .quantizer = quantizer_of(experiment, row),
                                   .stages = make_stages(experiment, sensitivities, row, bits),
                                   .training = experiment.finetuning(row.name, job, seed),
                                   .train_set = experiment.train_set(),
                                   .test_set = experiment.test_set(),
                                   .calibration_seed = experiment.options().seed,
                                   .metadata = experiment.checkpoint_metadata()});
  const int activations = row.activation_bits.value_or(experiment.options().activation_bits);
  const std::string activation_bits =
      row.mixed_activations ? describe_bits(bits, &LayerBits::activation) : std::to_string(activations);
  return {.row = row.slug,
          .seed = seed,
          .weight_bits = row.edge_bits ? describe_inner_bits(bits) : describe_bits(bits, &LayerBits::weight),
          .activation_bits = activation_bits,
          .correct = tuned.test.correct,
          .images = tuned.test.images,
          .untuned_correct = tuned.untuned.correct,
          .weight_compression = tuned.size.weight_compression(),
          .activation_compression = tuned.size.activation_compression(),
          .total_compression = tuned.size.total_compression(),
          .packed = tuned.packed};
}

}  // namespace

std::string job_name(const Experiment& experiment, const std::string& row, std::uint64_t seed) {
  return seed == experiment.options().seed ? row : fmt::format("{}-seed{}", row, seed);
}

std::optional<JobResult> stored_result(const Experiment& experiment, const Row& row, std::uint64_t seed) {
  const std::string file = result_file(job_name(experiment, row.slug, seed));
  if (!experiment.run().has(file)) return std::nullopt;
  return experiment.run().read_json(file, [](const nlohmann::json& value) {
    JobResult result{.row = value.at("row"),
                     .seed = value.at("seed"),
                     .weight_bits = value.at("weight_bits"),
                     .activation_bits = value.at("activation_bits"),
                     .correct = value.at("correct"),
                     .images = value.at("images"),
                     .weight_compression = value.at("weight_compression"),
                     .activation_compression = value.at("activation_compression"),
                     .total_compression = value.at("total_compression")};
    result.packed = packed_from_json(value.at("packed_bytes"));
    if (value.contains("untuned_correct"))
      result.untuned_correct = value.at("untuned_correct").get<std::int64_t>();
    return result;
  });
}

std::map<std::string, BitAssignment> stored_bits(const Experiment& experiment) {
  std::map<std::string, BitAssignment> bits;
  if (!experiment.run().has(kBits)) return bits;
  const nlohmann::json stored = experiment.run().read_json(kBits);
  for (const auto& [slug, value] : stored.items())
    bits.emplace(slug, bits_from_json(value.dump(), experiment.run().file(kBits)));
  return bits;
}

void run_job(const Experiment& experiment, Sensitivities& sensitivities, const Row& row, std::uint64_t seed) {
  const std::string job = job_name(experiment, row.slug, seed);
  const auto lock = experiment.run().try_lock(job);
  if (!lock) {
    say(fmt::format("{}: another process is at it", job));
    return;
  }
  if (experiment.run().has(result_file(job))) return;
  const JobResult result = make_job(experiment, sensitivities, row, seed, job);
  make_directories(experiment.run().file("results"));
  experiment.run().write_json(result_file(job), to_json(result));
  say(fmt::format("{}: {:.2f} % ({} of {})", job, result.accuracy(), result.correct, result.images));
}

}  // namespace goshawk
