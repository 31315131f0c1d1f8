#include "quant/sensitivities/fisher.hpp"

#include <map>

#include "autograd/curvature/microbatches.hpp"
#include "autograd/curvature/softmax_output.hpp"
#include "autograd/grad.hpp"
#include "core/kernels/grad_norms.hpp"

namespace goshawk {
namespace {

/// The layer of each site, as a number of the candidates.
std::vector<std::size_t> layers_of(const ClassifierGraph& graph, const WeightCandidates& candidates) {
  std::map<std::string, std::size_t> numbers;
  for (std::size_t l = 0; l < candidates.layers.size(); ++l) numbers.emplace(candidates.layers[l].name, l);
  std::vector<std::size_t> layers;
  for (const LinearSite& site : graph.sites) {
    const auto found = numbers.find(site.name);
    check(found != numbers.end(), "[fisher_costs] there are no candidates for layer '{}'", site.name);
    layers.push_back(found->second);
  }
  return layers;
}

}  // namespace

FisherCosts fisher_costs(const SensitivityData& data, const WeightCandidates& candidates, int concurrency) {
  const std::size_t widths = candidates.bits.size(), count = candidates.layers.size() * widths;
  const auto compute = [&](std::size_t b) {
    const RecordingGuard on(true);
    const ClassifierGraph graph = data.pass()(b);
    refuse_batch_statistics(graph.logits, data.sizes().size(), "fisher_costs");
    const std::vector<std::size_t> layers = layers_of(graph, candidates);
    const Tensor seed = SoftmaxOutput(graph.logits.value()).residual(graph.labels).to(data.dtype());
    std::vector<Variable> outputs;
    for (const LinearSite& site : graph.sites) outputs.push_back(site.output);
    // [change][picture]: g_nᵀ Δw, summed over the uses of a layer.
    std::vector<std::vector<double>> slopes(count,
                                            std::vector<double>(static_cast<std::size_t>(data.sizes()[b])));
    const std::vector<std::vector<Variable>> seeds{{seed}};
    visit_gradients(
        std::span(&graph.logits, 1), outputs, seeds, [&](std::size_t s, std::span<const Variable> gradients) {
          if (!gradients[0].defined()) return;
          for (std::size_t w = 0; w < widths; ++w) {
            const Tensor y = linear_output(graph.sites[s], candidates.layers[layers[s]].changes[w]);
            const Tensor dots = kernels::sample_dots(gradients[0].value(), y);
            std::vector<double>& slope = slopes[layers[s] * widths + w];
            for (std::size_t n = 0; n < slope.size(); ++n) slope[n] += dots.data<double>()[n];
          }
        });
    return slopes;
  };
  std::vector<std::vector<double>> halves(count);
  for_each_in_order(data.sizes().size(), concurrency, compute,
                    [&](std::size_t, const std::vector<std::vector<double>>& slopes) {
                      for (std::size_t k = 0; k < count; ++k) {
                        for (double slope : slopes[k]) halves[k].push_back(slope * slope / 2);
                      }
                    });
  FisherCosts result;
  result.costs = make_table(
      candidates, [&](std::size_t l, std::size_t w) { return estimate_mean(halves[l * widths + w]).value; });
  result.error = make_table(candidates, [&](std::size_t l, std::size_t w) {
    const std::vector<double>& samples = halves[l * widths + w];
    return samples.size() < 2 ? 0 : estimate_mean(samples).standard_error;
  });
  return result;
}

}  // namespace goshawk
