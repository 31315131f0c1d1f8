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

// change(w, b) is Δw.
template <class Change>
WeightCandidates make_candidates(const SensitivityData& data, std::vector<int> bits, const Change& change) {
  check(!bits.empty(), "[weight_candidates] there are no widths; give at least one");
  std::sort(bits.begin(), bits.end());
  bits.erase(std::unique(bits.begin(), bits.end()), bits.end());
  for (int b : bits) check_bits(b, "weight_candidates");
  {
    // The layers learn their sizes from a forward pass.
    const NoGrad no_grad;
    data.model()(rows(data.images(0), 0, 1));
  }
  WeightCandidates candidates{.bits = std::move(bits), .spec = {}};
  for (const auto& [name, layer] : data.layers()) {
    const Tensor& w = layer->weight.value();
    auto& entry = candidates.layers.emplace_back();
    entry.name = name;
    entry.parameters = layer->weight_count();
    entry.macs = layer->last_macs();
    entry.input_elements = layer->last_input_elements();
    entry.weight_norm = squared_norm(w);
    for (int b : candidates.bits) {
      entry.changes.push_back(change(w, b));
      entry.norms.push_back(squared_norm(entry.changes.back()));
    }
  }
  return candidates;
}

}  // namespace

WeightCandidates weight_candidates(const SensitivityData& data, std::vector<int> bits,
                                   const WeightSpec& spec) {
  WeightCandidates candidates = make_candidates(data, std::move(bits), [&](const Tensor& w, int b) {
    WeightSpec at = spec;
    at.bits = b;
    return weight_change(w, at);
  });
  candidates.spec = spec;
  return candidates;
}

WeightCandidates weight_candidates_from(const SensitivityData& data, std::vector<int> bits,
                                        const WeightQuantizer& quantize) {
  return make_candidates(data, std::move(bits), [&](const Tensor& w, int b) {
    if (b == kFullPrecision) return Tensor::zeros_like(w);
    const Tensor quantized = quantize(w, b);
    check_same(quantized, w, "weight_candidates_from");
    Tensor change = Tensor::empty_like(w);
    dispatch_floating(w.dtype(), "weight_candidates", [&]<class T>() {
      const T* const q = quantized.data<T>();
      const T* const original = w.data<T>();
      T* const to = change.data<T>();
      for (std::int64_t i = 0; i < w.numel(); ++i) to[i] = q[i] - original[i];
    });
    return change;
  });
}

std::vector<WeightChange> WeightCandidates::all_changes() const {
  std::vector<WeightChange> all;
  for (const Layer& layer : layers) {
    for (const Tensor& change : layer.changes) all.push_back({layer.name, change});
  }
  return all;
}

}  // namespace goshawk
