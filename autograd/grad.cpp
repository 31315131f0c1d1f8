#include "autograd/grad.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <unordered_map>

#include "autograd/jvp.hpp"
#include "autograd/walk.hpp"

namespace goshawk {
namespace {

// Gradients that have arrived so far at a node's outputs, for each direction.
struct Pending {
  std::shared_ptr<Node> node;
  std::vector<std::vector<Variable>> grads;  // [direction][output]
};
using PendingNodes =
    std::map<std::uint64_t, Pending, std::greater<>>;  // from the youngest node to the oldest

void deliver(PendingNodes& pending, std::size_t directions, std::size_t direction,
             const std::shared_ptr<Node>& node, int output, const Variable& g) {
  Pending& p = pending[node->sequence];
  if (p.node == nullptr) {
    p.node = node;
    p.grads.assign(directions, std::vector<Variable>(node->outputs.size()));
  }
  accumulate(p.grads[direction][static_cast<std::size_t>(output)], g);
}

// The slots where the gradients of a node's inputs are being collected, null where there is none yet.
std::vector<Variable*> collected_slots(PendingNodes& pending, const Node& node, std::span<const char> needs,
                                       std::size_t direction) {
  std::vector<Variable*> slots(needs.size(), nullptr);
  for (std::size_t i = 0; i < needs.size(); ++i) {
    if (needs[i] == 0) continue;
    const auto it = pending.find(node.inputs[i].node->sequence);
    if (it == pending.end()) continue;
    slots[i] = &it->second.grads[direction][static_cast<std::size_t>(node.inputs[i].output)];
  }
  return slots;
}

void check_seed(const Variable& seed, const Variable& output, std::size_t k) {
  check(seed.shape() == output.shape() && seed.dtype() == output.dtype(),
        "[grad] grad_outputs[{}] is {} {} but output {} is {} {}; they must match", k, seed.dtype(),
        seed.shape(), k, output.dtype(), output.shape());
}

// Differentiates along the seeds [direction][output], of which undefined ones are zero, and calls visit(i,
// gradients of input i, one a direction) for every input that something has arrived at, from the youngest to
// the oldest; undefined gradients are zero. One walk over the graph: what the directions share is in the
// cache when the second one needs it.
void walk(std::span<const Variable> outputs, std::span<const Variable> inputs,
          std::span<const std::vector<Variable>> seeds, const GradientVisitor& visit) {
  const Paths on_path(outputs, inputs);
  const std::size_t directions = seeds.size();
  PendingNodes pending;
  for (std::size_t d = 0; d < directions; ++d) {
    for (std::size_t k = 0; k < outputs.size(); ++k) {
      if (!seeds[d][k].defined()) continue;
      check_seed(seeds[d][k], outputs[k], k);
      const std::shared_ptr<Node>& node = outputs[k].node();
      if (on_path.contains(node.get()))
        deliver(pending, directions, d, node, outputs[k].output_index(), seeds[d][k]);
    }
  }

  std::unordered_map<const Node*, std::vector<std::size_t>> wanted;
  for (std::size_t i = 0; i < inputs.size(); ++i) wanted[inputs[i].node().get()].push_back(i);

  std::vector<Variable> arrived(directions);
  std::vector<char> needs;
  while (!pending.empty()) {
    Pending p = std::move(pending.begin()->second);
    pending.erase(pending.begin());
    Node& node = *p.node;
    if (const auto it = wanted.find(&node); it != wanted.end()) {
      for (std::size_t i : it->second) {
        for (std::size_t d = 0; d < directions; ++d) {
          arrived[d] = p.grads[d][static_cast<std::size_t>(inputs[i].output_index())];
        }
        visit(i, arrived);
        // What nobody kept can be overwritten by the next node.
        std::fill(arrived.begin(), arrived.end(), Variable());
      }
    }
    if (node.op == nullptr) continue;
    needs.assign(node.inputs.size(), 0);
    for (std::size_t i = 0; i < needs.size(); ++i)
      needs[i] = on_path.contains(node.inputs[i].node.get()) ? 1 : 0;
    if (std::find(needs.begin(), needs.end(), 1) == needs.end()) continue;
    for (std::size_t d = 0; d < directions; ++d) {
      std::vector<Variable>& grads = p.grads[d];
      if (std::none_of(grads.begin(), grads.end(), [](const Variable& g) { return g.defined(); })) continue;
      const std::vector<Variable*> collected = collected_slots(pending, node, needs, d);
      const std::vector<Variable> input_grads = node.vjp(Backward(p.node, grads, needs, collected));
      check(input_grads.size() == needs.size(),
            "[grad] the derivative of '{}' returned {} gradients for {} inputs", node.op->name,
            input_grads.size(), needs.size());
      grads.clear();  // they may be what the next node can overwrite
      for (std::size_t i = 0; i < needs.size(); ++i) {
        if (needs[i] == 0 || !input_grads[i].defined()) continue;
        deliver(pending, directions, d, node.inputs[i].node, node.inputs[i].output, input_grads[i]);
      }
    }
  }
}

// The gradients [direction][input] of a walk.
std::vector<std::vector<Variable>> differentiate(std::span<const Variable> outputs,
                                                 std::span<const Variable> inputs,
                                                 std::span<const std::vector<Variable>> seeds,
                                                 bool create_graph) {
  RecordingGuard guard(create_graph);
  std::vector<std::vector<Variable>> results(seeds.size(), std::vector<Variable>(inputs.size()));
  walk(outputs, inputs, seeds, [&](std::size_t i, std::span<const Variable> gradients) {
    for (std::size_t d = 0; d < gradients.size(); ++d) results[d][i] = gradients[d];
  });
  return results;
}

// Puts zeros in the place of undefined gradients: of inputs that the outputs depend on, to which nothing came
// because seeds are undefined, and, if that is allowed, of the others.
void complete(std::span<const Variable> outputs, std::span<const Variable> inputs,
              std::vector<Variable>& gradients, bool allow_unused) {
  std::optional<Paths> on_path;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (gradients[i].defined()) {
      check(gradients[i].shape() == inputs[i].shape(),
            "[grad] the gradient of input {} came out with shape {} instead of {}", i, gradients[i].shape(),
            inputs[i].shape());
      continue;
    }
    if (!allow_unused && !on_path) on_path.emplace(outputs, inputs);
    check(allow_unused || on_path->contains(inputs[i].node().get()),
          "[grad] no output depends on input {} (shape {}); leave it out, or set allow_unused for a zero "
          "gradient",
          i, inputs[i].shape());
    gradients[i] = Tensor::zeros_like(inputs[i].value());
  }
}

}  // namespace

