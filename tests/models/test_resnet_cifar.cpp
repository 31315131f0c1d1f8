#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <memory>

#include "autograd/gradcheck.hpp"
#include "autograd/ops.hpp"
#include "core/error.hpp"
#include "core/random.hpp"
#include "models/resnet_cifar.hpp"
#include "nn/state_dict.hpp"

using namespace goshawk;

namespace {

std::unique_ptr<ResNetCifar> tiny(Shortcut shortcut, Mode mode) {
  Random random(5);
  auto net = std::make_unique<ResNetCifar>(
      ResNetCifarConfig{.depth = 8, .classes = 3, .shortcut = shortcut, .width = 2, .in = 2}, random);
  net->to(DType::f64);
  // Weights of batch norm away from 1 and 0, and running statistics away from those of a new layer.
  for (const NamedParameter& p : net->named_parameters()) {
    if (p.variable.shape().size() != 1) continue;
    const bool gamma = p.name.ends_with("weight");
    p.variable.value().copy_from(
        random_uniform(p.variable.shape(), DType::f64, random, gamma ? 0.5 : -0.5, gamma ? 1.5 : 0.5));
  }
  for (const NamedBuffer& b : net->named_buffers()) {
    const bool variance = b.name.ends_with("var");
    b.tensor.copy_from(
        random_uniform(b.tensor.shape(), DType::f64, random, variance ? 0.5 : -0.3, variance ? 2 : 0.3));
  }
  net->set_mode(mode);
  return net;
}

}  // namespace

TEST_CASE("parameter counts") {
  const auto count = [](int depth, Shortcut shortcut) {
    Random random(1);
    return ResNetCifar({.depth = depth, .shortcut = shortcut}, random).parameter_count();
  };
  CHECK(count(20, Shortcut::subsample) == 269722);
  CHECK(count(32, Shortcut::subsample) == 464154);
  CHECK(count(44, Shortcut::subsample) == 658586);
  CHECK(count(56, Shortcut::subsample) == 853018);
  // Option B adds two 1×1 convolutions and their batch norms: 16·32 + 2·32 + 32·64 + 2·64.
  CHECK(count(20, Shortcut::projection) == 269722 + 2752);
}

TEST_CASE("names, layers and multiply-accumulates of ResNet-20") {
  Random random(1);
  ResNetCifar net({.depth = 20}, random);
  const StateDict entries = state_dict(net);
  const auto has = [&](const StateDict& all, const std::string& name, const Shape& shape) {
    return std::any_of(all.begin(), all.end(),
                       [&](const auto& e) { return e.first == name && e.second.shape() == shape; });
  };
  CHECK(entries.size() == 19 + 19 * 4 + 2);
  CHECK(entries.front().first == "conv1.weight");
  CHECK(entries.back().first == "linear.bias");
  CHECK(has(entries, "conv1.weight", {16, 3, 3, 3}));
  CHECK(has(entries, "bn1.running_mean", {16}));
  CHECK(has(entries, "layer1.0.conv1.weight", {16, 16, 3, 3}));
  CHECK(has(entries, "layer2.0.conv1.weight", {32, 16, 3, 3}));
  CHECK(has(entries, "layer3.2.bn2.running_var", {64}));
  CHECK(has(entries, "linear.weight", {10, 64}));

  net.set_mode(Mode::eval);
  CHECK(net(Tensor::zeros({2, 32, 32, 3}, DType::f32)).shape() == Shape{2, 10});
  const auto layers = weighted_layers(net);
  CHECK(layers.size() == 20);
  CHECK(layers[0].first == "conv1");
  CHECK(layers[1].first == "layer1.0.conv1");
  CHECK(layers[19].first == "linear");
  std::int64_t macs = 0;
  for (const auto& [name, layer] : layers) macs += layer->last_macs();
  CHECK(macs == 40551040);  // 40.55 million, He et al. 2016

  ResNetCifar b({.depth = 20, .shortcut = Shortcut::projection}, random);
  const StateDict b_entries = state_dict(b);
  CHECK(b_entries.size() == entries.size() + 10);
  CHECK(has(b_entries, "layer2.0.shortcut.0.weight", {32, 16, 1, 1}));
  CHECK(has(b_entries, "layer2.0.shortcut.1.weight", {32}));
  CHECK(has(b_entries, "layer3.0.shortcut.1.running_var", {64}));
}

