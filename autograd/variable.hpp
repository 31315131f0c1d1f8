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

/// How an op depends on its differentiable inputs (for OpKind::surrogate: how the function does whose
/// derivative it takes). See autograd/linearity.hpp for what this is good for.
enum class Linearity : std::uint8_t {
  general,   ///< any way at all
  linear,    ///< piecewise linear or affine in all inputs jointly: add, relu, reshape
  bilinear,  ///< input 0 times input 1, plus what is linear in the other inputs, up to pieces: linear in all
             ///< inputs jointly as long as one of the first two is held: mul, conv2d, channel_affine
};

/// One entry of the op registry.
struct Op {
  std::string name;
  OpKind kind;
  Linearity linearity;
};

/// Enters an op into the registry, once, from the file that defines it. Names are unique.
const Op& register_op(std::string_view name, OpKind kind = OpKind::exact,
                      Linearity linearity = Linearity::general);
inline const Op& register_op(std::string_view name, Linearity linearity) {
  return register_op(name, OpKind::exact, linearity);
}
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
  /// The sum of what other uses of input i have contributed to its gradient so far, undefined when there is
  /// none. Whoever takes it adds his own share, and returns the sum as the gradient of input i.
  Variable take_collected(int i) const;
  /// The same for a VJP that can add to it in place. Undefined, too, when somebody else holds the tensor or
  /// when the gradient is itself recorded; it is then not taken.
  Tensor take_collected_in_place(int i) const;
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

/// What an op's Jacobian-vector product (JVP) is given.
class Forward {
 public:
  /// `tangents`: one per input, undefined for zero; a rule may take them. `wanted`: one per output.
  Forward(const std::shared_ptr<Node>& node, std::span<Variable> tangents, std::span<const char> wanted)
      : node_(node), tangents_(tangents), wanted_(wanted) {}

  /// The direction in which input i moves: undefined when it does not, which at least one does.
  const Variable& tangent(int i = 0) const { return tangents_[static_cast<std::size_t>(i)]; }
  /// Tangent i, given up: if nobody else uses it, its tensor may be overwritten (see accumulate in
  /// autograd/walk.hpp).
  Variable take(int i = 0) const { return std::move(tangents_[static_cast<std::size_t>(i)]); }
  /// Whether the tangent of output i is wanted; the others may be left undefined.
  bool needs(int i) const { return wanted_[static_cast<std::size_t>(i)] != 0; }
  /// Output i as a Variable of the graph, from its value, as in Backward.
  Variable output(Tensor value, int i = 0) const { return {std::move(value), node_, i}; }

  /// The tangents of the outputs from the op's VJP, for any op: Jv = ∂⟨Jᵀg, v⟩/∂g. Costs the VJP and its
  /// derivative.
  std::vector<Variable> by_transposition() const;
  /// The VJP applied to the tangent, which is the JVP where the Jacobian is symmetric.
  std::vector<Variable> by_symmetry() const;

 private:
  const std::shared_ptr<Node>& node_;
  std::span<Variable> tangents_;
  std::span<const char> wanted_;
};

/// Maps tangents of an op's inputs to tangents of its outputs (one each, undefined for "zero" or "not
/// needed"). Written with differentiable ops, like a VJP.
using Jvp = std::function<std::vector<Variable>(const Forward&)>;

/// The rule of ops of one input whose Jacobian is symmetric: everything elementwise, softmax.
std::vector<Variable> symmetric(const Forward& d);

/// A place in the graph that a gradient flows to.
struct Edge {
  std::shared_ptr<Node> node;
  int output = 0;
};

struct OutputType {
  Shape shape;
  DType dtype = DType::f32;
};

/// One application of an op. Users never make one; ops do, through `record`.
struct Node {
  const Op* op = nullptr;      ///< null for a leaf
  std::uint64_t sequence = 0;  ///< grows along every path of the graph: a topological order
  std::vector<Edge> inputs;    ///< edge i has a null node when input i is a constant
  std::vector<OutputType> outputs;
  Vjp vjp;
  Jvp jvp;  ///< empty: by transposition
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

/// Whether forward passes on this thread are there to measure a model, not to train it.
bool measuring();

/// Makes the forward passes of its lifetime, on this thread, leave the model as it is: layers that keep
/// statistics of what they see, as batch norm does in train mode, keep none. Whatever runs passes of its own
/// accord, such as a curvature operator that builds a graph again, holds one.
class MeasuringGuard {
 public:
  MeasuringGuard();
  ~MeasuringGuard();
  MeasuringGuard(const MeasuringGuard&) = delete;
  MeasuringGuard& operator=(const MeasuringGuard&) = delete;

 private:
  bool previous_;
};
/// Ops inside its lifetime make constants.
class NoGrad : public RecordingGuard {
 public:
  NoGrad() : RecordingGuard(false) {}
};

/// Turns an op's result into a Variable: joins the graph when recording and an input requires a gradient. An
/// op without a `jvp` is differentiated forward by transposing its `vjp`.
Variable record(const Op& op, std::initializer_list<Variable> inputs, Tensor output, Vjp vjp, Jvp jvp = {});
/// The same for an op with several outputs.
std::vector<Variable> record(const Op& op, std::initializer_list<Variable> inputs,
                             std::vector<Tensor> outputs, Vjp vjp, Jvp jvp = {});

/// Names of the ops in the graph behind `v`, sorted, each once.
std::vector<std::string> graph_ops(const Variable& v);

}  // namespace goshawk
