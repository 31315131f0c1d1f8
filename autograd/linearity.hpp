// Which functions in a graph are piecewise linear. Where the logits z are so in some weights w (any one
// layer's, in a network of convolutions, ReLUs, poolings and batch norms in eval mode), the Hessian of a loss
// in w is its Gauss-Newton matrix, (∂z/∂w)ᵀ ∇²L(z) (∂z/∂w), exactly: the term Σ_c ∂L/∂z_c ∇²z_c vanishes.
// (Schraudolph 2002, "Fast curvature matrix-vector products for second-order gradient descent", has the two
// terms.)
#pragma once

#include "autograd/variable.hpp"

namespace goshawk {

/// The oldest op that keeps `output` from being piecewise linear (affine) in `input`, as far as the ops
/// themselves tell (Op::linearity): one on a path between the two that is neither linear nor bilinear, or a
/// bilinear one whose two factors both depend on the input. Null if there is none; then second derivatives of
/// output with respect to input are zero wherever they exist. Straight-through ops count as the functions
/// whose derivatives they take. Throws Error when the input is a constant.
const Op* first_nonlinear_op(const Variable& output, const Variable& input);

/// Whether there is none. True, too, where output does not depend on input at all.
bool piecewise_linear(const Variable& output, const Variable& input);

}  // namespace goshawk
