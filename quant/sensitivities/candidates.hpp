// The widths that each layer's weights may take, and what each of them does to the weights: Δw = Q_b(w) − w.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "autograd/curvature/logit_changes.hpp"
#include "quant/quantizer.hpp"
#include "quant/sensitivities/data.hpp"

namespace goshawk {

/// A number for each layer and width: table[l][b], in the order of WeightCandidates.
using CostTable = std::vector<std::vector<double>>;

struct WeightCandidates {
  struct Layer {
    std::string name;
    std::int64_t parameters = 0;
    std::int64_t macs = 0;            ///< of one picture
    std::int64_t input_elements = 0;  ///< of one picture
    double weight_norm = 0;           ///< ‖w‖₂²
    std::vector<Tensor> changes;      ///< Δw for each width, of w's shape and type; zeros at 32 bits
    std::vector<double> norms;        ///< ‖Δw‖₂² for each width, in f64
  };
  std::vector<int> bits;           ///< growing, each 1 … 8 or 32
  WeightSpec spec;                 ///< how weight_candidates quantized them; its `bits` mean nothing
  std::vector<Layer> layers = {};  ///< network order

  /// Δw of layer l at width b is number l · bits.size() + b.
  std::vector<WeightChange> all_changes() const;
};

/// Quantizes every layer's weights to every width. DoReFa's levels have a scale of their own, which batch
/// normalisation undoes; its Δw is c·Q(w) − w with the c of least ‖Δw‖² (see `perturbation`). Throws Error
/// for widths that are none, for no width, and as quantize_weights does.
WeightCandidates weight_candidates(const SensitivityData& data, std::vector<int> bits,
                                   const WeightSpec& spec);

/// Q_b(w) for a width below 32: a quantizer of one's own. Of w's shape and type; w itself stays as it is.
using WeightQuantizer = std::function<Tensor(const Tensor& w, int bits)>;
/// weight_candidates with any quantizer, so that every sensitivity can price it. It is not asked for 32 bits,
/// where nothing changes. Throws Error when what it returns has another shape or type.
WeightCandidates weight_candidates_from(const SensitivityData& data, std::vector<int> bits,
                                        const WeightQuantizer& quantize);

/// f(l, b) for every layer and width.
template <class F>
CostTable make_table(const WeightCandidates& candidates, const F& f) {
  CostTable table;
  for (std::size_t l = 0; l < candidates.layers.size(); ++l) {
    auto& row = table.emplace_back();
    for (std::size_t b = 0; b < candidates.bits.size(); ++b) row.push_back(f(l, b));
  }
  return table;
}

}  // namespace goshawk
