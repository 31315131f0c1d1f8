#include "autograd/jvp.hpp"

#include <algorithm>

#include "autograd/grad.hpp"
#include "autograd/joint_jvp.hpp"
#include "autograd/walk.hpp"

namespace goshawk {
namespace {

// What is known of a node on a path.
struct Moving {
  std::vector<std::vector<Variable>> tangents;  // [direction][output]; undefined: zero, or given up
  std::vector<int> uses;                        // by output: how many inputs of younger nodes still need it
  std::vector<char> wanted;                     // by output: whether anybody needs its tangent
  std::vector<std::size_t> seeded, asked;       // indices of jvp's inputs and outputs that this node made
};
using MovingNodes = std::vector<Moving>;  // by the node's number on the paths

MovingNodes plan(const Paths& paths, std::span<const Variable> outputs, std::span<const Variable> inputs,
                 std::size_t directions) {
  MovingNodes nodes;
  nodes.reserve(paths.nodes().size());
  for (std::size_t number = 0; number < paths.nodes().size(); ++number) {
    const Node& node = *paths.nodes()[number];
    const std::size_t n = node.outputs.size();
    nodes.push_back({.tangents = std::vector(directions, std::vector<Variable>(n)),
                     .uses = std::vector<int>(n),
                     .wanted = std::vector<char>(n),
                     .seeded = {},
                     .asked = {}});
    const std::span<const std::size_t> sources = paths.sources(number);
    for (std::size_t i = 0; i < sources.size(); ++i) {
      if (sources[i] == Paths::kNone) continue;
      Moving& source = nodes[sources[i]];
      const auto output = static_cast<std::size_t>(node.inputs[i].output);
      ++source.uses[output];
      source.wanted[output] = 1;
    }
  }
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    const std::size_t number = paths.find(outputs[k].node().get());
    if (number == Paths::kNone) continue;
    nodes[number].asked.push_back(k);
    nodes[number].wanted[static_cast<std::size_t>(outputs[k].output_index())] = 1;
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    // An input that no output depends on is on no path.
    const std::size_t number = paths.find(inputs[i].node().get());
    if (number != Paths::kNone) nodes[number].seeded.push_back(i);
  }
  return nodes;
}

// The tangents that arrive at a node, [direction][input], taken from where they were kept if this is their
// last use. `sources`: the numbers of the nodes that its inputs come from.
std::vector<std::vector<Variable>> arriving(MovingNodes& nodes, const Node& node,
                                            std::span<const std::size_t> sources, std::size_t directions) {
  std::vector<std::vector<Variable>> tangents(directions, std::vector<Variable>(node.inputs.size()));
  for (std::size_t i = 0; i < sources.size(); ++i) {
    if (sources[i] == Paths::kNone) continue;
    Moving& from = nodes[sources[i]];
    const auto output = static_cast<std::size_t>(node.inputs[i].output);
    const bool last = --from.uses[output] == 0;
    for (std::size_t d = 0; d < directions; ++d) {
      Variable& kept = from.tangents[d][output];
      tangents[d][i] = last ? std::move(kept) : kept;
    }
  }
  return tangents;
}

// The tangents of a node's outputs, [direction][output], from those that arrived, which are given up.
std::vector<std::vector<Variable>> push(const std::shared_ptr<Node>& node,
                                        std::vector<std::vector<Variable>> tangents,
                                        std::span<const char> wanted) {
  std::vector<std::vector<Variable>> results(tangents.size(), std::vector<Variable>(node->outputs.size()));
  std::vector<Forward> moving;
  std::vector<std::size_t> which;
  for (std::size_t d = 0; d < tangents.size(); ++d) {
    if (std::none_of(tangents[d].begin(), tangents[d].end(), [](const Variable& v) { return v.defined(); }))
      continue;
    moving.emplace_back(node, tangents[d], wanted);
    which.push_back(d);
  }
  if (moving.empty()) return results;
  std::vector<std::vector<Variable>> pushed;
  if (const auto* joint = node->jvp.target<JointJvp>()) {
    pushed = (*joint)(moving);
  } else {
    for (const Forward& d : moving) pushed.push_back(node->jvp ? node->jvp(d) : d.by_transposition());
  }
  check(pushed.size() == moving.size(), "[jvp] the rule of '{}' returned {} directions of {}", node->op->name,
        pushed.size(), moving.size());
  for (std::size_t i = 0; i < pushed.size(); ++i) {
    check(pushed[i].size() == node->outputs.size(),
          "[jvp] the rule of '{}' returned {} tangents for {} outputs", node->op->name, pushed[i].size(),
          node->outputs.size());
    for (std::size_t k = 0; k < pushed[i].size(); ++k) {
      const OutputType& type = node->outputs[k];
      const Variable& tangent = pushed[i][k];
      check(!tangent.defined() || (tangent.shape() == type.shape && tangent.dtype() == type.dtype),
            "[jvp] the rule of '{}' returned a tangent {} {} for output {}, which is {} {}", node->op->name,
            tangent.dtype(), tangent.shape(), k, type.dtype, type.shape);
    }
    results[which[i]] = std::move(pushed[i]);
  }
  return results;
}

void check_tangents(std::span<const Variable> inputs, std::span<const Variable> tangents) {
  check(tangents.size() == inputs.size(), "[jvp] {} tangents were given for {} inputs; give one each",
        tangents.size(), inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Variable& v = tangents[i];
    check(!v.defined() || (v.shape() == inputs[i].shape() && v.dtype() == inputs[i].dtype()),
          "[jvp] tangent {} is {} {} but input {} is {} {}; they must match", i, v.dtype(), v.shape(), i,
          inputs[i].dtype(), inputs[i].shape());
  }
}

}  // namespace

