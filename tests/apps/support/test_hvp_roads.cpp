#include <doctest/doctest.h>

#include "apps/support/hvp_roads.hpp"
#include "core/error.hpp"

using namespace goshawk;

TEST_CASE("each road to Hessian-vector products has its name, and no other is taken") {
  CHECK(hvp_road_names().size() == 3);
  CHECK(hvp_road_of("reverse-over-reverse") == HvpRoad::reverse_over_reverse);
  CHECK(hvp_road_of("forward-over-reverse") == HvpRoad::forward_over_reverse);
  CHECK(hvp_road_of("automatic") == HvpRoad::automatic);
  CHECK_THROWS_WITH_AS(hvp_road_of("scenic"), doctest::Contains("choose from reverse-over-reverse, forward"),
                       UsageError);
}
