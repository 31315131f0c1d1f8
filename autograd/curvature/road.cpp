#include "autograd/curvature/road.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "autograd/linearity.hpp"

namespace goshawk {
namespace {

/// Why the exact road does not hold; empty if it does.
std::string obstacle(const ClassifierGraph& graph) {
  if (graph.sites.empty()) return "no layer was recorded";
  const std::vector<std::string> ops = graph_ops(graph.logits);
  if (std::find(ops.begin(), ops.end(), "batch_norm_train") != ops.end()) {
    return "batch normalisation is in train mode, so a sample's logits depend on the whole microbatch; set "
           "eval "
           "mode";
  }
  std::set<std::string> seen;
  std::map<std::pair<const Node*, int>, std::string> layer_of_weight;
  for (const LinearSite& site : graph.sites) {
    if (!seen.insert(site.name).second) {
      return fmt::format("layer {} is used more than once, so the logits are not linear in its weight",
                         site.name);
    }
    if (!site.weight.requires_grad()) {
      return fmt::format("the weight of layer {} is a constant; make it a leaf", site.name);
    }
    const auto [first, own] =
        layer_of_weight.emplace(std::pair(site.weight.node().get(), site.weight.output_index()), site.name);
    if (!own) {
      return fmt::format("layers {} and {} share their weight, so what is found for one is not its Hessian",
                         first->second, site.name);
    }
    for (const auto& [what, variable] :
         {std::pair{"weight", &site.weight}, std::pair{"input", &site.input}}) {
      if (const Op* op = first_nonlinear_op(graph.logits, *variable)) {
        return fmt::format(
            "the logits are not piecewise linear in the {} of layer {}: op '{}' lies on the way", what,
            site.name, op->name);
      }
    }
  }
  return {};
}

}  // namespace

std::string road_name(Road road) {
  switch (road) {
    case Road::automatic:
      return "automatic";
    case Road::exact:
      return "exact";
    case Road::double_backward:
      break;
  }
  return "double-backward";
}

Road road_of(const std::string& name) {
  for (Road road : {Road::automatic, Road::exact, Road::double_backward}) {
    if (name == road_name(road)) return road;
  }
  throw UsageError(
      fmt::format("[road] there is no road '{}'; choose automatic, exact or double-backward", name));
}

RoadChoice choose_road(const ClassifierGraph& graph, Road wanted) {
  if (wanted == Road::double_backward) return {Road::double_backward, "asked for"};
  const std::string reason = obstacle(graph);
  check(wanted != Road::exact || reason.empty(),
        "[road] the exact road does not hold: {}; use the double-backward road", reason);
  if (!reason.empty()) return {Road::double_backward, reason};
  return {
      Road::exact,
      "the logits are piecewise linear in every layer's weight and input, so Hessian blocks are Gauss-Newton "
      "blocks"};
}

}  // namespace goshawk
