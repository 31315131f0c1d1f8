// Whether a layer's curvature can be had exactly from first derivatives, or needs second ones.
#pragma once

#include <cstdint>
#include <string>

#include "autograd/curvature/linear_site.hpp"

namespace goshawk {

enum class Road : std::uint8_t {
  automatic,        ///< exact where it holds
  exact,            ///< first derivatives: each layer's Hessian block as its Gauss–Newton block
  double_backward,  ///< Hessian-vector products and random probes: holds for every network
};

/// "automatic", "exact" or "double-backward".
std::string road_name(Road road);
/// The reverse. Throws UsageError for anything else.
Road road_of(const std::string& name);

struct RoadChoice {
  Road road = Road::double_backward;  ///< exact or double_backward
  std::string reason;                 ///< why, in a sentence
};

/// Decides from a recorded forward pass: the exact road holds if the logits are piecewise linear in every
/// recorded layer's weight and input, each taken alone, every weight is one layer's, of one use, and no
/// sample's logits depend on another sample (batch norm in eval mode). Throws Error, with the reason, if
/// `wanted` is exact and it does not hold.
RoadChoice choose_road(const ClassifierGraph& graph, Road wanted = Road::automatic);

}  // namespace goshawk
