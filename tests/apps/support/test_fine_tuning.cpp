#include <doctest/doctest.h>
#include <set>

#include "apps/support/fine_tuning.hpp"

using namespace goshawk;

namespace {

/// Three layers in blocks of their own, each cheaper than the one before.
struct Example {
  Example() {
    for (const char* name : {"conv1", "conv2", "linear"}) {
      const double cost = 3 - static_cast<double>(bits.layers.size());
      costs.layers.push_back(
          {.name = name, .parameters = 8, .choices = {{.bits = 2, .bytes = 2, .cost = cost}}});
      bits.layers.push_back({.name = name, .parameters = 8, .weight = 2, .activation = 4});
    }
  }
  Costs costs;
  BitAssignment bits;
};

}  // namespace

TEST_CASE("stages take all epochs, also where more stages are wanted than there are blocks or epochs") {
  const Example e;
  for (const int stages : {1, 2, 3, 4, 99}) {
    for (const int epochs : {0, 1, 2, 3, 7, 20}) {
      CAPTURE(stages);
      CAPTURE(epochs);
      const std::vector<Stage> plan = stages_within(epochs, stages, e.costs, e.bits);
      int sum = 0;
      std::set<std::string> layers;
      for (const Stage& stage : plan) {
        sum += stage.epochs;
        CHECK((stage.epochs > 0 || epochs == 0));
        layers.insert(stage.layers.begin(), stage.layers.end());
      }
      CHECK(sum == epochs);
      CHECK(layers.size() == 3);
    }
  }
}
