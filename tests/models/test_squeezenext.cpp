#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "autograd/grad.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/ops.hpp"
#include "core/error.hpp"
#include "core/random.hpp"
#include "models/squeezenext.hpp"
#include "nn/state_dict.hpp"

using namespace goshawk;

namespace {

// f64, with biases, batch norm and running statistics away from the zeros and ones of a new layer.
void randomise(Module& net, std::uint64_t seed) {
  net.to(DType::f64);
  Random random(seed);
  for (const NamedParameter& p : net.named_parameters()) {
    const bool gamma = p.name.ends_with("bn.weight");
    const double scale =
        gamma ? 1
              : std::sqrt(static_cast<double>(p.variable.dim(-1)) / static_cast<double>(p.variable.numel()));
    p.variable.value().copy_from(gamma
                                     ? random_uniform(p.variable.shape(), DType::f64, random, 0.5, 1.5)
                                     : random_uniform(p.variable.shape(), DType::f64, random, -scale, scale));
  }
  for (const NamedBuffer& b : net.named_buffers()) {
    const bool variance = b.name.ends_with("var");
    b.tensor.copy_from(
        random_uniform(b.tensor.shape(), DType::f64, random, variance ? 0.5 : -0.3, variance ? 2 : 0.3));
  }
}

std::int64_t macs(Module& net) {
  std::int64_t total = 0;
  for (const auto& [name, layer] : weighted_layers(net)) total += layer->last_macs();
  return total;
}

const std::vector<SqueezeNextUnit::Config> kUnits{{.in = 4, .out = 4},                // adds its input
                                                  {.in = 8, .out = 4},                // narrows
                                                  {.in = 2, .out = 6, .stride = 2}};  // halves the picture

}  // namespace

TEST_CASE("parameter counts") {
  const auto count = [](SqueezeNextVariant variant, double width, std::int64_t classes = 1000) {
    Random random(1);
    return SqueezeNext({.variant = variant, .width = width, .classes = classes}, random).parameter_count();
  };
  const auto v23 = SqueezeNextVariant::sqnxt23, v5 = SqueezeNextVariant::sqnxt23v5;
  CHECK(count(v23, 1) == 724056);
  CHECK(count(v23, 1.5) == 1511824);
  CHECK(count(v23, 2) == 2583752);
  CHECK(count(v23, 2, 10) == 2583752 - 990 * (256 + 1));
  // pytorchcv's 23v5 begins with a 7×7 convolution, and so with 24 more weights per channel of 3 × 64 and 3 ×
  // 128.
  CHECK(count(v5, 1) == 921816 - 24 * 3 * 64);
  CHECK(count(v5, 2) == 3366344 - 24 * 3 * 128);
}

TEST_CASE("multiply-accumulates and shapes of 1.0-SqNxt-23") {
  const NoGrad no_grad;
  const auto after = [](const SqueezeNextConfig& config, std::int64_t size) {
    Random random(1);
    SqueezeNext net(config, random);
    net.set_mode(Mode::eval);
    CHECK(net(Tensor::zeros({1, size, size, 3}, DType::f32)).shape() == Shape{1, config.classes});
    return macs(net);
  };
  CHECK(after({}, 227) == 281916416);
  CHECK(after({.padding = 0}, 227) == 277999808);  // 278 million, Gholami et al. 2018

  // The windows of the pool fit exactly into 31 rows or columns; in 30, the last hangs over.
  Random random(1);
  SqueezeNext net({.width = 0.25, .classes = 5}, random);
  net.set_mode(Mode::eval);
  const auto pixels = [&](const Shape& pictures) {
    net(Tensor::zeros(pictures, DType::f32));
    std::vector<std::int64_t> counts;
    for (const auto& [name, layer] : weighted_layers(net)) {
      const bool marks = name == "features.init_block.conv.conv" || name.ends_with("unit1.conv5.conv");
      if (marks) counts.push_back(layer->last_output_pixels());
    }
    return counts;
  };
  CHECK(pixels({2, 65, 65, 3}) == std::vector<std::int64_t>{31 * 31, 15 * 15, 8 * 8, 4 * 4, 2 * 2});
  CHECK(pixels({2, 64, 65, 3}) == std::vector<std::int64_t>{30 * 31, 15 * 15, 8 * 8, 4 * 4, 2 * 2});
  CHECK(net(Tensor::zeros({2, 64, 65, 3}, DType::f32)).shape() == Shape{2, 5});
}

