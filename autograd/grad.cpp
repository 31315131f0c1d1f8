#include "autograd/grad.hpp"

#include <map>
#include <unordered_map>
#include <unordered_set>

#include "autograd/ops.hpp"
#include "core/kernels/elementwise.hpp"

namespace goshawk {
namespace {

// The nodes on a path from an output to a wanted input, as keys; only these are differentiated.
std::unordered_set<const Node*> nodes_on_paths(std::span<const Variable> outputs,
                                               std::span<const Variable> inputs) {
  std::unordered_set<const Node*> targets;
  std::uint64_t oldest = ~std::uint64_t{0};
  for (const Variable& input : inputs) {
    targets.insert(input.node().get());
    oldest = std::min(oldest, input.node()->sequence);
  }
  // Ascending sequence numbers are a topological order, so one pass over the reachable nodes decides.
  std::map<std::uint64_t, const Node*> reachable;
  std::vector<const Node*> stack;
  for (const Variable& output : outputs) stack.push_back(output.node().get());
  while (!stack.empty()) {
    const Node* node = stack.back();
    stack.pop_back();
    if (node == nullptr || node->sequence < oldest || !reachable.emplace(node->sequence, node).second)
      continue;
    for (const Edge& edge : node->inputs) stack.push_back(edge.node.get());
  }
  std::unordered_set<const Node*> on_path;
  for (const auto& [sequence, node] : reachable) {
    bool leads_to_input = targets.contains(node);
    for (const Edge& edge : node->inputs)
      leads_to_input = leads_to_input || on_path.contains(edge.node.get());
    if (leads_to_input) on_path.insert(node);
  }
  return on_path;
}

void accumulate(Variable& sum, const Variable& term) {
  if (!sum.defined()) {
    sum = term;
  } else if (!recording() && sum.value().unique()) {
    kernels::add_to(sum.value(), term.value());
  } else {
    sum = add(sum, term);
  }
}

}  // namespace

std::vector<Variable> grad(std::span<const Variable> outputs, std::span<const Variable> inputs,
                           const GradOptions& options) {
  check(options.grad_outputs.empty() || options.grad_outputs.size() == outputs.size(),
        "[grad] {} gradients were given for {} outputs; give one each or none", options.grad_outputs.size(),
        outputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    check(
        inputs[i].requires_grad(),
        "[grad] input {} (shape {}) is a constant; make it with Variable::leaf, or compute it from one while "
        "recording is on",
        i, inputs[i].shape());
  }
  RecordingGuard guard(options.create_graph);
  const auto on_path = nodes_on_paths(outputs, inputs);

  // Gradients that have arrived so far at each node's outputs, processed from the youngest node to the
  // oldest.
  struct Pending {
    std::shared_ptr<Node> node;
    std::vector<Variable> grads;
  };
  std::map<std::uint64_t, Pending, std::greater<>> pending;
  const auto deliver = [&](const std::shared_ptr<Node>& node, int output, const Variable& g) {
    Pending& p = pending[node->sequence];
    if (p.node == nullptr) {
      p.node = node;
      p.grads.resize(static_cast<std::size_t>(node->outputs));
    }
    accumulate(p.grads[static_cast<std::size_t>(output)], g);
  };

  for (std::size_t k = 0; k < outputs.size(); ++k) {
    const Variable& output = outputs[k];
    Variable seed;
    if (options.grad_outputs.empty()) {
      check(output.numel() == 1,
            "[grad] output {} has shape {}; only a scalar has an implied gradient of 1, so pass grad_outputs",
            k, output.shape());
      seed = Tensor::full(output.shape(), output.dtype(), 1);
    } else {
      seed = options.grad_outputs[k];
      if (!seed.defined()) continue;
      check(seed.shape() == output.shape() && seed.dtype() == output.dtype(),
            "[grad] grad_outputs[{}] is {} {} but output {} is {} {}; they must match", k, seed.dtype(),
            seed.shape(), k, output.dtype(), output.shape());
    }
    if (on_path.contains(output.node().get())) deliver(output.node(), output.output_index(), seed);
  }

  std::unordered_map<const Node*, std::vector<std::size_t>> wanted;
  for (std::size_t i = 0; i < inputs.size(); ++i) wanted[inputs[i].node().get()].push_back(i);

  std::vector<Variable> results(inputs.size());
  std::vector<char> needs;
  std::vector<Variable*> collected;
  while (!pending.empty()) {
    Pending p = std::move(pending.begin()->second);
    pending.erase(pending.begin());
    Node& node = *p.node;
    if (const auto it = wanted.find(&node); it != wanted.end()) {
      for (std::size_t i : it->second)
        results[i] = p.grads[static_cast<std::size_t>(inputs[i].output_index())];
    }
    if (node.op == nullptr) continue;
    needs.assign(node.inputs.size(), 0);
    bool any = false;
    for (std::size_t i = 0; i < needs.size(); ++i) {
      needs[i] = on_path.contains(node.inputs[i].node.get()) ? 1 : 0;
      any = any || needs[i] != 0;
    }
    if (!any) continue;
    collected.assign(needs.size(), nullptr);
    for (std::size_t i = 0; i < needs.size(); ++i) {
      if (needs[i] == 0) continue;
      const auto it = pending.find(node.inputs[i].node->sequence);
      if (it == pending.end()) continue;
      collected[i] = &it->second.grads[static_cast<std::size_t>(node.inputs[i].output)];
    }
    const std::vector<Variable> input_grads = node.vjp(Backward(p.node, p.grads, needs, collected));
    check(input_grads.size() == needs.size(),
          "[grad] the derivative of '{}' returned {} gradients for {} inputs", node.op->name,
          input_grads.size(), needs.size());
    for (std::size_t i = 0; i < needs.size(); ++i) {
      if (needs[i] != 0 && input_grads[i].defined())
        deliver(node.inputs[i].node, node.inputs[i].output, input_grads[i]);
    }
  }

  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (results[i].defined()) {
      check(results[i].shape() == inputs[i].shape(),
            "[grad] the gradient of input {} came out with shape {} instead of {}", i, results[i].shape(),
            inputs[i].shape());
      continue;
    }
    check(options.allow_unused,
          "[grad] no output depends on input {} (shape {}); leave it out, or set allow_unused for a zero "
          "gradient",
          i, inputs[i].shape());
    results[i] = Tensor::zeros_like(inputs[i].value());
  }
  return results;
}

