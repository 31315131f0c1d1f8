#include <doctest/doctest.h>

#include "core/random.hpp"
#include "models/registry.hpp"
#include "nn/layer_recorder.hpp"
#include "quant/residual_groups.hpp"

using namespace goshawk;

namespace {

using Groups = std::vector<std::vector<std::string>>;

Groups groups_of(Module& model, const Shape& pictures) {
  model.set_mode(Mode::eval);
  Random random(1);
  return residual_groups(record_classifier(model, random_normal(pictures, DType::f32, random),
                                           Tensor::from<std::int64_t>({0}, {1})));
}

Groups groups_of(const char* name) {
  const auto model = make_model(name);
  const InputSpec input = model_input(name);
  return groups_of(*model, {1, input.height, input.width, input.channels});
}

/// linear(relu(first(x)) + relu(first(second(x)))): `first` is used twice.
class TwiceUsed : public Module {
 public:
  TwiceUsed() : first({.in = 2, .out = 2}), second({.in = 2, .out = 2}), last({.in = 2, .out = 2}) {
    register_module("first", first);
    register_module("second", second);
    register_module("last", last);
  }
  Variable forward(const Variable& x) override {
    const Variable a = relu(first(x));
    const Variable b = relu(first(second(x)));
    return last(add(a, b));
  }
  Linear first, second, last;
};

}  // namespace

TEST_CASE("shortcuts without layers carry a sum through all stages, projections begin a new one") {
  // Option A: the stem's output goes through every sum. The first convolution of a block meets with nobody.
  CHECK(groups_of("resnet20") ==
        Groups{{"conv1", "layer1.0.conv2", "layer1.1.conv2", "layer1.2.conv2", "layer2.0.conv2",
                "layer2.1.conv2", "layer2.2.conv2", "layer3.0.conv2", "layer3.1.conv2", "layer3.2.conv2"}});
  CHECK(groups_of("resnet20_b") ==
        Groups{{"conv1", "layer1.0.conv2", "layer1.1.conv2", "layer1.2.conv2"},
               {"layer2.0.conv2", "layer2.0.shortcut.0", "layer2.1.conv2", "layer2.2.conv2"},
               {"layer3.0.conv2", "layer3.0.shortcut.0", "layer3.1.conv2", "layer3.2.conv2"}});
}

TEST_CASE("a layer that is used twice is one, and what stands alone is in no group") {
  TwiceUsed twice;
  CHECK(groups_of(twice, {1, 2}) == Groups{});
  Sequential chain;
  chain.add<Linear>({.in = 3, .out = 4}, "a");
  chain.add<Linear>({.in = 4, .out = 2}, "b");
  CHECK(groups_of(chain, {1, 3}) == Groups{});
  CHECK(residual_groups({}).empty());
}

TEST_CASE("SqueezeNext: the last convolutions of a stage's units meet, with what replaces the identity") {
  const Groups groups = groups_of("squeezenext23");
  // Six, six, eight and one units; the first of each has a convolution in place of the identity.
  REQUIRE(groups.size() == 4);
  for (const auto& group : groups) {
    for (const std::string& name : group) {
      CAPTURE(name);
      const bool meets =
          name.find("conv5") != std::string::npos || name.find("identity_conv") != std::string::npos;
      CHECK(meets);
    }
  }
  std::vector<std::size_t> sizes;
  for (const auto& group : groups) sizes.push_back(group.size());
  CHECK(sizes == std::vector<std::size_t>{7, 7, 9, 2});
}
