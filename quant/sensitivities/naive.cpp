#include "quant/sensitivities/naive.hpp"

namespace goshawk {
namespace {

Tensor sum(const Tensor& w, const Tensor& change) {
  Tensor result = w.clone();
  dispatch_floating(w.dtype(), "sensitivity", [&]<class T>() {
    T* const to = result.data<T>();
    const T* const from = change.data<T>();
    for (std::int64_t i = 0; i < w.numel(); ++i) to[i] += from[i];
  });
  return result;
}

void change_layer(ReplacedWeights& replaced, const SensitivityData& data, const WeightCandidates& candidates,
                  std::size_t l, std::size_t b) {
  WeightedLayer& layer = *data.layers()[l].second;
  replaced.replace(layer, sum(layer.weight.value(), candidates.layers[l].changes[b]));
}

void check_layers(const SensitivityData& data, const WeightCandidates& candidates) {
  check(candidates.layers.size() == data.layers().size(),
        "[sensitivity] the candidates are of {} layers but the model has {}", candidates.layers.size(),
        data.layers().size());
}

}  // namespace

CostTable delta_norm_costs(const WeightCandidates& candidates) {
  return make_table(candidates, [&](std::size_t l, std::size_t b) { return candidates.layers[l].norms[b]; });
}

CostTable noise_to_signal_costs(const WeightCandidates& candidates) {
  return make_table(candidates, [&](std::size_t l, std::size_t b) {
    const WeightCandidates::Layer& layer = candidates.layers[l];
    return layer.weight_norm > 0 ? layer.norms[b] / layer.weight_norm : 0;
  });
}

CostTable loss_change_costs(const SensitivityData& data, const WeightCandidates& candidates,
                            int concurrency) {
  check_layers(data, candidates);
  const double loss = data.loss(concurrency);
  return make_table(candidates, [&](std::size_t l, std::size_t b) {
    ReplacedWeights replaced;
    change_layer(replaced, data, candidates, l, b);
    return data.loss(concurrency) - loss;
  });
}

double assignment_loss_change(const SensitivityData& data, const WeightCandidates& candidates,
                              std::span<const int> choice, double loss, int concurrency) {
  check_layers(data, candidates);
  check(choice.size() == candidates.layers.size(),
        "[assignment_loss_change] there are {} choices for {} layers", choice.size(),
        candidates.layers.size());
  ReplacedWeights replaced;
  for (std::size_t l = 0; l < choice.size(); ++l) {
    check(choice[l] >= 0 && static_cast<std::size_t>(choice[l]) < candidates.bits.size(),
          "[assignment_loss_change] choice {} of layer '{}' is outside 0 … {}", choice[l],
          candidates.layers[l].name, candidates.bits.size() - 1);
    change_layer(replaced, data, candidates, l, static_cast<std::size_t>(choice[l]));
  }
  return data.loss(concurrency) - loss;
}

}  // namespace goshawk
