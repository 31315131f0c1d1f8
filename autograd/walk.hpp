// What walks over the graph, backward (grad) and forward (jvp), have in common.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "autograd/jvp.hpp"
#include "autograd/variable.hpp"

namespace goshawk {

/// The nodes on a path from an output back to an input, both included: only these need to be differentiated.
/// They are numbered from the oldest to the youngest, so every node comes after those it was computed from.
class Paths {
 public:
  static constexpr std::size_t kNone = ~std::size_t{0};

  /// The inputs require gradients; the outputs may be constants, which are on no path.
  Paths(std::span<const Variable> outputs, std::span<const Variable> inputs);

  /// They live as long as the outputs do.
  const std::vector<std::shared_ptr<Node>>& nodes() const { return nodes_; }
  /// The number of a node, kNone if it is on no path.
  std::size_t find(const Node* node) const;
  bool contains(const Node* node) const { return find(node) != kNone; }
  /// For each input of node number i the number of the node that it comes from, kNone if that is on no path.
  std::span<const std::size_t> sources(std::size_t i) const {
    return std::span(sources_).subspan(first_source_[i], nodes_[i]->inputs.size());
  }

 private:
  std::vector<std::shared_ptr<Node>> nodes_;
  std::vector<std::size_t> sources_;       // of all nodes' inputs
  std::vector<std::size_t> first_source_;  // by node
  std::unordered_map<const Node*, std::size_t> numbers_;
};

/// sum ← sum + term, where either may be undefined (zero): in place where nothing is recorded and nobody else
/// holds the sum's tensor.
void accumulate(Variable& sum, const Variable& term);

/// jvp_many over paths that are known: those from `inputs` to `outputs`.
std::vector<std::vector<Variable>> push_forward(const Paths& paths, std::span<const Variable> outputs,
                                                std::span<const Variable> inputs,
                                                std::span<const std::vector<Variable>> directions,
                                                const JvpOptions& options);

/// Throws Error naming `function` if an input is a constant.
void check_differentiable(std::span<const Variable> inputs, std::string_view function);

}  // namespace goshawk