TEST_CASE("names, order and shapes of the parameters") {
  Random random(1);
  SqueezeNext net({}, random);
  const StateDict entries = state_dict(net);
  const auto has = [&](const std::string& name, const Shape& shape) {
    return std::any_of(entries.begin(), entries.end(),
                       [&](const auto& e) { return e.first == name && e.second.shape() == shape; });
  };
  // 21 units of five convolutions, four of which have one more for the input; the first and the last one.
  // Each has a weight, a bias, and four tensors of batch norm.
  CHECK(entries.size() == (21 * 5 + 4 + 2) * 6 + 2);
  CHECK(entries.front().first == "features.init_block.conv.conv.weight");
  CHECK(entries.back().first == "output.bias");
  CHECK(has("features.init_block.conv.conv.weight", {64, 3, 7, 7}));
  CHECK(has("features.init_block.conv.bn.running_mean", {64}));
  CHECK(has("features.stage1.unit1.conv1.conv.weight", {16, 64, 1, 1}));
  CHECK(has("features.stage1.unit1.conv2.conv.weight", {8, 16, 1, 1}));
  CHECK(has("features.stage1.unit1.conv3.conv.weight", {16, 8, 1, 3}));
  CHECK(has("features.stage1.unit1.conv4.conv.weight", {16, 16, 3, 1}));
  CHECK(has("features.stage1.unit1.conv5.conv.bias", {32}));
  CHECK(has("features.stage1.unit1.identity_conv.conv.weight", {32, 64, 1, 1}));
  CHECK(!has("features.stage1.unit2.identity_conv.conv.weight", {32, 32, 1, 1}));
  CHECK(has("features.stage1.unit6.conv2.conv.weight", {8, 16, 1, 1}));
  CHECK(has("features.stage2.unit1.conv1.conv.weight", {32, 32, 1, 1}));
  CHECK(has("features.stage3.unit8.conv5.bn.running_var", {128}));
  CHECK(has("features.stage4.unit1.identity_conv.bn.weight", {256}));
  CHECK(has("features.final_block.conv.weight", {128, 256, 1, 1}));
  CHECK(has("output.weight", {1000, 128}));

  const auto layers = weighted_layers(net);
  CHECK(layers.size() == 21 * 5 + 4 + 2 + 1);
  CHECK(layers.front().first == "features.init_block.conv.conv");
  CHECK(layers.back().first == "output");

  SqueezeNext v5({.variant = SqueezeNextVariant::sqnxt23v5, .width = 0.125}, random);
  CHECK(v5.features[0].named_parameters().front().variable.shape() == Shape{5, 5, 3, 8});
  std::vector<std::size_t> units;
  for (std::size_t i = 1; i <= 4; ++i) units.push_back(static_cast<Sequential&>(v5.features[i]).size());
  CHECK(units == std::vector<std::size_t>{2, 4, 14, 1});
}

TEST_CASE("initial weights: He's normal distribution, decided by the stream") {
  Random random(1), again(1), other(2);
  SqueezeNext net({}, random), same({}, again), different({}, other);
  const auto weights = [](SqueezeNext& model) {
    auto& stage = static_cast<Sequential&>(model.features[3]);
    return static_cast<SqueezeNextUnit&>(stage[7]).conv4.conv.weight.value().to_vector<float>();
  };
  CHECK(weights(net) == weights(same));
  CHECK(weights(net) != weights(different));
  double squares = 0;
  for (const float w : weights(net)) squares += static_cast<double>(w) * w;
  const double count = 3 * 64 * 64, fan_in = 3 * 64;
  REQUIRE(weights(net).size() == 3 * 64 * 64);
  CHECK(std::abs(squares / count * fan_in / 2 - 1) < 4 * std::sqrt(2 / count));
  for (const NamedParameter& p : net.named_parameters()) {
    if (!p.name.ends_with("conv.bias")) continue;
    const auto bias = p.variable.value().to_vector<float>();
    CHECK(std::all_of(bias.begin(), bias.end(), [](float b) { return b == 0; }));
  }
  const double bound = 1 / std::sqrt(128.0);
  const auto bias = net.output.bias.value().to_vector<float>();
  CHECK(std::all_of(bias.begin(), bias.end(), [&](float b) { return std::abs(b) <= bound; }));
  CHECK(std::any_of(bias.begin(), bias.end(), [&](float b) { return std::abs(b) > bound / 2; }));
}

