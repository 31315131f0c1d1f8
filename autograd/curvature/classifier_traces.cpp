#include "autograd/curvature/classifier_traces.hpp"

#include <map>
#include <utility>

#include "autograd/curvature/activation_hessian.hpp"
#include "autograd/curvature/hessian_operator.hpp"

namespace goshawk {
namespace {

// Layers of one shape would have the same probes, and the errors of their traces would not be independent.
HutchinsonOptions with_stream(HutchinsonOptions options, std::uint64_t estimate) {
  options.stream += estimate << 32;
  return options;
}

}  // namespace

ClassifierTraces classifier_traces(const ClassifierPass& pass,
                                   const std::vector<std::int64_t>& microbatch_sizes,
                                   const ClassifierTraceOptions& options) {
  const MicrobatchSizes sizes(microbatch_sizes, "classifier_traces");
  check(pass != nullptr, "[classifier_traces] the forward pass is empty");
  ClassifierTraces result;
  result.images = sizes.samples();
  const RecordingGuard on(true);
  const MeasuringGuard measuring;
  const ClassifierGraph first = pass(0);
  result.road = choose_road(first, options.road);
  if (result.road.road == Road::exact) {
    ExactTraces exact = exact_traces(pass, microbatch_sizes, options.exact);
    result.layers = std::move(exact.layers);
    result.loss = exact.loss;
    return result;
  }

  std::map<std::string, int> uses;
  for (const LinearSite& site : first.sites) ++uses[site.name];
  std::vector<Variable> weights;
  for (const LinearSite& site : first.sites) {
    if (uses.at(site.name) == 0) continue;  // entered already
    LayerTraces& layer = result.layers.emplace_back();
    layer.name = site.name;
    layer.weight_elements = site.weight.numel();
    layer.activation_elements = site.input.numel() / site.input.dim(0);
    weights.push_back(site.weight);
    if (options.exact.activations && uses.at(site.name) == 1) {
      const ActivationHessian activation(site.name, microbatch_sizes, pass,
                                         {.concurrency = options.exact.concurrency});
      layer.activation = hutchinson(activation, with_stream(options.hutchinson, 2 * weights.size() - 1));
    }
    uses[site.name] = 0;
  }
  const HessianOperator hessian(weights, microbatch_sizes,
                                [&](std::size_t b) {
                                  const ClassifierGraph graph = pass(b);
                                  return softmax_cross_entropy(graph.logits, graph.labels);
                                },
                                {.concurrency = options.exact.concurrency});
  result.loss = hessian.loss();
  for (std::size_t l = 0; l < weights.size() && options.exact.weights; ++l) {
    result.layers[l].weight = hutchinson(hessian.block(l), with_stream(options.hutchinson, 2 * l));
  }
  return result;
}

}  // namespace goshawk
