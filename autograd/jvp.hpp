// Forward-mode differentiation of a recorded graph.
#pragma once

#include <span>
#include <vector>

#include "autograd/variable.hpp"

namespace goshawk {

struct JvpOptions {
  /// Record the computation of the tangents so that they can be differentiated again, with respect to the
  /// inputs and to the directions.
  bool create_graph = false;
  /// An output that depends on no input gets a zero tangent instead of an error.
  bool allow_unused = false;
};

/// Jacobian-vector products: how `outputs` change to first order when `inputs` (leaves or Variables computed
/// from them) move along `tangents`, one of each input's shape and dtype; an undefined one is zero. One
/// tangent per output, with its shape. An input that itself depends on another moves along its own tangent
/// plus the one it inherits, so ⟨u, jvp(v)⟩ = ⟨grad(u), v⟩ always holds.
///
/// The graph was recorded before, so its values are there; one walk over it, from the oldest node to the
/// youngest, touches only what lies between inputs and outputs, and keeps a tangent no longer than its last
/// use. Throws Error when an input is a constant, when an output does not depend on any input (see
/// allow_unused), or when shapes do not match.
std::vector<Variable> jvp(std::span<const Variable> outputs, std::span<const Variable> inputs,
                          std::span<const Variable> tangents, const JvpOptions& options = {});
/// The tangent of one output.
Variable jvp(const Variable& output, std::span<const Variable> inputs, std::span<const Variable> tangents,
             const JvpOptions& options = {});
/// Several directions in one walk, each with the bits of jvp(outputs, inputs, directions[k]): what they share
/// is read from memory once. [direction][output].
std::vector<std::vector<Variable>> jvp_many(std::span<const Variable> outputs,
                                            std::span<const Variable> inputs,
                                            std::span<const std::vector<Variable>> directions,
                                            const JvpOptions& options = {});

}  // namespace goshawk
