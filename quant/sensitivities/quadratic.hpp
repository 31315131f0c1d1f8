// The second-order expansion of the loss in the changes of the weights: layer by layer, and jointly.
#pragma once

#include "quant/sensitivities/candidates.hpp"
#include "quant/sensitivities/pairwise_cost.hpp"

namespace goshawk {

/// u = J Δw for every layer and width, in the order of candidates.all_changes(): what all of the below are
/// made of. Costs C − 1 backward passes and a pass of each layer a change, or a partial JVP a change,
/// whichever is less.
LogitChanges candidate_changes(const SensitivityData& data, const WeightCandidates& candidates,
                               const LogitChangeOptions& options = {});

struct QuadraticCosts {
  CostTable second_order;                           ///< ½ Δwᵀ H_l Δw, exact where the exact road holds
  CostTable first_order;                            ///< ⟨∂L/∂w_l, Δw⟩
  CostTable second_order_error, first_order_error;  ///< standard errors from the choice of pictures
  /// first_order + second_order.
  CostTable total() const;
};

/// ½ Δwᵀ H_l Δw = (1/2N) Σ_n u_nᵀ (diag(p_n) − p_n p_nᵀ) u_n (docs/curvature/exact-road.md): the cost in the
/// very direction of the quantization error, where HAWQ-V2 has the mean over all directions. Knows no
/// cross-layer terms, and leaves the loss where changes are large.
QuadraticCosts quadratic_costs(const WeightCandidates& candidates, const LogitChanges& changes);

/// ΔL ≈ (1/N) Σ_n [(p_n − y_n)ᵀU_n + ½ U_nᵀ S_n U_n] with U_n = Σ_l u_{l,b(l),n}: the Gauss–Newton quadratic
/// of a whole assignment with every cross-layer term, as a function of the choices. One matrix product over
/// the u; then an assignment costs L²/2 additions. For moderate changes the best predictor there is here;
/// where several layers are at 2 or 3 bits the sum of all changes leaves the quadratic's range
/// (docs/sensitivity.md).
PairwiseCost joint_cost(const WeightCandidates& candidates, const LogitChanges& changes);

}  // namespace goshawk
