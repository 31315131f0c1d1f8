#include "quant/sensitivities/curvature_costs.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "autograd/curvature/gauss_newton.hpp"
#include "autograd/curvature/power_iteration.hpp"

namespace goshawk {
namespace {

// Beyond so many classes, random directions in their place: an exact sum takes a backward pass for each.
constexpr std::int64_t kMostClassesSummed = 128;
constexpr int kRandomDirections = 32;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// factor[l] · ‖Δw‖².
CostTable times_norms(const WeightCandidates& candidates, const std::vector<double>& factor) {
  return make_table(candidates,
                    [&](std::size_t l, std::size_t b) { return factor[l] * candidates.layers[l].norms[b]; });
}

double elements(const WeightCandidates& candidates, std::size_t l) {
  return static_cast<double>(candidates.layers[l].parameters);
}

RoadChoice road_for(const SensitivityData& data, Road wanted) {
  const RecordingGuard on(true);
  return choose_road(data.pass()(0), wanted);
}

std::vector<Estimate> hutchinson_traces(const SensitivityData& data, const TraceCostOptions& options,
                                        double& projected_seconds) {
  const HessianOperator hessian = data.hessian(options.microbatches);
  std::vector<Estimate> traces;
  projected_seconds = 0;
  for (std::size_t l = 0; l < data.layers().size(); ++l) {
    const Clock::time_point start = Clock::now();
    traces.push_back(hutchinson(hessian.block(l), options.hutchinson));
    const Estimate& trace = traces.back();
    const double wanted = std::max(options.hutchinson.relative_error * std::abs(trace.value),
                                   options.hutchinson.absolute_error);
    const double more = trace.converged || wanted == 0 ? 1 : trace.standard_error / wanted;
    projected_seconds += seconds_since(start) * more * more;
  }
  return traces;
}

std::vector<Estimate> first_derivative_traces(const SensitivityData& data, int concurrency) {
  const std::int64_t classes = data.layers().back().second->out_channels();
  const ExactTraces traces = exact_traces(data.pass(), data.sizes(),
                                          {.samples = classes > kMostClassesSummed ? kRandomDirections : 0,
                                           .activations = false,
                                           .concurrency = concurrency});
  std::vector<Estimate> result;
  for (const auto& [name, layer] : data.layers()) {
    const auto found = std::find_if(traces.layers.begin(), traces.layers.end(),
                                    [&n = name](const LayerTraces& t) { return t.name == n; });
    check(found != traces.layers.end(), "[trace_costs] layer '{}' takes no part in the forward pass", name);
    result.push_back(found->weight);
  }
  return result;
}

}  // namespace

EigenvalueCosts eigenvalue_costs(const SensitivityData& data, const WeightCandidates& candidates, Road road,
                                 std::uint64_t seed, MicrobatchOptions microbatches) {
  EigenvalueCosts result;
  result.road = road_for(data, road);
  const auto add = [&](const LinearOperator& block, std::size_t l) {
    const Eigenpair top = power_iteration(block, {.seed = seed, .stream = l}).front();
    result.lambda.push_back(top.value);
    result.residual.push_back(top.residual);
    result.products.push_back(top.iterations);
    result.score.push_back(std::abs(top.value) / elements(candidates, l));
  };
  if (result.road.road == Road::exact) {
    const GaussNewtonOperator gauss_newton(data.weights(), data.sizes(), data.pass(),
                                           OutputMetric::softmax_cross_entropy, microbatches);
    for (std::size_t l = 0; l < candidates.layers.size(); ++l) add(gauss_newton.block(l), l);
  } else {
    const HessianOperator hessian = data.hessian(microbatches);
    for (std::size_t l = 0; l < candidates.layers.size(); ++l) add(hessian.block(l), l);
  }
  std::vector<double> magnitude;
  for (double lambda : result.lambda) magnitude.push_back(std::abs(lambda));
  result.costs = times_norms(candidates, magnitude);
  return result;
}

TraceCosts trace_costs(const SensitivityData& data, const WeightCandidates& candidates,
                       const TraceCostOptions& options) {
  const Clock::time_point start = Clock::now();
  TraceCosts result;
  result.road = road_for(data, options.road);
  if (result.road.road == Road::exact) {
    result.trace = first_derivative_traces(data, options.microbatches.concurrency);
    result.seconds = result.projected_seconds = seconds_since(start);
  } else {
    result.trace = hutchinson_traces(data, options, result.projected_seconds);
    result.seconds = seconds_since(start);
  }
  std::vector<double> factor;
  for (std::size_t l = 0; l < result.trace.size(); ++l) {
    result.score.push_back(result.trace[l].value / elements(candidates, l));
    // An estimate below zero would reward damage.
    factor.push_back(std::max(result.score.back(), 0.0));
  }
  result.costs = times_norms(candidates, factor);
  return result;
}

}  // namespace goshawk
