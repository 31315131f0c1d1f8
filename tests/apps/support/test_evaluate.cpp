#include <doctest/doctest.h>

#include "apps/support/evaluate.hpp"
#include "datasets/synthetic.hpp"
#include "nn/layers.hpp"

using namespace goshawk;

namespace {

class SmallNet : public Module {
 public:
  explicit SmallNet(std::int64_t classes)
      : conv({.in = 3, .out = 4, .kernel = 3}), linear({.in = 4, .out = classes}) {
    register_module("conv", conv);
    register_module("linear", linear);
  }
  Variable forward(const Variable& x) override { return linear(global_avg_pool(relu(conv(x)))); }
  Conv2d conv;
  Linear linear;
};

}  // namespace

TEST_CASE("an evaluation leaves every module in its own mode, also when it fails") {
  const auto pictures = make_synthetic(Split::test, 20);  // of ten classes
  for (const bool fails : {false, true}) {
    SmallNet model(fails ? 3 : 10);
    model.conv.set_mode(Mode::eval);  // as the frozen part of a network may be
    if (fails) {
      CHECK_THROWS_WITH_AS(evaluate(model, pictures), doctest::Contains("label"), Error);
    } else {
      CHECK(evaluate(model, pictures).images == 20);
    }
    CHECK((model.mode() == Mode::train));
    CHECK((model.conv.mode() == Mode::eval));
    CHECK((model.linear.mode() == Mode::train));
  }
}
