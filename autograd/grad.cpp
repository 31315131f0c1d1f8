#include "autograd/grad.hpp"

#include <algorithm>
#include <chrono>
#include <memory>

#include "autograd/jvp.hpp"
#include "autograd/walk.hpp"

namespace goshawk {
namespace {

// Gradients that have arrived so far at the nodes on the paths, for each direction and output.
class PendingGradients {
 public:
  PendingGradients(const Paths& paths, std::size_t directions)
      : paths_(paths), directions_(directions), grads_(paths.nodes().size()) {}

  bool any(std::size_t number) const { return !grads_[number].empty(); }
  std::span<Variable> at(std::size_t number, std::size_t direction) {
    const std::size_t outputs = paths_.nodes()[number]->outputs.size();
    return std::span(grads_[number]).subspan(direction * outputs, outputs);
  }
  void deliver(std::size_t number, std::size_t direction, int output, const Variable& g) {
    if (!any(number)) grads_[number].resize(directions_ * paths_.nodes()[number]->outputs.size());
    accumulate(at(number, direction)[static_cast<std::size_t>(output)], g);
  }
  void forget(std::size_t number) { grads_[number] = {}; }

  // The slots where the gradients of a node's inputs are being collected, null where there is none yet.
  std::vector<Variable*> collected(std::size_t number, std::size_t direction) {
    const std::span<const std::size_t> sources = paths_.sources(number);
    std::vector<Variable*> slots(sources.size(), nullptr);
    for (std::size_t i = 0; i < sources.size(); ++i) {
      if (sources[i] == Paths::kNone || !any(sources[i])) continue;
      const auto output = static_cast<std::size_t>(paths_.nodes()[number]->inputs[i].output);
      slots[i] = &at(sources[i], direction)[output];
    }
    return slots;
  }

 private:
  const Paths& paths_;
  std::size_t directions_;
  std::vector<std::vector<Variable>> grads_;  // [node][direction, output]; empty where nothing has arrived
};

void check_seed(const Variable& seed, const Variable& output, std::size_t k) {
  check(seed.shape() == output.shape() && seed.dtype() == output.dtype(),
        "[grad] grad_outputs[{}] is {} {} but output {} is {} {}; they must match", k, seed.dtype(),
        seed.shape(), k, output.dtype(), output.shape());
}

// Differentiates along the seeds [direction][output], of which undefined ones are zero, and calls visit(i,
// gradients of input i, one a direction) for every input that something has arrived at, from the youngest to
// the oldest; undefined gradients are zero. One walk over the graph: what the directions share is in the
// cache when the second one needs it. `paths`: those from the inputs to the outputs.
void walk(const Paths& paths, std::span<const Variable> outputs, std::span<const Variable> inputs,
          std::span<const std::vector<Variable>> seeds, const GradientVisitor& visit) {
  const std::size_t directions = seeds.size();
  PendingGradients pending(paths, directions);
  for (std::size_t d = 0; d < directions; ++d) {
    for (std::size_t k = 0; k < outputs.size(); ++k) {
      if (!seeds[d][k].defined()) continue;
      check_seed(seeds[d][k], outputs[k], k);
      const std::size_t number = paths.find(outputs[k].node().get());
      if (number != Paths::kNone) pending.deliver(number, d, outputs[k].output_index(), seeds[d][k]);
    }
  }

  std::vector<std::vector<std::size_t>> wanted(paths.nodes().size());  // which inputs a node is
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const std::size_t number = paths.find(inputs[i].node().get());
    if (number != Paths::kNone) wanted[number].push_back(i);
  }

