// HAWQ's and HAWQ-V2's costs of every layer and width, from eigenvalues and traces.
#pragma once

#include <cstdint>

#include "autograd/curvature/classifier_traces.hpp"
#include "autograd/curvature/microbatches.hpp"
#include "quant/sensitivities/candidates.hpp"

namespace goshawk {

struct EigenvalueCosts {
  RoadChoice road;
  std::vector<double> lambda;    ///< top eigenvalue of each layer's Hessian block
  std::vector<double> residual;  ///< ‖Hv − λv‖ / |λ|
  std::vector<int> products;     ///< with the layer's block
  CostTable costs;               ///< |λ| · ‖Δw‖²
  std::vector<double> score;     ///< S = |λ| / n, which orders the layers
};

/// HAWQ's Ω = |λ| ‖Δw‖₂² (Dong et al., arXiv 1905.03696, equation 6, number from memory) with λ by power
/// iteration. On the exact road a product is one with the Gauss–Newton block, otherwise one by double
/// backward; some ten to fifty a layer. One eigenvalue says nothing about the other directions, where nearly
/// all of Δw lies. The result does not depend on `microbatches`.
EigenvalueCosts eigenvalue_costs(const SensitivityData& data, const WeightCandidates& candidates,
                                 Road road = Road::automatic, std::uint64_t seed = 0,
                                 MicrobatchOptions microbatches = {});

struct TraceCosts {
  RoadChoice road;
  std::vector<Estimate> trace;
  CostTable costs;            ///< max(Tr(H)/n, 0) · ‖Δw‖²
  std::vector<double> score;  ///< Tr(H)/n
  /// By Hutchinson's estimator: what it would have taken until every layer's standard error is the wanted
  /// one, from the spread of the samples drawn, and the seconds that were spent on those. Equal where it
  /// converged.
  double seconds = 0, projected_seconds = 0;
};

struct TraceCostOptions {
  Road road = Road::automatic;
  HutchinsonOptions hutchinson = {.relative_error = 0.02};  ///< of the double-backward road, for each layer
  MicrobatchOptions microbatches = {};
};

/// HAWQ-V2's Ω = Tr(H)/n · ‖Δw‖₂² (Dong et al., arXiv 1911.03852, equation 11, number from memory). On the
/// exact road C − 1 backward passes for all layers; by double backward (variance / wanted error²)
/// Hessian-vector products for each layer. Right on average over directions; a quantization error is one
/// direction, and not a random one.
TraceCosts trace_costs(const SensitivityData& data, const WeightCandidates& candidates,
                       const TraceCostOptions& options = {});

}  // namespace goshawk
