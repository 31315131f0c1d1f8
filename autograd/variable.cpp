#include "autograd/variable.hpp"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <unordered_set>
#include <utility>

#include "core/error.hpp"

namespace goshawk {
namespace {

std::atomic<std::uint64_t> next_sequence{1};
thread_local bool recording_on_this_thread = true;
thread_local bool measuring_on_this_thread = false;

// The nodes that the outermost release on this thread has yet to delete; null outside of one. A plain
// pointer, as objects of this thread may be gone when a Variable of static lifetime is released.
thread_local std::vector<Node*>* releasing = nullptr;

// Deleting a node drops its inputs' nodes, whose deletion drops theirs: as recursion this overflows the stack
// on a long graph. Nodes whose last reference goes while another is being deleted are queued instead.
void release_iteratively(Node* node) {
  if (releasing != nullptr) {
    releasing->push_back(node);
    return;
  }
  std::vector<Node*> queue;
  releasing = &queue;
  while (node != nullptr) {
    delete node;
    node = queue.empty() ? nullptr : queue.back();
    if (node != nullptr) queue.pop_back();
  }
  releasing = nullptr;
}

std::shared_ptr<Node> make_node(std::span<const Tensor> outputs) {
  std::shared_ptr<Node> node(new Node, release_iteratively);
  node->sequence = next_sequence.fetch_add(1, std::memory_order_relaxed);
  node->outputs.reserve(outputs.size());
  for (const Tensor& output : outputs) node->outputs.push_back({output.shape(), output.dtype()});
  return node;
}

struct Registry {
  std::mutex mutex;
  std::map<std::string, Op, std::less<>> ops;
};

Registry& registry() {
  static auto* instance = new Registry;
  return *instance;
}

}  // namespace

Variable Variable::leaf(Tensor value) {
  check(value.defined() && is_floating(value.dtype()),
        "[Variable::leaf] only f32 and f64 tensors can be differentiated, not {}",
        value.defined() ? dtype_name(value.dtype()) : "an undefined tensor");
  std::shared_ptr<Node> node = make_node(std::span(&value, 1));
  return {std::move(value), std::move(node), 0};
}

Tensor Variable::release_if_unique() {
  if (!value_.defined() || !value_.unique()) return {};
  Tensor value = std::move(value_);
  *this = Variable();
  return value;
}

Variable Backward::take_collected(int i) const {
  Variable* const sum = collected_[static_cast<std::size_t>(i)];
  return sum == nullptr ? Variable() : std::exchange(*sum, Variable());
}

Tensor Backward::take_collected_in_place(int i) const {
  Variable* const sum = collected_[static_cast<std::size_t>(i)];
  return recording() || sum == nullptr ? Tensor() : sum->release_if_unique();
}

const Op& register_op(std::string_view name, OpKind kind, Linearity linearity) {
  Registry& r = registry();
  std::lock_guard lock(r.mutex);
  const auto [it, inserted] = r.ops.emplace(std::string(name), Op{std::string(name), kind, linearity});
  check(inserted, "[register_op] the op '{}' is registered twice; op names are unique", name);
  return it->second;
}

std::vector<const Op*> registered_ops() {
  Registry& r = registry();
  std::lock_guard lock(r.mutex);
  std::vector<const Op*> all;
  for (const auto& [name, op] : r.ops) all.push_back(&op);
  return all;
}

bool recording() {
  return recording_on_this_thread;
}

RecordingGuard::RecordingGuard(bool on) : previous_(recording_on_this_thread) {
  recording_on_this_thread = on;
}
RecordingGuard::~RecordingGuard() {
  recording_on_this_thread = previous_;
}

bool measuring() {
  return measuring_on_this_thread;
}

MeasuringGuard::MeasuringGuard() : previous_(measuring_on_this_thread) {
  measuring_on_this_thread = true;
}
MeasuringGuard::~MeasuringGuard() {
  measuring_on_this_thread = previous_;
}

std::vector<Variable> record(const Op& op, std::initializer_list<Variable> inputs,
                             std::vector<Tensor> outputs, Vjp vjp, Jvp jvp) {
  std::vector<Variable> results;
  results.reserve(outputs.size());
  const bool differentiable = recording() && std::any_of(inputs.begin(), inputs.end(),
                                                         [](const Variable& v) { return v.requires_grad(); });
  if (!differentiable) {
    for (Tensor& output : outputs) results.emplace_back(std::move(output));
    return results;
  }
  const auto node = make_node(outputs);
  node->op = &op;
  node->inputs.reserve(inputs.size());
  for (const Variable& input : inputs) node->inputs.push_back({input.node(), input.output_index()});
  node->vjp = std::move(vjp);
  node->jvp = std::move(jvp);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    results.emplace_back(std::move(outputs[i]), node, static_cast<int>(i));
  }
  return results;
}

Variable record(const Op& op, std::initializer_list<Variable> inputs, Tensor output, Vjp vjp, Jvp jvp) {
  std::vector<Tensor> outputs;
  outputs.push_back(std::move(output));
  return std::move(record(op, inputs, std::move(outputs), std::move(vjp), std::move(jvp)).front());
}

std::vector<std::string> graph_ops(const Variable& v) {
  std::set<std::string> names;
  std::unordered_set<const Node*> seen;
  std::vector<const Node*> stack{v.node().get()};
  while (!stack.empty()) {
    const Node* node = stack.back();
    stack.pop_back();
    if (node == nullptr || !seen.insert(node).second) continue;
    if (node->op != nullptr) names.insert(node->op->name);
    for (const Edge& edge : node->inputs) stack.push_back(edge.node.get());
  }
  return {names.begin(), names.end()};
}

}  // namespace goshawk