  std::vector<Variable> arrived(directions);
  std::vector<char> needs;
  for (std::size_t number = paths.nodes().size(); number-- > 0;) {
    if (!pending.any(number)) continue;
    const std::shared_ptr<Node>& node = paths.nodes()[number];
    for (std::size_t i : wanted[number]) {
      for (std::size_t d = 0; d < directions; ++d) {
        arrived[d] = pending.at(number, d)[static_cast<std::size_t>(inputs[i].output_index())];
      }
      visit(i, arrived);
      // What nobody kept can be overwritten by the next node.
      std::fill(arrived.begin(), arrived.end(), Variable());
    }
    const std::span<const std::size_t> sources = paths.sources(number);
    needs.assign(sources.size(), 0);
    for (std::size_t i = 0; i < needs.size(); ++i) needs[i] = sources[i] != Paths::kNone ? 1 : 0;
    const bool passes_on = node->op != nullptr && std::find(needs.begin(), needs.end(), 1) != needs.end();
    for (std::size_t d = 0; passes_on && d < directions; ++d) {
      const std::span<Variable> grads = pending.at(number, d);
      if (std::none_of(grads.begin(), grads.end(), [](const Variable& g) { return g.defined(); })) continue;
      const std::vector<Variable*> collected = pending.collected(number, d);
      const std::vector<Variable> input_grads = node->vjp(Backward(node, grads, needs, collected));
      check(input_grads.size() == needs.size(),
            "[grad] the derivative of '{}' returned {} gradients for {} inputs", node->op->name,
            input_grads.size(), needs.size());
      std::fill(grads.begin(), grads.end(), Variable());  // they may be what the next node can overwrite
      for (std::size_t i = 0; i < needs.size(); ++i) {
        if (needs[i] == 0 || !input_grads[i].defined()) continue;
        pending.deliver(sources[i], d, node->inputs[i].output, input_grads[i]);
      }
    }
    pending.forget(number);
  }
}

// The gradients [direction][input] of a walk.
std::vector<std::vector<Variable>> differentiate(const Paths& paths, std::span<const Variable> outputs,
                                                 std::span<const Variable> inputs,
                                                 std::span<const std::vector<Variable>> seeds,
                                                 bool create_graph) {
  RecordingGuard guard(create_graph);
  std::vector<std::vector<Variable>> results(seeds.size(), std::vector<Variable>(inputs.size()));
  walk(paths, outputs, inputs, seeds, [&](std::size_t i, std::span<const Variable> gradients) {
    for (std::size_t d = 0; d < gradients.size(); ++d) results[d][i] = gradients[d];
  });
  return results;
}

// Puts zeros in the place of undefined gradients: of inputs that the outputs depend on, to which nothing came
// because seeds are undefined, and, if that is allowed, of the others.
void complete(const Paths& paths, std::span<const Variable> inputs, std::vector<Variable>& gradients,
              bool allow_unused) {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (gradients[i].defined()) {
      check(gradients[i].shape() == inputs[i].shape(),
            "[grad] the gradient of input {} came out with shape {} instead of {}", i, gradients[i].shape(),
            inputs[i].shape());
      continue;
    }
    check(allow_unused || paths.contains(inputs[i].node().get()),
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
  const Paths paths(outputs, inputs);
  std::vector<Variable> gradients =
      std::move(differentiate(paths, outputs, inputs, std::span(&seeds, 1), options.create_graph).front());
  complete(paths, inputs, gradients, options.allow_unused);
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
  walk(Paths(outputs, inputs), outputs, inputs, seeds, visit);
}

GradientGraph::GradientGraph(const Variable& loss, std::vector<Variable> inputs, HvpRoad road)
    : loss_(loss), inputs_(std::move(inputs)), road_(road) {
  check(loss.numel() == 1,
        "[GradientGraph] the loss must be a scalar but has shape {}; reduce it with mean or sum",
        loss.shape());
  gradient_ = grad(loss, inputs_, {.create_graph = true});
  paths_ = std::make_shared<const Paths>(gradient_, inputs_);
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
                         ? push_forward(*paths_, gradient_, inputs_, seeds, {.allow_unused = true})
                         : differentiate(*paths_, gradient_, inputs_, seeds, false);
  std::vector<std::vector<Tensor>> products;
  for (std::vector<Variable>& product : derivatives) {
    complete(*paths_, inputs_, product, true);
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
