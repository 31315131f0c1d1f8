// Fake quantization: ops whose forward rounds to the levels of a quantizer and whose derivative is that of
// the clip alone (the straight-through estimator, Bengio et al. 2013).
#pragma once

#include "autograd/variable.hpp"
#include "quant/lq_nets.hpp"
#include "quant/quantizer.hpp"

namespace goshawk {

/// Q(w) on a fixed grid. ∂Q/∂w = 1 inside the clip range and 0 outside. The range reaches from the lowest to
/// the highest level, for mid_rise half a step further (the outermost decision boundary), and is unbounded at
/// 1 bit. dorefa rounds dorefa_normalize(w), through which the gradient flows exactly; lq_nets passes every
/// gradient on (∂Q/∂w = 1), with the basis held.
Variable fake_quantize(const Variable& w, const WeightSpec& spec, const WeightGrid& grid);

/// Q(w) with a learned step (LSQ, Esser et al. 2020, equations 1 to 3): `step` is [1] or [channels], the
/// scheme twos_complement as in the paper, symmetric or mid_rise. ∂Q/∂w is 1 strictly inside the clip range,
/// else 0; ∂Q/∂step is level − w/step inside and the outermost level outside, times 1/√(n · q), with n
/// elements a step and q the outermost level in steps. Unless the clip rule is lsq, the paper's, also times
/// (7.5/q)^1.5 where q > 7.5, from 5 bits on (docs/quantizers.md). At 1 bit ∂Q/∂w is 1 everywhere and
/// ∂Q/∂step is the level. The magnitude of the step counts, so that an optimiser's step across zero does no
/// harm; a step that is zero or not finite is an Error.
Variable learned_step_quantize(const Variable& w, const Variable& step, const WeightSpec& spec);

/// The same for activations: x has any shape whose first dimension is the batch, `step` is [1]. The levels
/// are step·{0, …, 2^b − 1}, or step·{−2^(b−1), …, 2^(b−1) − 1} when signed (b ≥ 2). The n of the gradient's
/// scale is the number of elements of one example, which is how we read the paper's "features".
Variable learned_step_activation(const Variable& x, const Variable& step, int bits, bool is_signed = false);

/// PACT (Choi et al. 2018, equations 1 to 3): y = round(clip(x, 0, α)/Δ)·Δ with Δ = α/(2^b − 1). x has any
/// shape, `clip` is [1] and positive. ∂y/∂x = 1 for 0 < x < α and a NaN, ∂y/∂α = 1 for x ≥ α, else 0. The
/// signed form clips to [−α, α] with Δ = α/(2^(b−1) − 1) (b ≥ 2) and ∂y/∂α = −1 for x ≤ −α as well. One pass
/// forward and one backward.
Variable pact(const Variable& x, const Variable& clip, int bits, bool is_signed = false);

/// LQ-Nets for activations (Zhang et al. 2018, section 3): the level of `basis` [1, bits] nearest to x, for
/// x of any shape. ∂y/∂x = 1 strictly between the outermost levels and at a NaN, else 0, with the basis held;
/// behind a ReLU that is the derivative in the authors' code, which clips at the highest level. With `refit`,
/// the basis of least squared error for the codes of x is stored there, for move_basis.
Variable basis_quantize(const Variable& x, const Tensor& basis, BasisCodes codes, Tensor* refit = nullptr);

// The two halves of pact's derivative, linear maps that are adjoint to each other, which closes pact under
// differentiation. Public for the tests.

struct ClipGrad {
  Variable input;  ///< grad where −σα < x < α (σ = 1 if signed, else 0) or x is NaN, else 0
  Variable clip;   ///< [1]: Σ grad over x ≥ α, minus, when signed, Σ grad over x ≤ −α
};
ClipGrad clip_grad(const Variable& grad, const Tensor& x, double clip, bool is_signed);
/// dx inside, da at x ≥ α, −da at x ≤ −α when signed, else 0; da is [1].
Variable clip_tangent(const Variable& dx, const Variable& da, const Tensor& x, double clip, bool is_signed);

}  // namespace goshawk