TEST_CASE("a unit is five convolutions beside its input, a ReLU after each and after the sum") {
  Random random(3);
  for (const SqueezeNextUnit::Config& config : kUnits) {
    CAPTURE(config.in);
    SqueezeNextUnit unit(config);
    randomise(unit, 4);
    unit.set_mode(Mode::eval);
    const Tensor x = relu(random_normal({2, 5, 4, config.in}, DType::f64, random)).value();
    // The reference kernels and the definition of batch norm, spelled out.
    const auto part = [](SqueezeNextConv& layer, const Tensor& input, const kernels::ConvParams& params) {
      const Tensor y = kernels::reference::conv2d(input, layer.conv.weight.value(), params);
      const auto at = [](const auto& tensor, std::int64_t c) { return tensor.template data<double>()[c]; };
      for (std::int64_t i = 0; i < y.numel(); ++i) {
        const std::int64_t c = i % y.dim(-1);
        const double z =
            (y.data<double>()[i] + at(layer.conv.bias.value(), c) - at(layer.bn.running_mean, c)) /
                std::sqrt(at(layer.bn.running_var, c) + layer.bn.config().eps) *
                at(layer.bn.weight.value(), c) +
            at(layer.bn.bias.value(), c);
        y.data<double>()[i] = std::max(z, 0.0);
      }
      return y;
    };
    const kernels::ConvParams strided{.stride_h = config.stride, .stride_w = config.stride};
    const Tensor squeezed = part(unit.conv2, part(unit.conv1, x, strided), {});
    const Tensor convolved = part(unit.conv4, part(unit.conv3, squeezed, {.pad_w = 1}), {.pad_h = 1});
    const Tensor expanded = part(unit.conv5, convolved, {});
    REQUIRE(unit.identity_conv.has_value() == (config.in != config.out));
    const Tensor identity = unit.identity_conv ? part(*unit.identity_conv, x, strided) : x;
    const Tensor y = unit(x).value();
    REQUIRE(y.shape() == Shape{2, config.stride == 2 ? 3 : 5, config.stride == 2 ? 2 : 4, config.out});
    double largest = 0, size = 0;
    for (std::int64_t i = 0; i < y.numel(); ++i) {
      const double expected = std::max(expanded.data<double>()[i] + identity.data<double>()[i], 0.0);
      const double difference = std::abs(y.data<double>()[i] - expected);
      REQUIRE(!std::isnan(difference));
      largest = std::max(largest, difference);
      size = std::max(size, expected);
    }
    CHECK(largest < 1e-12);
    CHECK(size > 0.1);
  }
}

TEST_CASE("a ReLU of each unit's sum changes no derivative of a chain of units") {
  Random random(13);
  const Tensor picture = random_normal({3, 6, 5, 8}, DType::f64, random);
  SqueezeNextUnit first({.in = 8, .out = 4}), second({.in = 4, .out = 4}),
      third({.in = 4, .out = 8, .stride = 2});
  for (SqueezeNextUnit* unit : {&first, &second, &third}) randomise(*unit, 14);
  std::vector<Variable> parameters;
  for (SqueezeNextUnit* unit : {&first, &second, &third}) {
    for (const NamedParameter& p : unit->named_parameters()) parameters.push_back(p.variable);
  }
  const Tensor linear = random_normal({3, 3, 3, 8}, DType::f64, random);
  std::vector<Tensor> directions;
  for (const Variable& p : parameters) directions.push_back(random_normal(p.shape(), DType::f64, random));
  const auto derivatives = [&](const std::function<Variable(const Variable&)>& after) {
    const auto checked = [&](const Variable& v) {
      const auto values = v.value().to_vector<double>();
      CHECK(std::count(values.begin(), values.end(), 0.0) > 0);  // where the ReLU would mask
      return after(v);
    };
    const Variable y = checked(third(checked(second(checked(first(relu(Variable(picture))))))));
    const Variable loss = add(sum(mul(y, y)), sum(mul(y, Variable(linear))));
    const std::vector<Variable> gradient = grad(loss, parameters, {.create_graph = true});
    Variable slope(Tensor::zeros({}, DType::f64));
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      slope = add(slope, sum(mul(gradient[i], Variable(directions[i]))));
    }
    std::vector<double> all;
    for (const std::vector<Variable>& list : {gradient, grad(slope, parameters)}) {
      for (const Variable& v : list) {
        const auto values = v.value().to_vector<double>();
        all.insert(all.end(), values.begin(), values.end());
      }
    }
    return all;
  };
  const std::vector<double> with = derivatives([](const Variable& v) { return relu(v); });
  const std::vector<double> without = derivatives([](const Variable& v) { return v; });
  REQUIRE(with.size() == without.size());
  double largest = 0, size = 0;
  for (std::size_t i = 0; i < with.size(); ++i) {
    largest = std::max(largest, std::abs(with[i] - without[i]));
    size = std::max(size, std::abs(with[i]));
  }
  CHECK(size > 1);
  CHECK(largest <= 1e-13 * size);
}

