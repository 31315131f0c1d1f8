#include "quant/sensitivities/candidates.hpp"

#include <algorithm>

namespace goshawk {
namespace {

double squared_norm(const Tensor& t) {
  return squared_distance(t, Tensor::zeros(t.shape(), t.dtype()));
}

Tensor weight_change(const Tensor& w, const WeightSpec& spec) {
  Tensor change = quantize_weights(w, spec).dequantized.clone();
  dispatch_floating(w.dtype(), "weight_candidates", [&]<class T>() {
    T* const q = change.data<T>();
    const T* const original = w.data<T>();
    double scale = 1;
    if (spec.scheme == WeightScheme::dorefa && spec.bits != kFullPrecision) {
      double qw = 0, qq = 0;
      for (std::int64_t i = 0; i < w.numel(); ++i) {
        qw += static_cast<double>(q[i]) * static_cast<double>(original[i]);
        qq += static_cast<double>(q[i]) * static_cast<double>(q[i]);
      }
      scale = qq > 0 ? qw / qq : 0;
    }
    for (std::int64_t i = 0; i < w.numel(); ++i) {
      q[i] = static_cast<T>(scale * static_cast<double>(q[i]) - static_cast<double>(original[i]));
    }
  });
  return change;
}

}  // namespace

WeightCandidates weight_candidates(const SensitivityData& data, std::vector<int> bits,
                                   const WeightSpec& spec) {
  check(!bits.empty(), "[weight_candidates] there are no widths; give at least one");
  std::sort(bits.begin(), bits.end());
  bits.erase(std::unique(bits.begin(), bits.end()), bits.end());
  for (int b : bits) check_bits(b, "weight_candidates");
  {
    // The layers learn their sizes from a forward pass.
    const NoGrad no_grad;
    data.model()(rows(data.images(0), 0, 1));
  }
  WeightCandidates candidates{.bits = std::move(bits), .spec = spec};
  for (const auto& [name, layer] : data.layers()) {
    const Tensor& w = layer->weight.value();
    auto& entry = candidates.layers.emplace_back();
    entry.name = name;
    entry.parameters = layer->weight_count();
    entry.macs = layer->last_macs();
    entry.input_elements = layer->last_input_elements();
    entry.weight_norm = squared_norm(w);
    for (int b : candidates.bits) {
      WeightSpec at = spec;
      at.bits = b;
      entry.changes.push_back(weight_change(w, at));
      entry.norms.push_back(squared_norm(entry.changes.back()));
    }
  }
  return candidates;
}

std::vector<WeightChange> WeightCandidates::all_changes() const {
  std::vector<WeightChange> all;
  for (const Layer& layer : layers) {
    for (const Tensor& change : layer.changes) all.push_back({layer.name, change});
  }
  return all;
}

}  // namespace goshawk
