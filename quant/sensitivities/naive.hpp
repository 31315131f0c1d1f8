// The sensitivities without a derivative: how much the weights change, and what that does to the loss.
#pragma once

#include "quant/sensitivities/candidates.hpp"

namespace goshawk {

/// ‖Δw‖₂². The ablation of HAWQ-V2 (Dong et al., arXiv 1911.03852) weighs layers so. Costs nothing; takes all
/// weights for equally important.
CostTable delta_norm_costs(const WeightCandidates& candidates);

/// ‖Δw‖₂² / ‖w‖₂², the inverse of the signal-to-quantization-noise ratio (Lin, Talathi, Annapureddy, "Fixed
/// point quantization of deep convolutional networks", ICML 2016). Costs nothing; invariant to the scale of a
/// layer, which batch normalisation makes meaningless, but blind to the loss.
CostTable noise_to_signal_costs(const WeightCandidates& candidates);

/// L(w + Δw) − L(w) with this layer alone changed, measured on the data. Costs a forward pass of all pictures
/// for each layer and width. Exact for one layer, to all orders; sums of it know no interaction, and its
/// noise for small changes is the pictures'.
CostTable loss_change_costs(const SensitivityData& data, const WeightCandidates& candidates,
                            int concurrency = 0);

/// L(w + Σ_l Δw_l) − L(w) for a whole assignment: what all sensitivities try to predict. choice[l] is an
/// index into candidates.bits; `loss` is L(w), from data.loss(). Throws Error for a choice that is none.
double assignment_loss_change(const SensitivityData& data, const WeightCandidates& candidates,
                              std::span<const int> choice, double loss, int concurrency = 0);

}  // namespace goshawk