TEST_CASE("units: first and second derivatives against finite differences") {
  Random random(11);
  for (const SqueezeNextUnit::Config& config : kUnits) {
    for (const Mode mode : {Mode::eval, Mode::train}) {
      CAPTURE(config.in);
      CAPTURE(static_cast<int>(mode));
      SqueezeNextUnit unit(config);
      randomise(unit, 5);
      unit.set_mode(mode);
      // The inputs: the picture and, through the layers' transforms, the weight of every convolution.
      const auto layers = weighted_layers(unit);
      std::vector<Tensor> inputs{random_normal({3, 5, 4, config.in}, DType::f64, random)};
      for (const auto& [name, layer] : layers) inputs.push_back(layer->weight.value());
      const CheckedFunction f = [&](const std::vector<Variable>& v) {
        for (std::size_t i = 0; i < layers.size(); ++i) {
          layers[i].second->weight_transform = [w = v[i + 1]](const Variable&) { return w; };
        }
        const Variable y = unit(v[0]);
        return mul(y, y);
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

TEST_CASE("in eval mode a picture's logits are the same every time and in every batch") {
  Random random(7);
  SqueezeNext net({.width = 0.125, .classes = 3}, random);
  randomise(net, 8);
  net.set_mode(Mode::eval);
  const NoGrad no_grad;
  const Tensor two = random_normal({2, 33, 30, 3}, DType::f64, random);
  const Tensor second = Tensor::empty({1, 33, 30, 3}, DType::f64);
  std::copy_n(two.data<double>() + second.numel(), second.numel(), second.data<double>());
  const auto logits = net(two).value().to_vector<double>();
  CHECK(net(two).value().to_vector<double>() == logits);
  const auto alone = net(second).value().to_vector<double>();
  for (std::size_t c = 0; c < 3; ++c) CHECK(alone[c] == doctest::Approx(logits[3 + c]).epsilon(1e-12));
  CHECK(logits[0] != logits[3]);
  // Train mode is another function: it normalises with the batch.
  net.set_mode(Mode::train);
  CHECK(net(two).value().to_vector<double>() != logits);
}

TEST_CASE("impossible configurations and inputs are refused") {
  Random random(1);
  for (const double width : {0.0, -1.0, 0.3, std::numeric_limits<double>::quiet_NaN()}) {
    CHECK_THROWS_AS(SqueezeNext({.width = width}, random), Error);
  }
  CHECK_THROWS_AS(SqueezeNextUnit({.in = 2, .out = 2}), Error);
  CHECK_THROWS_AS(SqueezeNext({.width = 0.125, .classes = 0}, random), Error);
  SqueezeNext net({.width = 0.125, .classes = 3}, random);
  CHECK_THROWS_WITH_AS(
      net(Tensor::zeros({1, 3, 64, 64}, DType::f32)),
      "[SqueezeNext] the input has shape [1, 3, 64, 64] but pictures are [N, height, width, 3] (NHWC)",
      Error);
  CHECK_THROWS_AS(net(Tensor::zeros({1, 4, 4, 3}, DType::f32)), Error);
}