std::vector<Variable> grad(std::span<const Variable> outputs, std::span<const Variable> inputs,
                           const GradOptions& options) {
  check(options.grad_outputs.empty() || options.grad_outputs.size() == outputs.size(),
        "[grad] {} gradients were given for {} outputs; give one each or none", options.grad_outputs.size(),
        outputs.size());
  check_differentiable(inputs, "grad");
  std::vector<Variable> seeds = options.grad_outputs;
  if (seeds.empty()) {
    for (std::size_t k = 0; k < outputs.size(); ++k) {
      check(outputs[k].numel() == 1,
            "[grad] output {} has shape {}; only a scalar has an implied gradient of 1, so pass grad_outputs",
            k, outputs[k].shape());
      seeds.emplace_back(Tensor::full(outputs[k].shape(), outputs[k].dtype(), 1));
    }
  }
  std::vector<Variable> gradients =
      std::move(differentiate(outputs, inputs, std::span(&seeds, 1), options.create_graph).front());
  complete(outputs, inputs, gradients, options.allow_unused);
  return gradients;
}

std::vector<Variable> grad(const Variable& output, std::span<const Variable> inputs,
                           const GradOptions& options) {
  return grad(std::span(&output, 1), inputs, options);
}

void visit_gradients(std::span<const Variable> outputs, std::span<const Variable> inputs,
                     std::span<const std::vector<Variable>> seeds, const GradientVisitor& visit) {
  check_differentiable(inputs, "grad");
  for (std::size_t d = 0; d < seeds.size(); ++d) {
    check(seeds[d].size() == outputs.size(), "[grad] direction {} has {} seeds for {} outputs; give one each",
          d, seeds[d].size(), outputs.size());
  }
  const NoGrad no_grad;
  walk(outputs, inputs, seeds, visit);
}

