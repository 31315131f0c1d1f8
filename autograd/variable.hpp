// Variable: a tensor and the node of the graph that made it.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.hpp"

namespace goshawk {

struct Node;

/// A tensor that may take part in differentiation. Copies are handles on the same value and node. Graphs are
/// made of shared nodes and are freed with the last Variable that refers to them; independent graphs may be
/// built and differentiated on several threads at the same time.
class Variable {
 public:
  /// Undefined: stands for "no gradient". `defined()` is false.
  Variable() = default;
  /// A constant: gradients do not flow into it.
  // NOLINTNEXTLINE(google-explicit-constructor): constants abound
  Variable(Tensor value) : value_(std::move(value)) {}
  Variable(Tensor value, std::shared_ptr<Node> node, int output)
      : value_(std::move(value)), node_(std::move(node)), output_(output) {}

  /// An independent variable (a parameter, an input) that gradients can be taken with respect to.
  /// Throws Error unless the value is f32 or f64.
  static Variable leaf(Tensor value);

  bool defined() const { return value_.defined(); }
  bool requires_grad() const { return node_ != nullptr; }
  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  std::int64_t dim(int i) const { return value_.dim(i); }
  std::int64_t numel() const { return value_.numel(); }
  DType dtype() const { return value_.dtype(); }
  /// The only element.
  double item() const { return value_.item(); }
  /// The same value as a constant.
  Variable detach() const { return {value_}; }

  /// Gives up the value, if no other handle shares it; undefined otherwise.
  Tensor release_if_unique();

  const std::shared_ptr<Node>& node() const { return node_; }
  int output_index() const { return output_; }

 private:
  Tensor value_;
  std::shared_ptr<Node> node_;
  int output_ = 0;
};

/// How an op's derivative relates to its forward, which decides how tests must check it.
enum class OpKind : std::uint8_t {
  exact,      ///< the derivative of what the forward computes: checked by finite differences to second order
  surrogate,  ///< the derivative of something else on purpose (straight-through): checked against that
              ///< function
};

/// One entry of the op registry.
struct Op {
  std::string name;
  OpKind kind;
};

/// Enters an op into the registry, once, from the file that defines it. Names are unique.
const Op& register_op(std::string_view name, OpKind kind = OpKind::exact);
/// Every registered op, ordered by name.
std::vector<const Op*> registered_ops();

/// What an op's vector-Jacobian product (VJP) is given.
class Backward {
 public:
  /// `collected`: per input, where the gradient that other uses of it have contributed so far is kept, or
  /// null.
  Backward(const std::shared_ptr<Node>& node, std::span<const Variable> grads, std::span<const char> needs,
           std::span<Variable* const> collected)
      : node_(node), grads_(grads), needs_(needs), collected_(collected) {}

  /// Gradient with respect to output i: undefined when output i did not contribute.
  const Variable& grad(int i = 0) const { return grads_[static_cast<std::size_t>(i)]; }
  /// Whether the gradient with respect to input i is wanted; the others may be left undefined.
  bool needs(int i) const { return needs_[static_cast<std::size_t>(i)] != 0; }
  /// The sum of what other uses of input i have contributed to its gradient so far, for a VJP that can add
  /// its own share to it in place: it then returns this tensor as the gradient of input i. Undefined when
  /// there is none, when somebody else holds the tensor, or when the gradient is itself recorded.
  Tensor take_collected(int i) const;
  /// Output i as a Variable of the graph, from its value. A VJP must capture its own outputs as Tensors and
  /// wrap them here: capturing the Variable would make the node own itself.
  Variable output(Tensor value, int i = 0) const { return {std::move(value), node_, i}; }

 private:
  const std::shared_ptr<Node>& node_;
  std::span<const Variable> grads_;
  std::span<const char> needs_;
  std::span<Variable* const> collected_;
};

/// Maps gradients with respect to an op's outputs to gradients with respect to its inputs (one each,
/// undefined for "zero" or "not needed"). Written with differentiable ops only, so that a derivative of a
/// derivative needs no code.
using Vjp = std::function<std::vector<Variable>(const Backward&)>;

/// A place in the graph that a gradient flows to.
struct Edge {
  std::shared_ptr<Node> node;
  int output = 0;
};

/// One application of an op. Users never make one; ops do, through `record`.
struct Node {
  const Op* op = nullptr;      ///< null for a leaf
  std::uint64_t sequence = 0;  ///< grows along every path of the graph: a topological order
  std::vector<Edge> inputs;    ///< edge i has a null node when input i is a constant
  int outputs = 1;
  Vjp vjp;
};

/// Whether ops on this thread build the graph. On by default.
bool recording();

/// Switches recording for the lifetime of the guard, on this thread.
class RecordingGuard {
 public:
  explicit RecordingGuard(bool on);
  ~RecordingGuard();
  RecordingGuard(const RecordingGuard&) = delete;
  RecordingGuard& operator=(const RecordingGuard&) = delete;

 private:
  bool previous_;
};
/// Ops inside its lifetime make constants.
class NoGrad : public RecordingGuard {
 public:
  NoGrad() : RecordingGuard(false) {}
};

/// Turns an op's result into a Variable: joins the graph when recording and an input requires a gradient.
Variable record(const Op& op, std::initializer_list<Variable> inputs, Tensor output, Vjp vjp);
/// The same for an op with several outputs.
std::vector<Variable> record(const Op& op, std::initializer_list<Variable> inputs,
                             std::vector<Tensor> outputs, Vjp vjp);

/// Names of the ops in the graph behind `v`, sorted, each once.
std::vector<std::string> graph_ops(const Variable& v);

}  // namespace goshawk