std::vector<Variable> grad(const Variable& output, std::span<const Variable> inputs,
                           const GradOptions& options) {
  return grad(std::span(&output, 1), inputs, options);
}

GradientGraph::GradientGraph(const Variable& loss, std::vector<Variable> inputs)
    : loss_(loss), inputs_(std::move(inputs)) {
  check(loss.numel() == 1,
        "[GradientGraph] the loss must be a scalar but has shape {}; reduce it with mean or sum",
        loss.shape());
  gradient_ = grad(loss, inputs_, {.create_graph = true});
}

std::vector<Tensor> GradientGraph::apply(std::span<const Tensor> v) const {
  check(v.size() == inputs_.size(), "[hvp] {} vectors were given for {} inputs", v.size(), inputs_.size());
  std::vector<Variable> outputs;
  GradOptions options{.allow_unused = true};
  for (std::size_t i = 0; i < v.size(); ++i) {
    if (!v[i].defined()) continue;
    check(v[i].shape() == inputs_[i].shape() && v[i].dtype() == inputs_[i].dtype(),
          "[hvp] vector {} is {} {} but input {} is {} {}; they must match", i, v[i].dtype(), v[i].shape(), i,
          inputs_[i].dtype(), inputs_[i].shape());
    outputs.push_back(gradient_[i]);
    options.grad_outputs.emplace_back(v[i]);
  }
  std::vector<Tensor> product;
  product.reserve(v.size());
  for (const Variable& g : grad(outputs, inputs_, options)) product.push_back(g.value());
  return product;
}

std::vector<Tensor> hvp(const Variable& loss, std::span<const Variable> inputs, std::span<const Tensor> v) {
  return GradientGraph(loss, {inputs.begin(), inputs.end()}).apply(v);
}

}  // namespace goshawk
