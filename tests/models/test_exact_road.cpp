#include <doctest/doctest.h>

#include "autograd/curvature/road.hpp"
#include "core/random.hpp"
#include "models/registry.hpp"
#include "nn/layer_recorder.hpp"

using namespace goshawk;

TEST_CASE(
    "every model is piecewise linear in each layer in eval mode; with batch norm in train mode it is not") {
  for (const std::string& name : model_names()) {
    INFO(name);
    const InputSpec input = model_input(name);
    const auto model = make_model(name);
    Random random(1);
    const Tensor images = random_normal({2, input.height, input.width, input.channels}, DType::f32, random);
    const Tensor labels = Tensor::from<std::int64_t>({0, 1}, {2});
    model->set_mode(Mode::eval);
    const ClassifierGraph graph = record_classifier(*model, images, labels);
    // Each layer once, in the order of registration: results and random probes are numbered by it.
    const auto layers = weighted_layers(*model);
    REQUIRE(graph.sites.size() == layers.size());
    for (std::size_t l = 0; l < layers.size(); ++l) CHECK(graph.sites[l].name == layers[l].first);
    const RoadChoice choice = choose_road(graph);
    INFO(choice.reason);
    CHECK(choice.road == Road::exact);
  }
  const auto model = make_model("resnet20");
  Random random(1);
  const ClassifierGraph graph = record_classifier(*model, random_normal({2, 32, 32, 3}, DType::f32, random),
                                                  Tensor::from<std::int64_t>({0, 1}, {2}));
  CHECK(choose_road(graph).road == Road::double_backward);
}
