#include <doctest/doctest.h>

#include "core/error.hpp"
#include "models/registry.hpp"

using namespace goshawk;

TEST_CASE("models by name") {
  CHECK(model_names() == std::vector<std::string>{"resnet20", "resnet20_b", "resnet32", "resnet32_b",
                                                  "resnet44", "resnet44_b", "resnet56", "resnet56_b",
                                                  "squeezenext23", "squeezenext23_w2", "squeezenext23v5",
                                                  "squeezenext23v5_w2"});
  CHECK(make_model("resnet20")->parameter_count() == 269722);
  CHECK(make_model("resnet20", {.classes = 100})->parameter_count() == 269722 + 65 * 90);
  CHECK(make_model("resnet20_b")->parameter_count() == 272474);
  CHECK(make_model("resnet56")->parameter_count() == 853018);
  CHECK(model_input("resnet32").height == 32);
  CHECK(model_input("resnet32").channels == 3);
  CHECK(make_model("squeezenext23_w2", {.classes = 1000})->parameter_count() == 2583752);
  CHECK(make_model("squeezenext23", {.classes = 10})->parameter_count() == 724056 - 129 * 990);
  CHECK(make_model("squeezenext23v5")->parameter_count() <
        make_model("squeezenext23v5_w2")->parameter_count());
  CHECK(model_input("squeezenext23v5").height == 227);
  CHECK(model_input("squeezenext23v5").width == 227);
  CHECK_THROWS_WITH_AS(
      make_model("resnet21"),
      "[make_model] there is no model 'resnet21'; choose one of resnet20, resnet20_b, resnet32, "
      "resnet32_b, resnet44, resnet44_b, resnet56, resnet56_b, squeezenext23, squeezenext23_w2, "
      "squeezenext23v5, squeezenext23v5_w2",
      UsageError);
  CHECK_THROWS_AS(model_input(""), UsageError);
}

TEST_CASE("what a model expects of its pictures") {
  using Channels = std::array<double, 3>;
  // Of ImageNet, as everybody has them since Torch 7.
  CHECK(model_input("squeezenext23").mean == Channels{0.485, 0.456, 0.406});
  CHECK(model_input("squeezenext23").std == Channels{0.229, 0.224, 0.225});
  for (const std::string& name : model_names()) {
    for (const double deviation : model_input(name).std) CHECK(deviation > 0.1);
  }
}

TEST_CASE("the seed decides the weights; f64 is the same network") {
  const auto weights = [](const ModelOptions& options) {
    const auto model = make_model("resnet20", options);
    std::vector<float> all;
    const auto add = [&](const Tensor& tensor) {
      const std::vector<float> values = tensor.to(DType::f32).to_vector<float>();
      all.insert(all.end(), values.begin(), values.end());
    };
    for (const Variable& p : model->parameters()) add(p.value());
    for (const NamedBuffer& b : model->named_buffers()) add(b.tensor);
    return all;
  };
  CHECK(weights({.seed = 1}) == weights({.seed = 1}));
  CHECK(weights({.seed = 1}) != weights({.seed = 2}));
  CHECK(weights({.seed = 1}) == weights({.seed = 1, .dtype = DType::f64}));
  const auto wide = make_model("resnet20", {.dtype = DType::f64});
  for (const NamedParameter& p : wide->named_parameters()) CHECK(p.variable.dtype() == DType::f64);
}
