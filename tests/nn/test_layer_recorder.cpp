#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <memory>
#include <thread>

#include "autograd/curvature/exact_traces.hpp"
#include "autograd/curvature/gauss_newton.hpp"
#include "autograd/curvature/hessian_operator.hpp"
#include "autograd/curvature/road.hpp"
#include "autograd/grad.hpp"
#include "core/random.hpp"
#include "nn/layer_recorder.hpp"

using namespace goshawk;

namespace {

/// conv – bn – relu – conv with bias – relu – flatten – linear, f64, in eval mode.
struct Net {
  Sequential model;
  Tensor images, labels;

  explicit Net(std::uint64_t seed) {
    model.add<Conv2d>({.in = 2, .out = 4, .kernel = 3, .padding = 1}, "conv1");
    model.add<BatchNorm2d>({.channels = 4}, "bn1");
    model.add<ReLU>();
    model.add<Conv2d>({.in = 4, .out = 3, .kernel = {1, 3}, .stride = {2, 1}, .bias = true}, "conv2");
    model.add<ReLU>();
    model.add<Flatten>();
    model.add<Linear>({.in = 36, .out = 5}, "linear");
    model.to(DType::f64);
    Random random(seed);
    for (const Variable& p : model.parameters()) {
      p.value().copy_from(random_normal(p.shape(), DType::f64, random));
    }
    model.set_mode(Mode::eval);
    images = random_normal({3, 6, 6, 2}, DType::f64, random);
    labels = Tensor::from<std::int64_t>({0, 4, 2}, {3});
  }
  Conv2d& conv2() { return dynamic_cast<Conv2d&>(model[3]); }
};

std::vector<double> values(const Variable& v) {
  return v.value().to_vector<double>();
}

}  // namespace

TEST_CASE("a recorded pass gives the same logits, and sites that reproduce each layer") {
  Net net(1);
  const ClassifierGraph graph = record_classifier(net.model, net.images, net.labels);
  // Up to rounding, since a convolution runs with the batch norm behind it where nobody looks between them.
  const std::vector<double> logits = values(net.model.forward(net.images));
  REQUIRE(logits.size() == 15);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    CHECK(values(graph.logits)[i] == doctest::Approx(logits[i]).epsilon(1e-12));
  }
  REQUIRE(graph.sites.size() == 3);
  CHECK(graph.sites[0].name == "conv1");
  CHECK(graph.sites[1].name == "conv2");
  CHECK(graph.sites[2].name == "linear");
  CHECK(graph.sites[2].kind == LinearKind::linear);
  CHECK(graph.sites[1].params.stride_h == 2);
  CHECK(graph.sites[1].params.stride_w == 1);
  CHECK(values(graph.sites[0].input) == net.images.to_vector<double>());
  CHECK(graph.sites[1].weight.node() == net.conv2().weight.node());
  for (const auto& [name, layer] : weighted_layers(net.model)) {
    const LinearSite& site = *std::find_if(graph.sites.begin(), graph.sites.end(),
                                           [n = name](const LinearSite& s) { return s.name == n; });
    const Variable again = site.kind == LinearKind::conv2d
                               ? conv2d(site.input, site.weight, site.params, layer->bias)
                               : channel_shift(matmul(site.input, site.weight), layer->bias);
    CHECK(values(again) == values(site.output));
    CHECK(site.input.requires_grad());
  }
  CHECK(choose_road(graph).road == Road::exact);
  // Nothing is recorded beyond the recorder's life, nor of other models.
  CHECK(LayerRecorder::of(net.conv2()) == nullptr);
  Net other(2);
  LayerRecorder recorder(other.model);
  net.model.forward(net.images);
  CHECK(recorder.sites().empty());
}

TEST_CASE("a recorder goes on after its sites were taken") {
  Net net(1);
  LayerRecorder recorder(net.model);
  net.model.forward(net.images);
  CHECK(recorder.take_sites().size() == 3);
  CHECK(recorder.sites().empty());
  net.model.forward(net.images);
  REQUIRE(recorder.sites().size() == 3);
  CHECK(recorder.sites()[0].name == "conv1");
  CHECK(recorder.sites()[2].name == "linear");
}

TEST_CASE("sites come in the order of registration, and a layer's uses in their own") {
  // A branch that is registered last and runs first, and a layer that runs twice.
  struct Branches : Module {
    Linear main{{.in = 2, .out = 2}}, branch{{.in = 2, .out = 2}};
    Branches() {
      register_module("main", main);
      register_module("branch", branch);
    }
    Variable forward(const Variable& x) override {
      const Variable side = branch(x);
      return main(main(x)) + side;
    }
  } net;
  net.main.weight.value().copy_from(Tensor::from<float>({2, 0, 0, 2}, {2, 2}));
  LayerRecorder recorder(net);
  net(Tensor::full({1, 2}, DType::f32, 1));
  REQUIRE(recorder.sites().size() == 3);
  CHECK(recorder.sites()[0].name == "main");
  CHECK(recorder.sites()[1].name == "main");
  CHECK(recorder.sites()[2].name == "branch");
  CHECK(recorder.sites()[0].input.value().data<float>()[0] == 1);
  CHECK(recorder.sites()[1].input.value().data<float>()[0] == 2);
}

