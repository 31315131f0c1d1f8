// The names of the roads to Hessian-vector products on command lines.
#pragma once

#include <string>
#include <vector>

#include "autograd/grad.hpp"

namespace goshawk {

/// What may follow the option, in the order in which help lists it.
std::vector<std::string> hvp_road_names();
/// Throws UsageError for an unknown name.
HvpRoad hvp_road_of(const std::string& name);

}  // namespace goshawk
