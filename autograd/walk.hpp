// What walks over the graph, backward (grad) and forward (jvp), have in common.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "autograd/variable.hpp"

namespace goshawk {

/// The nodes on a path from an output back to an input, both included: only these need to be differentiated.
class Paths {
 public:
  /// The inputs require gradients; the outputs may be constants, which are on no path.
  Paths(std::span<const Variable> outputs, std::span<const Variable> inputs);

  bool contains(const Node* node) const { return members_.contains(node); }
  /// From the oldest to the youngest, so every node comes after those it was computed from. They live as long
  /// as the outputs do.
  const std::vector<std::shared_ptr<Node>>& nodes() const { return nodes_; }

 private:
  std::vector<std::shared_ptr<Node>> nodes_;
  std::unordered_set<const Node*> members_;
};

/// sum ← sum + term, where either may be undefined (zero): in place where nothing is recorded and nobody else
/// holds the sum's tensor.
void accumulate(Variable& sum, const Variable& term);

/// Throws Error naming `function` if an input is a constant.
void check_differentiable(std::span<const Variable> inputs, std::string_view function);

}  // namespace goshawk
