#include "apps/support/hvp_roads.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <utility>

#include "core/error.hpp"

namespace goshawk {
namespace {

const std::vector<std::pair<std::string, HvpRoad>> kRoads = {
    {"reverse-over-reverse", HvpRoad::reverse_over_reverse},
    {"forward-over-reverse", HvpRoad::forward_over_reverse},
    {"automatic", HvpRoad::automatic},
};

}  // namespace

std::vector<std::string> hvp_road_names() {
  std::vector<std::string> names;
  for (const auto& [name, road] : kRoads) names.push_back(name);
  return names;
}

HvpRoad hvp_road_of(const std::string& name) {
  for (const auto& [known, road] : kRoads) {
    if (name == known) return road;
  }
  throw UsageError(fmt::format("there is no road '{}' to Hessian-vector products; choose from {}", name,
                               fmt::join(hvp_road_names(), ", ")));
}

}  // namespace goshawk