GradientGraph::GradientGraph(const Variable& loss, std::vector<Variable> inputs, HvpRoad road)
    : loss_(loss), inputs_(std::move(inputs)), road_(road) {
  check(loss.numel() == 1,
        "[GradientGraph] the loss must be a scalar but has shape {}; reduce it with mean or sum",
        loss.shape());
  gradient_ = grad(loss, inputs_, {.create_graph = true});
  if (road_ == HvpRoad::automatic) road_ = faster_road();
}

HvpRoad GradientGraph::faster_road() {
  std::vector<Tensor> v;
  for (const Variable& g : gradient_) v.push_back(g.value());
  const auto seconds = [&](HvpRoad road) {
    road_ = road;
    const auto start = std::chrono::steady_clock::now();
    apply(v);
    return std::chrono::steady_clock::now() - start;
  };
  // The best of four each, in turn: the first ones also find memory and warm it up, and others may be at work
  // on a shared machine.
  auto reverse = seconds(HvpRoad::reverse_over_reverse), forward = seconds(HvpRoad::forward_over_reverse);
  for (int round = 1; round < 4; ++round) {
    reverse = std::min(reverse, seconds(HvpRoad::reverse_over_reverse));
    forward = std::min(forward, seconds(HvpRoad::forward_over_reverse));
  }
  return forward < reverse ? HvpRoad::forward_over_reverse : HvpRoad::reverse_over_reverse;
}

std::vector<Tensor> GradientGraph::apply(std::span<const Tensor> v) const {
  const std::vector<Tensor> vector(v.begin(), v.end());
  return std::move(apply_many(std::span(&vector, 1)).front());
}

std::vector<std::vector<Tensor>> GradientGraph::apply_many(
    std::span<const std::vector<Tensor>> vectors) const {
  std::vector<std::vector<Variable>> seeds;
  for (const std::vector<Tensor>& v : vectors) {
    check(v.size() == inputs_.size(), "[hvp] {} vectors were given for {} inputs", v.size(), inputs_.size());
    for (std::size_t i = 0; i < v.size(); ++i) {
      check(!v[i].defined() || (v[i].shape() == inputs_[i].shape() && v[i].dtype() == inputs_[i].dtype()),
            "[hvp] vector {} is {} {} but input {} is {} {}; they must match", i,
            v[i].defined() ? dtype_name(v[i].dtype()) : "", v[i].shape(), i, inputs_[i].dtype(),
            inputs_[i].shape());
    }
    seeds.emplace_back(v.begin(), v.end());
  }
  auto derivatives = road_ == HvpRoad::forward_over_reverse
                         ? jvp_many(gradient_, inputs_, seeds, {.allow_unused = true})
                         : differentiate(gradient_, inputs_, seeds, false);
  std::vector<std::vector<Tensor>> products;
  for (std::vector<Variable>& product : derivatives) {
    complete(gradient_, inputs_, product, true);
    std::vector<Tensor>& values = products.emplace_back();
    for (const Variable& block : product) values.push_back(block.value());
  }
  return products;
}

std::vector<Tensor> hvp(const Variable& loss, std::span<const Variable> inputs, std::span<const Tensor> v,
                        HvpRoad road) {
  return GradientGraph(loss, {inputs.begin(), inputs.end()}, road).apply(v);
}

}  // namespace goshawk
