// Reverse-mode differentiation to any order, and Hessian-vector products on a gradient graph that is built
// once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "autograd/variable.hpp"

namespace goshawk {

class Paths;

struct GradOptions {
  /// Gradient with respect to each output, where an undefined one is zero; empty means 1 for every output,
  /// which must then be a scalar.
  std::vector<Variable> grad_outputs = {};
  /// Record the gradient computation so that the results can be differentiated again.
  bool create_graph = false;
  /// An input that no output depends on gets a zero gradient instead of an error.
  bool allow_unused = false;
};

/// Gradients of Σ ⟨grad_outputs[k], outputs[k]⟩ with respect to `inputs`, as values: nothing is accumulated
/// anywhere. Each has the shape of its input. The graph stays usable as long as a Variable refers to it, so
/// the same graph can be differentiated again. Throws Error when an input is a constant, when an output does
/// not depend on it (see allow_unused), or when shapes do not match.
std::vector<Variable> grad(std::span<const Variable> outputs, std::span<const Variable> inputs,
                           const GradOptions& options = {});
/// The gradients of one scalar output.
std::vector<Variable> grad(const Variable& output, std::span<const Variable> inputs,
                           const GradOptions& options = {});

/// Is given the index of an input and its gradient along each direction; an undefined one is zero.
using GradientVisitor = std::function<void(std::size_t input, std::span<const Variable> gradients)>;

/// Gradients of Σ ⟨seeds[d][k], outputs[k]⟩ for several directions d in one walk over the graph, handed out
/// as they come up and not collected: `visit` is called once for every input that some defined seed reaches,
/// from the last input in the order of the forward pass to the first. Gradients of many intermediate results
/// then need no more memory than a single one, unless `visit` keeps them. Undefined seeds are zero. Records
/// nothing.
void visit_gradients(std::span<const Variable> outputs, std::span<const Variable> inputs,
                     std::span<const std::vector<Variable>> seeds, const GradientVisitor& visit);

/// How a product with the Hessian, the derivative of the gradient g, is computed. All agree up to rounding,
/// but not to the bit.
enum class HvpRoad : std::uint8_t {
  reverse_over_reverse,  ///< ∂(gᵀv)/∂w, from the loss's gradient back again: the double-backward trick
  forward_over_reverse,  ///< the tangent of g along v (Pearlmutter 1994, "Fast exact multiplication by the
                         ///< Hessian")
  automatic,  ///< whichever of the two is measured to be faster; so the bits of a result may change from run
              ///< to run
};

/// The gradient of a scalar loss as a graph, ready to be differentiated along any number of directions. The
/// graph is built once; each `apply` only replays its derivative and records nothing, at the cost of about
/// two gradients.
class GradientGraph {
 public:
  /// `loss` must be a scalar that depends on every one of `inputs`. `automatic` takes eight products, four
  /// by each road along the gradient, and keeps to the faster one.
  GradientGraph(const Variable& loss, std::vector<Variable> inputs,
                HvpRoad road = HvpRoad::reverse_over_reverse);

  /// Which road products take: never automatic.
  HvpRoad road() const { return road_; }
  double loss() const { return loss_.item(); }
  const std::vector<Variable>& inputs() const { return inputs_; }
  /// ∂loss/∂inputs, one Variable per input, still part of the graph.
  const std::vector<Variable>& gradient() const { return gradient_; }
  /// Hessian-vector product: `v` has one tensor per input with its shape and dtype (an undefined tensor is
  /// zero); so has the result.
  std::vector<Tensor> apply(std::span<const Tensor> v) const;
  /// Several products in one walk over the graph, each with the bits of apply(vectors[k]): what they share is
  /// read from memory once. Needs memory for the intermediate results of all of them.
  std::vector<std::vector<Tensor>> apply_many(std::span<const std::vector<Tensor>> vectors) const;

 private:
  HvpRoad faster_road();

  Variable loss_;
  std::vector<Variable> inputs_;
  std::vector<Variable> gradient_;
  std::shared_ptr<const Paths> paths_;  // from the inputs to the gradient
  HvpRoad road_;
};

/// One Hessian-vector product of a scalar loss; for several on the same batch keep a GradientGraph.
std::vector<Tensor> hvp(const Variable& loss, std::span<const Variable> inputs, std::span<const Tensor> v,
                        HvpRoad road = HvpRoad::reverse_over_reverse);

}  // namespace goshawk
