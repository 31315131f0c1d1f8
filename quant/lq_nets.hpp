// The weight quantizer of LQ-Nets (Zhang, Yang, Ye, Hua: LQ-Nets, ECCV 2018): b-bit levels that are the inner
// products of a basis v ∈ R^b with the sign patterns {−1, 1}^b, the basis fitted to the weights.
#pragma once

#include "quant/quantizer.hpp"

namespace goshawk {

/// The basis that the paper's quantization-error minimisation (QEM, its Algorithm 1) finds for w: [1, bits]
/// or [channels, bits], of w's dtype, each row ascending and not negative. It is the better of two local
/// minima: refit_basis is repeated until a row's ‖Q(w) − w‖² hardly falls any more (at most 20 times), from
/// the even levels of the mid_rise scheme with the mse clip, so that it is never worse than those, and from
/// even levels that reach the largest weight. A function of w alone; the authors' code instead carries the
/// basis from step to step and moves it a tenth of the way to one refit. Throws Error for 32 bits.
Tensor choose_basis(const Tensor& w, int bits, Granularity granularity);

/// One iteration of QEM: encodes w by the basis, then solves min_v ‖w − B v‖² for the codes B. ‖Q(w) − w‖² of
/// the result is never larger.
Tensor refit_basis(const Tensor& w, const Tensor& basis);

struct BasisEncoding {
  Tensor values;  ///< the level nearest to each element of w, in its shape and dtype
  Tensor codes;   ///< u8: bit k is set where +v_k is added and clear where −v_k is
};
/// Q(w) by the thresholds half-way between neighbouring levels; an element on a threshold takes the lower
/// level, as in the authors' code.
BasisEncoding encode_by_basis(const Tensor& w, const Tensor& basis);

}  // namespace goshawk
