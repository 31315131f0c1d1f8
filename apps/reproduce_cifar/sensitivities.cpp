#include "apps/reproduce_cifar/sensitivities.hpp"

#include "apps/support/progress.hpp"
#include "core/file.hpp"
#include "core/timer.hpp"
#include "quant/quantizer.hpp"
#include "quant/sensitivities/activation_costs.hpp"
#include "quant/sensitivities/registry.hpp"
#include "quant/sensitivity.hpp"

namespace goshawk {
namespace {

/// Pictures per gradient graph: its activations should stay near the caches.
constexpr std::int64_t kCurvatureBatch = 64;

std::string costs_file(const std::string& name) {
  return fmt::format("costs-{}.json", name);
}

const std::vector<double>& detail(const MeasuredCosts& measured, std::string_view name) {
  for (const auto& [known, values] : measured.details) {
    if (known == name) return values;
  }
  fail("[reproduce_cifar] the sensitivity {} has no '{}'", measured.name, name);
}

// sensitivity.json: what "hawq" and "hawq-v2" are made of.
Sensitivity describe_curvature(const WeightCandidates& candidates, const MeasuredCosts& hawq,
                               const MeasuredCosts& v2, const Experiment& experiment) {
  const ReproduceOptions& options = experiment.options();
  Sensitivity s;
  s.model = options.model;
  s.weights = "baseline.safetensors";
  s.quantizer = describe(initial_weight_spec(options.quantizer));
  s.images = experiment.curvature_images();
  for (std::size_t l = 0; l < candidates.layers.size(); ++l) {
    const WeightCandidates::Layer& from = candidates.layers[l];
    LayerSensitivity& layer = s.layers.emplace_back();
    layer.name = from.name;
    layer.parameters = from.parameters;
    layer.macs = from.macs;
    layer.input_elements = from.input_elements;
    layer.lambda_max = detail(hawq, "lambda")[l];
    layer.lambda_residual = detail(hawq, "residual")[l];
    // The larger of the two errors is the one that matters: the exact road has no probes.
    layer.trace = {detail(v2, "trace")[l],
                   std::hypot(detail(v2, "trace_error")[l], detail(v2, "trace_image_error")[l]),
                   static_cast<std::int64_t>(detail(v2, "trace_samples")[l])};
    for (std::size_t b = 0; b < candidates.bits.size(); ++b) {
      if (candidates.bits[b] != kFullPrecision) layer.perturbation[candidates.bits[b]] = from.norms[b];
    }
  }
  return s;
}

}  // namespace

const Costs& Sensitivities::costs(const std::string& name) {
  const std::lock_guard guard(mutex_);
  if (const auto it = known_.find(name); it != known_.end()) return it->second;
  const RunDirectory& run = experiment_.run();
  {
    const FileLock lock = run.lock("sensitivities");
    if (!run.has(costs_file(name))) measure(name);
  }
  return known_.emplace(name, read_costs(run.file(costs_file(name)))).first->second;
}

void Sensitivities::measure(const std::string& name) const {
  if (name == kActivations) {
    measure_activations();
  } else if (name == "hawq" || name == "hawq-v2") {
    measure_weights({"hawq", "hawq-v2"});
  } else {
    measure_weights({name});
  }
}

void Sensitivities::measure_activations() const {
  const ReproduceOptions& options = experiment_.options();
  const RunDirectory& run = experiment_.run();
  const auto model = experiment_.baseline_model();
  const SensitivityData data(*model,
                             experiment_.training_pictures(experiment_.curvature_images(), kCurvatureBatch));
  const QuantizationOptions quantizer = quantization_options(options.quantizer);
  say(fmt::format("measuring activations on {} pictures", experiment_.curvature_images()));
  const Timer timer;
  const auto layers =
      goshawk::activation_costs(data, {.bits = options.activation_widths,
                                       .scheme = quantizer.activation_scheme == ActivationScheme::asymmetric
                                                     ? ActivationScheme::asymmetric
                                                     : ActivationScheme::fixed,
                                       .calibration = quantizer.calibration,
                                       .seed = options.seed});
  run.log({{"sensitivity", kActivations}, {"seconds", timer.seconds()}});
  write_file_atomic(run.file(costs_file(kActivations)),
                    to_json(to_costs(layers, ActivationCount::layers, false)));
}

void Sensitivities::measure_weights(const std::vector<std::string>& names) const {
  const ReproduceOptions& options = experiment_.options();
  const RunDirectory& run = experiment_.run();
  const auto model = experiment_.baseline_model();
  const SensitivityData data(*model,
                             experiment_.training_pictures(experiment_.curvature_images(), kCurvatureBatch));
  const WeightCandidates candidates =
      weight_candidates(data, options.bits, initial_weight_spec(options.quantizer));
  SensitivityMeasurement measurement(data, candidates,
                                     {.road = road_of(options.road),
                                      .trace_error = options.trace_error,
                                      .max_probes = options.max_probes,
                                      .seed = options.seed,
                                      .microbatches = MicrobatchOptions::for_this_machine()});
  std::vector<MeasuredCosts> measured;
  for (const std::string& name : names) {
    say(fmt::format("measuring {} on {} pictures", name, experiment_.curvature_images()));
    measured.push_back(measurement.measure(name));
    run.log({{"sensitivity", name},
             {"seconds", measured.back().seconds},
             {"projected_seconds", measured.back().projected_seconds},
             {"road", measured.back().road}});
  }
  if (measured.size() == 2) {
    write_sensitivity(run.file("sensitivity.json"),
                      describe_curvature(candidates, measured[0], measured[1], experiment_));
  }
  for (const MeasuredCosts& m : measured)
    write_file_atomic(run.file(costs_file(m.name)),
                      to_json(to_costs(candidates, m, {.activation_bits = options.activation_bits})));
}

}  // namespace goshawk
