#include <doctest/doctest.h>
#include <memory>

#include "core/error.hpp"
#include "nn/layers.hpp"

using namespace goshawk;

namespace {

struct Block : Module {
  Block() {
    register_module("conv", conv);
    register_module("bn", bn);
  }
  Variable forward(const Variable& x) override { return bn(conv(x)); }
  Conv2d conv{{.in = 2, .out = 4, .kernel = 3, .padding = 1, .bias = true}};
  BatchNorm2d bn{{.channels = 4}};
};

struct Net : Module {
  Net() {
    register_parameter("gain", gain);
    register_module("blocks", blocks);
    blocks.append(std::make_unique<Block>());
    blocks.append(std::make_unique<Block>());
    blocks.add<Flatten>();
    register_module("linear", linear);
  }
  Variable forward(const Variable& x) override { return linear(blocks(mul(x, gain))); }
  Variable gain = Variable::leaf(Tensor::full({}, DType::f32, 1));
  Sequential blocks;
  Linear linear{{.in = 16, .out = 3}};
};

struct Registrar : Module {
  Variable forward(const Variable& x) override { return x; }
  void add(const std::string& name) { register_parameter(name, parameter); }
  Variable parameter = Variable::leaf(Tensor::zeros({}, DType::f32));
};

}  // namespace

TEST_CASE("names are dotted and in the order of registration, a module's own before its sub-modules'") {
  Net net;
  std::vector<std::string> parameters, buffers, modules;
  for (const auto& p : net.named_parameters()) parameters.push_back(p.name);
  for (const auto& b : net.named_buffers()) buffers.push_back(b.name);
  for (const auto& m : net.named_modules()) modules.push_back(m.name);
  CHECK(parameters ==
        std::vector<std::string>{"gain", "blocks.0.conv.weight", "blocks.0.conv.bias", "blocks.0.bn.weight",
                                 "blocks.0.bn.bias", "blocks.1.conv.weight", "blocks.1.conv.bias",
                                 "blocks.1.bn.weight", "blocks.1.bn.bias", "linear.weight", "linear.bias"});
  CHECK(buffers == std::vector<std::string>{"blocks.0.bn.running_mean", "blocks.0.bn.running_var",
                                            "blocks.1.bn.running_mean", "blocks.1.bn.running_var"});
  CHECK(modules == std::vector<std::string>{"", "blocks", "blocks.0", "blocks.0.conv", "blocks.0.bn",
                                            "blocks.1", "blocks.1.conv", "blocks.1.bn", "blocks.2",
                                            "linear"});
  CHECK(net.parameters().size() == parameters.size());
  CHECK(net.parameter_count() == 1 + 2 * (72 + 4 + 4 + 4) + 48 + 3);
}

TEST_CASE("the mode reaches every module below, and only those") {
  Net net;
  for (const auto& m : net.named_modules()) CHECK(m.module->mode() == Mode::train);
  net.set_mode(Mode::eval);
  for (const auto& m : net.named_modules()) CHECK(m.module->mode() == Mode::eval);
  net.blocks[1].set_mode(Mode::train);
  CHECK(static_cast<Block&>(net.blocks[1]).bn.mode() == Mode::train);
  CHECK(static_cast<Block&>(net.blocks[0]).bn.mode() == Mode::eval);
  CHECK(net.mode() == Mode::eval);
}

TEST_CASE("conversion makes new leaves of the other type with the same values, and back") {
  Net net;
  net.linear.weight.value().fill(0.1);
  const Variable before = net.linear.weight;
  net.to(DType::f64);
  for (const auto& p : net.named_parameters()) {
    CHECK(p.variable.dtype() == DType::f64);
    CHECK(p.variable.requires_grad());
  }
  for (const auto& b : net.named_buffers()) CHECK(b.tensor.dtype() == DType::f64);
  CHECK(net.linear.weight.value().data<double>()[5] == static_cast<double>(0.1F));
  CHECK(before.dtype() == DType::f32);
  const Variable same = net.linear.weight;
  net.to(DType::f64);
  CHECK(net.linear.weight.node() == same.node());
  net.to(DType::f32);
  CHECK(net.linear.weight.value().data<float>()[5] == 0.1F);
  CHECK_THROWS_WITH_AS(net.to(DType::i32), "[Module::to] a model is f32 or f64, not i32", Error);
}

TEST_CASE("what two modules share they share after a conversion") {
  Sequential net;
  auto& first = net.add<Linear>({.in = 2, .out = 2});
  auto& second = net.add<Linear>({.in = 2, .out = 2});
  second.weight = first.weight;
  net.to(DType::f64);
  CHECK(first.weight.node() == second.weight.node());
  CHECK(first.weight.dtype() == DType::f64);
  CHECK(first.bias.node() != second.bias.node());
}

TEST_CASE("a bad or repeated name is refused") {
  Registrar registrar;
  registrar.add("a");
  CHECK_THROWS_AS(registrar.add("a"), Error);
  CHECK_THROWS_AS(registrar.add("b.c"), Error);
  CHECK_THROWS_AS(registrar.add(""), Error);
  CHECK(registrar.named_parameters().size() == 1);
  Sequential row;
  CHECK_THROWS_AS(row.append(nullptr), Error);
}

TEST_CASE("weighted layers in network order under their state-dict names") {
  Net net;
  const auto layers = weighted_layers(net);
  REQUIRE(layers.size() == 3);
  CHECK(layers[0].first == "blocks.0.conv");
  CHECK(layers[1].first == "blocks.1.conv");
  CHECK(layers[2].first == "linear");
  CHECK(layers[0].second->kind() == LayerKind::conv2d);
  CHECK(layers[2].second->kind() == LayerKind::linear);
  CHECK(layers[2].second == &net.linear);
}
