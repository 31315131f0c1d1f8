#include "quant/residual_groups.hpp"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "autograd/walk.hpp"

namespace goshawk {
namespace {

/// Disjoint sets of 0 … n − 1, each known by its smallest member.
class Sets {
 public:
  std::size_t add() {
    parent_.push_back(parent_.size());
    return parent_.back();
  }
  std::size_t find(std::size_t i) const {
    while (parent_[i] != i) i = parent_[i];
    return i;
  }
  void join(std::size_t a, std::size_t b) {
    const auto [low, high] = std::minmax({find(a), find(b)});
    parent_[high] = low;
  }

 private:
  std::vector<std::size_t> parent_;
};

}  // namespace

std::vector<std::vector<std::string>> residual_groups(const ClassifierGraph& graph) {
  Sets sets;
  std::vector<std::string> names;
  std::vector<Variable> outputs;
  std::unordered_map<std::string, std::size_t> layer_of;
  std::unordered_map<const Node*, std::size_t> carried;  // one of the layers whose output a node carries on
  for (const LinearSite& site : graph.sites) {
    const auto [layer, is_new] = layer_of.try_emplace(site.name, names.size());
    if (is_new) {
      names.push_back(site.name);
      sets.add();
    }
    outputs.push_back(site.output);
    carried[site.output.node().get()] = layer->second;
  }
  if (outputs.empty()) return {};
  const Paths paths(std::span(&graph.logits, 1), outputs);
  for (const std::shared_ptr<Node>& node : paths.nodes()) {
    if (carried.contains(node.get())) continue;  // a layer: it passes nothing on but its own output
    const std::size_t* first = nullptr;
    for (const Edge& edge : node->inputs) {
      const auto it = carried.find(edge.node.get());
      if (it == carried.end()) continue;
      if (first == nullptr) {
        first = &it->second;
      } else {
        sets.join(*first, it->second);
      }
    }
    if (first == nullptr) continue;
    const std::size_t layer = *first;
    carried[node.get()] = layer;
  }
  std::map<std::size_t, std::vector<std::string>> by_first;
  for (std::size_t l = 0; l < names.size(); ++l) by_first[sets.find(l)].push_back(names[l]);
  std::vector<std::vector<std::string>> groups;
  for (auto& [first, members] : by_first) {
    if (members.size() > 1) groups.push_back(std::move(members));
  }
  return groups;
}

}  // namespace goshawk