TEST_CASE("initial weights: He's normal distribution, decided by the stream") {
  Random random(1), again(1), other(2);
  ResNetCifar net({.depth = 20}, random), same({.depth = 20}, again), different({.depth = 20}, other);
  const auto weights = [](ResNetCifar& model) {
    return static_cast<BasicBlock&>(model.layer3[2]).conv2.weight.value().to_vector<float>();
  };
  CHECK(weights(net) == weights(same));
  CHECK(weights(net) != weights(different));
  double squares = 0;
  for (const float w : weights(net)) squares += static_cast<double>(w) * w;
  CHECK(std::abs(squares / 36864 * 576 / 2 - 1) < 4 * std::sqrt(2.0 / 36864));
  const auto bias = net.linear.bias.value().to_vector<float>();
  CHECK(std::all_of(bias.begin(), bias.end(), [](float b) { return std::abs(b) <= 0.125F; }));
  CHECK(std::any_of(bias.begin(), bias.end(), [](float b) { return std::abs(b) > 0.01F; }));
}

TEST_CASE("option A: every second pixel, zero channels on both sides") {
  BasicBlock block({.in = 2, .out = 4, .stride = 2});
  block.to(DType::f64);
  // With γ = 0 after the second convolution only the shortcut is left (and is positive here, so the ReLU
  // passes it).
  block.bn2.weight.value().fill(0);
  Random random(1);
  const Tensor x = random_uniform({2, 5, 4, 2}, DType::f64, random, 0.5, 1);
  const Tensor y = block(x).value();
  REQUIRE(y.shape() == Shape{2, 3, 2, 4});
  for (std::int64_t n = 0; n < 2; ++n) {
    for (std::int64_t h = 0; h < 3; ++h) {
      for (std::int64_t w = 0; w < 2; ++w) {
        for (std::int64_t c = 0; c < 4; ++c) {
          const double expected =
              c == 0 || c == 3 ? 0 : x.data<double>()[((n * 5 + 2 * h) * 4 + 2 * w) * 2 + c - 1];
          CHECK(y.data<double>()[((n * 3 + h) * 2 + w) * 4 + c] == expected);
        }
      }
    }
  }
}

TEST_CASE("whole networks: first and second derivatives against finite differences") {
  Random random(11);
  const Tensor pictures = random_normal({3, 6, 6, 2}, DType::f64, random);
  const Tensor labels = Tensor::from<std::int64_t>({0, 2, 1}, {3});
  for (const Shortcut shortcut : {Shortcut::subsample, Shortcut::projection}) {
    for (const Mode mode : {Mode::eval, Mode::train}) {
      CAPTURE(static_cast<int>(shortcut));
      CAPTURE(static_cast<int>(mode));
      const auto net = tiny(shortcut, mode);
      // The inputs: the picture and, through the layers' transforms, every weight of a convolution or the
      // classifier.
      const auto layers = weighted_layers(*net);
      std::vector<Tensor> inputs{pictures};
      for (const auto& [name, layer] : layers) inputs.push_back(layer->weight.value());
      const CheckedFunction f = [&](const std::vector<Variable>& v) {
        for (std::size_t i = 0; i < layers.size(); ++i) {
          layers[i].second->weight_transform = [w = v[i + 1]](const Variable&) { return w; };
        }
        return softmax_cross_entropy((*net)(v[0]), labels, Reduction::none);
      };
      // The step is small enough that no ReLU changes sides between x − hv and x + hv.
      const GradcheckOptions options{.step = 1e-6};
      const GradcheckResult first = gradcheck(f, inputs, options);
      CHECK_MESSAGE(first.ok, first.message);
      const GradcheckResult second = gradgradcheck(f, inputs, options);
      CHECK_MESSAGE(second.ok, second.message);
      CHECK(std::abs(first.analytic) > 1e-3);
      CHECK(std::abs(second.analytic) > 1e-3);
    }
  }
}

TEST_CASE("impossible configurations and inputs are refused") {
  Random random(1);
  for (const int depth : {2, 19, 21, -4}) CHECK_THROWS_AS(ResNetCifar({.depth = depth}, random), Error);
  CHECK_THROWS_AS(BasicBlock({.in = 4, .out = 2}), Error);
  ResNetCifar net({.depth = 8, .width = 2}, random);
  CHECK_THROWS_WITH_AS(
      net(Tensor::zeros({1, 3, 8, 8}, DType::f32)),
      "[ResNetCifar] the input has shape [1, 3, 8, 8] but pictures are [N, height, width, 3] (NHWC)", Error);
}
