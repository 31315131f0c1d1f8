// Higher derivatives of fused ops: a fused op names a composition of elementary ops that computes the same
// function, and differentiates through it wherever it has no hand-written derivative of its own.
#pragma once

#include <functional>
#include <vector>

#include "autograd/variable.hpp"

namespace goshawk {

using Composition = std::function<std::vector<Variable>(const std::vector<Variable>&)>;

/// The VJP of `composition` at `inputs` for the incoming gradients `g` of its outputs (undefined: zero),
/// recorded: one gradient per input, undefined for constants. Gradients flow on through `inputs` themselves,
/// also when some of them depend on others.
std::vector<Variable> vjp_through_fallback(const Composition& composition,
                                           const std::vector<Variable>& inputs,
                                           const std::vector<Variable>& g);

}  // namespace goshawk
