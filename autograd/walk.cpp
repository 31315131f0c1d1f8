#include "autograd/walk.hpp"

#include <algorithm>
#include <map>
#include <unordered_set>

#include "autograd/ops.hpp"
#include "core/kernels/elementwise.hpp"

namespace goshawk {

Paths::Paths(std::span<const Variable> outputs, std::span<const Variable> inputs) {
  std::unordered_set<const Node*> targets;
  std::uint64_t oldest = ~std::uint64_t{0};
  for (const Variable& input : inputs) {
    targets.insert(input.node().get());
    oldest = std::min(oldest, input.node()->sequence);
  }
  // Ascending sequence numbers are a topological order, so one pass over the reachable nodes decides.
  std::map<std::uint64_t, const std::shared_ptr<Node>*> reachable;
  std::vector<const std::shared_ptr<Node>*> stack;
  for (const Variable& output : outputs) stack.push_back(&output.node());
  while (!stack.empty()) {
    const std::shared_ptr<Node>* node = stack.back();
    stack.pop_back();
    if (*node == nullptr || (*node)->sequence < oldest || !reachable.emplace((*node)->sequence, node).second)
      continue;
    for (const Edge& edge : (*node)->inputs) stack.push_back(&edge.node);
  }
  for (const auto& [sequence, node] : reachable) {
    const std::size_t first = sources_.size();
    bool leads_to_input = targets.contains(node->get());
    for (const Edge& edge : (*node)->inputs) {
      sources_.push_back(find(edge.node.get()));
      leads_to_input = leads_to_input || sources_.back() != kNone;
    }
    if (!leads_to_input) {
      sources_.resize(first);
      continue;
    }
    numbers_.emplace(node->get(), nodes_.size());
    nodes_.push_back(*node);
    first_source_.push_back(first);
  }
}

std::size_t Paths::find(const Node* node) const {
  const auto it = numbers_.find(node);
  return it == numbers_.end() ? kNone : it->second;
}

void accumulate(Variable& sum, const Variable& term) {
  if (!term.defined()) return;
  if (!sum.defined()) {
    sum = term;
  } else if (!recording() && sum.value().unique()) {
    kernels::add_to(sum.value(), term.value());
  } else {
    sum = add(sum, term);
  }
}

void check_differentiable(std::span<const Variable> inputs, std::string_view function) {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    check(inputs[i].requires_grad(),
          "[{}] input {} (shape {}) is a constant; make it with Variable::leaf, or compute it from one while "
          "recording is on",
          function, i, inputs[i].shape());
  }
}

}  // namespace goshawk