std::vector<std::vector<Variable>> jvp_many(std::span<const Variable> outputs,
                                            std::span<const Variable> inputs,
                                            std::span<const std::vector<Variable>> directions,
                                            const JvpOptions& options) {
  check_differentiable(inputs, "jvp");
  return push_forward(Paths(outputs, inputs), outputs, inputs, directions, options);
}

std::vector<std::vector<Variable>> push_forward(const Paths& paths, std::span<const Variable> outputs,
                                                std::span<const Variable> inputs,
                                                std::span<const std::vector<Variable>> directions,
                                                const JvpOptions& options) {
  for (const std::vector<Variable>& tangents : directions) check_tangents(inputs, tangents);
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    check(
        options.allow_unused || paths.contains(outputs[k].node().get()),
        "[jvp] output {} (shape {}) does not depend on any of the inputs; leave it out, or set allow_unused "
        "for a zero tangent",
        k, outputs[k].shape());
  }

  const RecordingGuard guard(options.create_graph);
  MovingNodes nodes = plan(paths, outputs, inputs, directions.size());
  std::vector<std::vector<Variable>> results(directions.size(), std::vector<Variable>(outputs.size()));
  for (std::size_t number = 0; number < nodes.size(); ++number) {
    const std::shared_ptr<Node>& node = paths.nodes()[number];
    Moving& moving = nodes[number];
    moving.tangents =
        push(node, arriving(nodes, *node, paths.sources(number), directions.size()), moving.wanted);
    for (std::size_t d = 0; d < directions.size(); ++d) {
      std::vector<Variable>& out = moving.tangents[d];
      for (std::size_t i : moving.seeded)
        accumulate(out[static_cast<std::size_t>(inputs[i].output_index())], directions[d][i]);
      for (std::size_t k : moving.asked)
        results[d][k] = out[static_cast<std::size_t>(outputs[k].output_index())];
      for (std::size_t k = 0; k < out.size(); ++k) {
        if (moving.uses[k] == 0) out[k] = Variable();
      }
    }
  }
  for (std::vector<Variable>& tangents : results) {
    for (std::size_t k = 0; k < outputs.size(); ++k) {
      if (!tangents[k].defined()) tangents[k] = Tensor::zeros_like(outputs[k].value());
    }
  }
  return results;
}

std::vector<Variable> jvp(std::span<const Variable> outputs, std::span<const Variable> inputs,
                          std::span<const Variable> tangents, const JvpOptions& options) {
  const std::vector<Variable> direction(tangents.begin(), tangents.end());
  return std::move(jvp_many(outputs, inputs, std::span(&direction, 1), options).front());
}

Variable jvp(const Variable& output, std::span<const Variable> inputs, std::span<const Variable> tangents,
             const JvpOptions& options) {
  return std::move(jvp(std::span(&output, 1), inputs, tangents, options).front());
}

std::vector<Variable> Forward::by_transposition() const {
  std::vector<Variable> g(node_->outputs.size()), leaves;
  for (std::size_t k = 0; k < g.size(); ++k) {
    if (wanted_[k] == 0) continue;
    // The VJP is linear in g, so any value does.
    g[k] = Variable::leaf(Tensor::zeros(node_->outputs[k].shape, node_->outputs[k].dtype));
    leaves.push_back(g[k]);
  }
  std::vector<char> moves;
  for (const Variable& tangent : tangents_) moves.push_back(tangent.defined() ? 1 : 0);
  const std::vector<Variable*> collected(tangents_.size(), nullptr);
  std::vector<Variable> pulled;
  {
    const RecordingGuard on(true);
    pulled = node_->vjp(Backward(node_, g, moves, collected));
  }
  std::vector<Variable> used, seeds;
  for (std::size_t i = 0; i < pulled.size(); ++i) {
    if (moves[i] == 0 || !pulled[i].requires_grad()) continue;
    used.push_back(pulled[i]);
    seeds.push_back(tangents_[i]);
  }
  const std::vector<Variable> pushed =
      grad(used, leaves, {.grad_outputs = seeds, .create_graph = recording(), .allow_unused = true});
  std::vector<Variable> results(g.size());
  for (std::size_t k = 0, next = 0; k < g.size(); ++k) {
    if (wanted_[k] != 0) results[k] = pushed[next++];
  }
  return results;
}

std::vector<Variable> Forward::by_symmetry() const {
  const char needed = 1;
  Variable* const collected = nullptr;
  return node_->vjp(Backward(node_, tangents_, std::span(&needed, 1), std::span(&collected, 1)));
}

std::vector<Variable> symmetric(const Forward& d) {
  return d.by_symmetry();
}

}  // namespace goshawk
