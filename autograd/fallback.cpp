#include "autograd/fallback.hpp"

#include "autograd/grad.hpp"

namespace goshawk {
namespace {

const Op& kAlias = register_op("alias", Linearity::linear);

// The same value behind a node of its own, so that a gradient can be taken "with respect to x at this place"
// even when another input of the composition depends on x as well.
Variable alias(const Variable& x) {
  return record(
      kAlias, {x}, x.value(), [](const Backward& d) { return std::vector{d.grad()}; }, symmetric);
}

}  // namespace

std::vector<Variable> vjp_through_fallback(const Composition& composition,
                                           const std::vector<Variable>& inputs,
                                           const std::vector<Variable>& g) {
  std::vector<Variable> aliases, differentiable;
  for (const Variable& input : inputs) {
    aliases.push_back(input.requires_grad() ? alias(input) : input);
    if (input.requires_grad()) differentiable.push_back(aliases.back());
  }
  const std::vector<Variable> outputs = composition(aliases);
  std::vector<Variable> used, seeds;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    if (!g[k].defined() || !outputs[k].requires_grad()) continue;
    used.push_back(outputs[k]);
    seeds.push_back(g[k]);
  }
  const std::vector<Variable> gradients =
      grad(used, differentiable, {.grad_outputs = seeds, .create_graph = true, .allow_unused = true});
  std::vector<Variable> results(inputs.size());
  for (std::size_t i = 0, k = 0; i < inputs.size(); ++i) {
    if (inputs[i].requires_grad()) results[i] = gradients[k++];
  }
  return results;
}

}  // namespace goshawk
