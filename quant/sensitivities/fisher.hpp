// MPQCO's cost of every layer and width: the empirical Fisher matrix in the direction of the change.
#pragma once

#include "quant/sensitivities/candidates.hpp"

namespace goshawk {

struct FisherCosts {
  CostTable costs;  ///< (1/2N) Σ_n (g_{n,l}ᵀ Δw_{l,b})²
  CostTable error;  ///< their standard errors from the choice of pictures
};

/// ½ Δwᵀ F Δw with F = (1/N) Σ_n g_n g_nᵀ of per-picture gradients of the cross-entropy (Chen, Wang, Cheng,
/// "Towards Mixed-Precision Quantization of Neural Networks via Constrained Optimization", ICCV 2021, arXiv
/// 2110.06554). One forward and one backward pass of every picture, without weight gradients, serve all
/// layers and widths: g_{n,l}ᵀΔw is ⟨∂L_n/∂y, layer(x_n, Δw)⟩, one more pass of each layer a width; the
/// per-picture weight gradients are never formed. Uses the labels, so pictures that the network gets right
/// with certainty count for nothing and those it gets wrong for too much: F is the Hessian only where the
/// network's probabilities are the labels' true ones.
FisherCosts fisher_costs(const SensitivityData& data, const WeightCandidates& candidates,
                         int concurrency = 0);

}  // namespace goshawk
