// Higher derivatives of fused ops: a fused op names a composition of elementary ops that computes the same
// function, and differentiates through it wherever it has no hand-written derivative of its own.
#pragma once

#include <functional>
#include <vector>

#include "autograd/variable.hpp"

namespace goshawk {

/// The VJP of `composition` at `inputs` for the incoming gradient `g`, recorded: one gradient per input,
/// undefined where !needs. Gradients flow on through `inputs` themselves, also when some of them depend on
/// others.
std::vector<Variable> vjp_through_fallback(
    const std::function<Variable(const std::vector<Variable>&)>& composition,
    const std::vector<Variable>& inputs, const Variable& g);

}  // namespace goshawk
