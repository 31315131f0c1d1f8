#include "autograd/linearity.hpp"

#include "autograd/walk.hpp"

namespace goshawk {

const Op* first_nonlinear_op(const Variable& output, const Variable& input) {
  check_differentiable(std::span(&input, 1), "first_nonlinear_op");
  const Paths paths(std::span(&output, 1), std::span(&input, 1));
  for (const std::shared_ptr<Node>& node : paths.nodes()) {
    if (node == input.node()) continue;
    const auto moves = [&](std::size_t i) { return paths.contains(node->inputs[i].node.get()); };
    switch (node->op->linearity) {
      case Linearity::linear:
        break;
      case Linearity::bilinear:
        if (moves(0) && moves(1)) return node->op;
        break;
      case Linearity::general:
        return node->op;
    }
  }
  return nullptr;
}

bool piecewise_linear(const Variable& output, const Variable& input) {
  return first_nonlinear_op(output, input) == nullptr;
}

}  // namespace goshawk
