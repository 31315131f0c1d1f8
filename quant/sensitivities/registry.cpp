#include "quant/sensitivities/registry.hpp"

#include <algorithm>

#include "core/timer.hpp"
#include "quant/sensitivities/fisher.hpp"
#include "quant/sensitivities/naive.hpp"

namespace goshawk {
namespace {

std::string road_text(const RoadChoice& road) {
  return road_name(road.road) + ": " + road.reason;
}

}  // namespace

const std::vector<SensitivityMethod>& sensitivity_methods() {
  static const std::vector<SensitivityMethod> methods{
      {"delta-norm", "‖dw‖²", "HAWQ-V2's ablation"},
      {"snr", "‖dw‖² / ‖w‖²", "noise over signal: Lin et al. 2016"},
      {"loss-change", "L(w + dw) - L(w), layer by layer", "measured"},
      {"hawq", "lambda ‖dw‖²", "HAWQ, equation 6"},
      {"hawq-s", "lambda / n ‖dw‖²", "HAWQ's order S = lambda / n (equation 3), priced as HAWQ-V2 does"},
      {"hawq-v2", "Tr(H) / n ‖dw‖²", "HAWQ-V2, equation 11"},
      {"hawq-v2-hutchinson", "Tr(H) / n ‖dw‖²", "HAWQ-V2 with its own estimator of the trace"},
      {"fisher", "1/2 mean_n (g_n^T dw)^2", "MPQCO"},
      {"exact-quadratic", "1/2 dw^T H dw", "exact road"},
      {"exact-taylor", "g^T dw + 1/2 dw^T H dw", "exact road"},
      {"joint", "g^T dw + 1/2 dw^T G dw, dw of all layers together",
       "exact road, Gauss-Newton across layers"}};
  return methods;
}

const SensitivityMethod& sensitivity_method(std::string_view name) {
  std::string known;
  for (const SensitivityMethod& method : sensitivity_methods()) {
    if (method.name == name) return method;
    known += known.empty() ? "" : ", ";
    known += method.name;
  }
  throw UsageError(fmt::format("[sensitivity] '{}' is unknown; use one of {}", name, known));
}

SensitivityMeasurement::SensitivityMeasurement(const SensitivityData& data,
                                               const WeightCandidates& candidates,
                                               const MeasureOptions& options)
    : data_(data), candidates_(candidates), options_(options) {}

const SensitivityMeasurement::Changes& SensitivityMeasurement::changes() {
  if (!changes_) {
    const Timer timer;
    LogitChanges changes =
        candidate_changes(data_, candidates_, {.concurrency = options_.microbatches.concurrency});
    changes_ = Changes{std::move(changes), timer.seconds()};
  }
  return *changes_;
}

const SensitivityMeasurement::Eigenvalues& SensitivityMeasurement::eigenvalues() {
  if (!eigenvalues_) {
    const Timer timer;
    EigenvalueCosts costs =
        eigenvalue_costs(data_, candidates_, options_.road, options_.seed, options_.microbatches);
    eigenvalues_ = Eigenvalues{std::move(costs), timer.seconds()};
  }
  return *eigenvalues_;
}

MeasuredCosts SensitivityMeasurement::measure(std::string_view name) {
  sensitivity_method(name);
  MeasuredCosts result;
  result.name = name;
  const Timer timer;
  double before = 0;  // spent earlier, on what other names have needed too
  double projected = 0;
  if (name == "delta-norm") {
    result.costs = delta_norm_costs(candidates_);
  } else if (name == "snr") {
    result.costs = noise_to_signal_costs(candidates_);
  } else if (name == "loss-change") {
    result.costs = loss_change_costs(data_, candidates_, options_.microbatches.concurrency);
  } else if (name == "hawq" || name == "hawq-s") {
    const bool known = eigenvalues_.has_value();
    const Eigenvalues& found = eigenvalues();
    if (known) before = found.seconds;
    const EigenvalueCosts& eigen = found.costs;
    result.costs = name == "hawq" ? eigen.costs : make_table(candidates_, [&](std::size_t l, std::size_t b) {
      return eigen.score[l] * candidates_.layers[l].norms[b];
    });
    result.score = eigen.score;
    result.road = road_text(eigen.road);
    result.details = {{"lambda", eigen.lambda},
                      {"residual", eigen.residual},
                      {"products", {eigen.products.begin(), eigen.products.end()}}};
  } else if (name == "hawq-v2" || name == "hawq-v2-hutchinson") {
    const bool paper = name == "hawq-v2-hutchinson";
    const TraceCosts traces = trace_costs(
        data_, candidates_,
        {.road = paper ? Road::double_backward : options_.road,
         .hutchinson = {.seed = options_.seed,
                        .relative_error = options_.trace_error,
                        .min_samples = std::min(HutchinsonOptions().min_samples, options_.max_probes),
                        .max_samples = options_.max_probes},
         .microbatches = options_.microbatches});
    result.costs = traces.costs;
    result.score = traces.score;
    result.road = road_text(traces.road);
    std::vector<double> value, error, image_error, samples;
    for (const Estimate& trace : traces.trace) {
      value.push_back(trace.value);
      error.push_back(trace.standard_error);
      image_error.push_back(trace.subset_error.value_or(0));
      samples.push_back(trace.samples);
    }
    result.details = {{"trace", value},
                      {"trace_error", error},
                      {"trace_image_error", image_error},
                      {"trace_samples", samples}};
    projected = traces.projected_seconds;
  } else if (name == "fisher") {
    FisherCosts fisher = fisher_costs(data_, candidates_, options_.microbatches.concurrency);
    result.costs = std::move(fisher.costs);
    result.errors = std::move(fisher.error);
  } else {
    const bool known = changes_.has_value();
    const Changes& found = changes();
    if (known) before = found.seconds;
    if (name == "joint") {
      result.pairs = joint_cost(candidates_, found.changes);
      result.costs = make_table(candidates_, [&](std::size_t l, std::size_t b) {
        return result.pairs->own(result.pairs->number(l, static_cast<int>(b)));
      });
    } else {
      const QuadraticCosts costs = quadratic_costs(candidates_, found.changes);
      const bool taylor = name == "exact-taylor";
      result.costs = taylor ? costs.total() : costs.second_order;
      if (!taylor) result.errors = costs.second_order_error;
    }
  }
  result.seconds = timer.seconds() + before;
  result.projected_seconds = std::max(result.seconds, projected);
  return result;
}

Costs to_costs(const WeightCandidates& candidates, const MeasuredCosts& measured,
               const CostFileOptions& options) {
  Costs costs{.source = measured.name};
  for (std::size_t l = 0; l < candidates.layers.size(); ++l) {
    const WeightCandidates::Layer& from = candidates.layers[l];
    LayerCosts& layer = costs.layers.emplace_back();
    layer.name = from.name;
    layer.parameters = from.parameters;
    layer.macs = from.macs;
    if (!measured.score.empty()) layer.score = measured.score[l];
    for (std::size_t b = 0; b < candidates.bits.size(); ++b) {
      const int bits = candidates.bits[b];
      const int wanted = options.activation_bits > 0 ? options.activation_bits : bits;
      const int activation = l == 0 ? picture_bits(wanted) : wanted;
      layer.choices.push_back({.bits = bits,
                               .bytes = static_cast<double>(from.parameters) * bits / 8,
                               .cost = measured.costs[l][b],
                               .bops = static_cast<double>(from.macs) * bits * activation});
    }
  }
  const auto layer_named = [&](const std::string& name, const char* purpose) {
    const auto layer = std::find_if(costs.layers.begin(), costs.layers.end(),
                                    [&](const LayerCosts& c) { return c.name == name; });
    check(layer != costs.layers.end(), "[sensitivity] there is no layer '{}' to {}", name, purpose);
    return layer;
  };
  for (const auto& [name, bits] : options.pinned) {
    const auto layer = layer_named(name, "pin");
    check(std::find(candidates.bits.begin(), candidates.bits.end(), bits) != candidates.bits.end(),
          "[sensitivity] layer '{}' cannot be pinned to {} bits, which are not among the widths {}", name,
          bits, fmt::join(candidates.bits, ", "));
    layer->pinned = bits;
  }
  for (const std::vector<std::string>& names : options.tied) {
    std::vector<LayerCosts*> group;
    for (const std::string& name : names) {
      const auto layer = layer_named(name, "tie");
      if (!layer->pinned) group.push_back(&*layer);
    }
    if (group.size() < 2) continue;
    for (LayerCosts* layer : group) layer->tied = fmt::format("sum with {}", group.front()->name);
  }
  if (measured.pairs) {
    const std::size_t count = measured.pairs->size();
    for (std::size_t k = 0; k < count; ++k) {
      for (std::size_t j = 0; j < count; ++j) costs.pairs.push_back(measured.pairs->pair(k, j));
    }
  }
  return costs;
}

}  // namespace goshawk