TEST_CASE("an input that is used twice is recorded as the layer alone sees it") {
  Net net(3);
  LayerRecorder recorder(net.model);
  const Variable x = Variable::leaf(net.images);
  Conv2d& conv = dynamic_cast<Conv2d&>(net.model[0]);
  const Variable loss = add(sum(conv.forward(x)), sum(mul(x, x)));
  const Variable site_input = recorder.sites().at(0).input;
  const std::vector<Variable> g = grad(loss, std::vector{x, site_input});
  const Variable alone = grad(sum(conv2d(x, conv.weight, conv.params())), std::vector{x})[0];
  CHECK(values(g[1]) == values(alone));
  CHECK(values(g[0]) != values(alone));
}

TEST_CASE(
    "recorders of two models, and two of one, on one thread: each layer goes to the youngest that knows it") {
  Net teacher(6), student(7);
  auto first = std::make_unique<LayerRecorder>(teacher.model);
  auto second = std::make_unique<LayerRecorder>(student.model);
  teacher.model(teacher.images);
  student.model(student.images);
  CHECK(first->sites().size() == 3);
  CHECK(second->sites().size() == 3);
  // The older one ends first, and the younger one goes on.
  first.reset();
  student.model(student.images);
  CHECK(second->sites().size() == 6);
  {
    LayerRecorder inner(student.model);
    student.model(student.images);
    CHECK(inner.sites().size() == 3);
    CHECK(second->sites().size() == 6);
  }
  student.model(student.images);
  CHECK(second->sites().size() == 9);
  second.reset();
  student.model(student.images);  // with no recorder left
  Sequential empty;
  CHECK_THROWS_WITH_AS(LayerRecorder{empty},
                       "[LayerRecorder] the model has no convolution or linear layers to record", Error);
}

TEST_CASE("threads record for themselves") {
  Net net(4);
  std::vector<ClassifierGraph> graphs(4);
  std::vector<std::thread> threads;
  for (ClassifierGraph& graph : graphs) {
    threads.emplace_back([&] { graph = record_classifier(net.model, net.images, net.labels); });
  }
  for (std::thread& t : threads) t.join();
  for (const ClassifierGraph& graph : graphs) {
    REQUIRE(graph.sites.size() == 3);
    CHECK(values(graph.logits) == values(graphs[0].logits));
  }
}

TEST_CASE("a quantizer on weights and inputs: the site holds what the layer multiplies") {
  Net net(5);
  net.conv2().weight_transform = [](const Variable& w) { return scale(w, 2); };
  net.conv2().input_transform = [](const Variable& x) { return scale(x, 0.5); };
  const ClassifierGraph graph = record_classifier(net.model, net.images, net.labels);
  const LinearSite& site = graph.sites[1];
  CHECK(values(site.weight) == values(scale(net.conv2().weight, 2)));
  CHECK(values(conv2d(site.input, site.weight, site.params, net.conv2().bias)) == values(site.output));
  // Chain rule: twice the weight has a quarter of the curvature.
  const ClassifierPass pass = [&](std::size_t) {
    return record_classifier(net.model, net.images, net.labels);
  };
  const double trace = exact_traces(pass, {3}).layers[1].weight.value;
  const HessianOperator hessian({net.conv2().weight}, {3}, [&](std::size_t) {
    return softmax_cross_entropy(net.model.forward(net.images), net.labels);
  });
  double dense_trace = 0;
  for (std::int64_t i = 0; i < net.conv2().weight.numel(); ++i) {
    const Vector unit = zero_vector(hessian.shapes(), DType::f64);
    unit[0].data<double>()[i] = 1;
    dense_trace += hessian.apply(unit)[0].data<double>()[i];
  }
  CHECK(dense_trace > 0);
  CHECK(std::abs(4 * trace - dense_trace) < 1e-9 * dense_trace);
}

TEST_CASE("curvature in train mode leaves the running statistics alone, also where graphs are built again") {
  Net net(6);
  net.model.set_mode(Mode::train);
  const auto statistics = [&] {
    std::vector<double> all;
    for (const auto& buffer : net.model.named_buffers()) {
      for (const double v : buffer.tensor.to(DType::f64).to_vector<double>()) all.push_back(v);
    }
    return all;
  };
  const std::vector<double> before = statistics();
  REQUIRE(!before.empty());
  const auto loss = [&](std::size_t) { return softmax_cross_entropy(net.model(net.images), net.labels); };
  const auto pass = [&](std::size_t) { return record_classifier(net.model, net.images, net.labels); };
  const std::vector<Variable> parameters = net.model.parameters();
  const HessianOperator h(parameters, {3}, loss, {.graph_bytes = 0});
  const GaussNewtonOperator g(parameters, {3}, pass, OutputMetric::softmax_cross_entropy, {.graph_bytes = 0});
  h.loss();
  Random random(2);
  const Vector v = normal_vector(h.shapes(), h.dtype(), random);
  for (int i = 0; i < 2; ++i) {
    h.apply(v);
    g.apply(v);
  }
  CHECK(statistics() == before);
  // A pass of one's own trains, as before.
  loss(0);
  CHECK(statistics() != before);
}

TEST_CASE("batch norm in train mode is not the exact road's") {
  Net net(6);
  net.model.set_mode(Mode::train);
  const RoadChoice choice = choose_road(record_classifier(net.model, net.images, net.labels));
  CHECK(choice.road == Road::double_backward);
  CHECK(choice.reason.find("train mode") != std::string::npos);
}
