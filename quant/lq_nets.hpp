// The quantizers of LQ-Nets (Zhang, Yang, Ye, Hua: LQ-Nets, ECCV 2018): b-bit levels that are the inner
// products of a basis v ∈ R^b with codes, the basis fitted to what is quantized.
#pragma once

#include <cstdint>

#include "quant/calibration.hpp"
#include "quant/quantizer.hpp"

namespace goshawk {

/// Which numbers a bit of a code stands for in the inner product that makes a level.
enum class BasisCodes : std::uint8_t {
  signs,   ///< −1 and 1: of the weights, and of activations that may be negative
  binary,  ///< 0 and 1: of activations behind a ReLU
};

/// The basis that the paper's quantization-error minimisation (QEM, its Algorithm 1) finds for w: [1, bits]
/// or [channels, bits], of w's dtype, each row ascending and not negative. It is the better of two local
/// minima: refit_basis is repeated until a row's ‖Q(w) − w‖² hardly falls any more (at most 20 times), from
/// the even levels of the mid_rise scheme with the mse clip, so that it is never worse than those, and from
/// even levels that reach the largest weight. A function of w alone; the authors' code instead carries the
/// basis from step to step and moves it a tenth of the way to one refit. Throws Error for 32 bits.
Tensor choose_basis(const Tensor& w, int bits, Granularity granularity);

/// One iteration of QEM: encodes w by the basis, then solves min_v ‖w − B v‖² for the codes B. ‖Q(w) − w‖² of
/// the result is never larger: a basis that rounding makes worse is not taken.
Tensor refit_basis(const Tensor& w, const Tensor& basis, BasisCodes codes = BasisCodes::signs);

struct BasisEncoding {
  Tensor values;  ///< the level nearest to each element of w, in its shape and dtype
  Tensor codes;   ///< u8: bit k is set where +v_k is added and clear where −v_k (binary: nothing) is
};
/// Q(w) by the thresholds half-way between neighbouring levels; an element on a threshold takes the lower
/// level, as in the authors' code.
BasisEncoding encode_by_basis(const Tensor& w, const Tensor& basis, BasisCodes codes = BasisCodes::signs);
/// The levels that u8 codes of signs stand for: encode_by_basis(…).values from its codes, to the bit.
Tensor decode_by_basis(const Tensor& codes, const Tensor& basis);

/// Where the basis of a `bits`-bit activation starts: what QEM makes of even levels up to the mse clip and of
/// even levels up to the largest magnitude, whichever fits the observed sample better. [1, bits] of `dtype`.
/// (The authors start at levels for a half-normal of variance 1 instead.) Throws Error when nothing was
/// observed.
Tensor calibrated_basis(const ActivationObserver& observer, int bits, BasisCodes codes, DType dtype);

struct BasisActivation {
  Tensor values;  ///< the level nearest to each element of x, as encode_by_basis gives it
  Tensor refit;   ///< [1, bits]: argmin_v ‖x − B v‖² for the codes B of x; undefined unless asked for
  double low = 0, high = 0;  ///< the outermost levels
};
/// An activation of any shape and, in the same pass over it, one iteration of QEM from the present basis
/// [1, bits]: what the authors' code does in each training step. Directions of the basis that no code
/// determines stay as they are. Throws Error for a refit of values that are not finite.
BasisActivation quantize_by_basis(const Tensor& x, const Tensor& basis, BasisCodes codes, bool refit);

/// Weight of the old basis in the moving average over training steps, v ← 0.9 v + 0.1 refit: the authors'.
inline constexpr double kBasisMomentum = 0.9;
/// That step, in place.
void move_basis(const Tensor& basis, const Tensor& refit);

}  // namespace goshawk
