// HAWQ-V2's sensitivity of activations: what quantizing each layer's input to each width costs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "autograd/curvature/exact_traces.hpp"
#include "quant/calibration.hpp"
#include "quant/costs.hpp"
#include "quant/quantized_model.hpp"
#include "quant/sensitivities/data.hpp"

namespace goshawk {

struct ActivationCostOptions {
  std::vector<int> bits = {2, 3, 4, 8};  ///< 1 … 8 or 32; an input with negative values needs 2
  /// fixed (and pact, which starts there): even levels from 0, or symmetric about 0 where the input is
  /// signed, up to the calibrated clip. asymmetric: even levels over the calibrated range. Others are
  /// refused.
  ActivationScheme scheme = ActivationScheme::fixed;
  CalibrationOptions calibration = {};  ///< on the same pictures
  /// Random directions a picture instead of the exact sum over the classes; 0: the sum up to 128 classes, 32
  /// beyond.
  int directions = 0;
  std::uint64_t seed = 0;
  int concurrency = 0;
};

/// One width of one layer's input a. ε_n = Q(a_n) − a_n of picture n, with that picture's own loss L_n; means
/// are over pictures, errors are standard errors from their choice.
struct ActivationCost {
  int bits = 0;
  double perturbation = 0;  ///< mean ‖ε_n‖₂²
  double hawq_v2 = 0;       ///< mean trace · perturbation
  /// mean ⟨∂L_n/∂a_n, ε_n⟩, the term that HAWQ-V2 drops: the gradient in an activation is not zero at a
  /// minimum of the loss in the weights …
  double first_order = 0, first_order_error = 0;
  /// … and mean |⟨∂L_n/∂a_n, ε_n⟩|, its size picture by picture.
  double first_order_size = 0;
  /// mean ½ ε_nᵀ ∇²_{a_n}L_n ε_n in the very direction of the rounding error: exact on the exact road.
  double second_order = 0, second_order_error = 0;
};

struct ActivationLayerCosts {
  std::string name;
  std::int64_t elements = 0;  ///< d, of one picture's input
  bool is_signed = false;     ///< the input had negative values
  bool is_picture = false;    ///< the input is the network's
  Estimate trace;             ///< mean over pictures of Tr ∇²_{a_n}L_n; subset_error is from their choice
  std::vector<ActivationCost> widths;  ///< by growing bits

  double mean_trace() const { return trace.value / static_cast<double>(elements); }
};

/// Tr(H_a)/d · ‖Q(a) − a‖₂² for the input of every layer (HAWQ-V2, Dong et al., arXiv 1911.03852, section
/// 3.3), and beside it what the loss expands to in the very rounding error. All layers and widths come from
/// C backward passes (one of them for the first order): traces are squared norms of the gradients that meet
/// in each input, quadratic forms are their products with ε (docs/curvature/exact-road.md). A layer that
/// shares its input with another counts its own use of it alone. Throws Error where the exact road does not
/// hold, with the reason; there, ActivationHessian has products by double backward.
std::vector<ActivationLayerCosts> activation_costs(const SensitivityData& data,
                                                   const ActivationCostOptions& options = {});

/// How a budget on activations counts them.
enum class ActivationCount : std::uint8_t {
  layers,    ///< every input once: a budget ratio is the papers' A-comp, 32 over the plain mean of the bits
  elements,  ///< by the elements of the input
};
/// The inputs of all layers but the network's own, whose quantizer is the user's affair, as costs that the
/// allocators take: parameters and bytes are those of the count. `exact`: the expansion's first and second
/// order in place of HAWQ-V2's cost.
Costs to_costs(const std::vector<ActivationLayerCosts>& layers, ActivationCount count, bool exact);

}  // namespace goshawk
