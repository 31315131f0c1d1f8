#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <numbers>

#include "autograd/grad.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/ops.hpp"
#include "core/random.hpp"
#include "models/registry.hpp"
#include "quant/dnas.hpp"
#include "quant/fake_quantize.hpp"
#include "quant/qat.hpp"

using namespace goshawk;
using doctest::Approx;

namespace {

// conv → tanh → conv → tanh → pool → linear: smooth, for differences.
class SmoothNet : public Module {
 public:
  SmoothNet()
      : conv1({.in = 3, .out = 4, .kernel = 3, .padding = 1}),
        conv2({.in = 4, .out = 6, .kernel = 3}),
        linear({.in = 6, .out = 5}) {
    register_module("conv1", conv1);
    register_module("conv2", conv2);
    register_module("linear", linear);
    Random random(1);
    for (const auto& [name, layer] : weighted_layers(*this)) {
      layer->weight.value().copy_from(random_normal(layer->weight.shape(), DType::f32, random));
      for (float& w : layer->weight.value().span<float>()) w *= 0.3F;
    }
  }
  Variable forward(const Variable& x) override {
    return linear(global_avg_pool(tanh(conv2(tanh(conv1(x))))));
  }
  Conv2d conv1, conv2;
  Linear linear;
};

Tensor pictures(DType dtype = DType::f32) {
  Random random(3);
  return random_normal({5, 6, 6, 3}, dtype, random);
}

// Sizes of SmoothNet's layers.
constexpr double kConv1 = 9 * 3 * 4, kConv2 = 9 * 4 * 6, kLinear = 6 * 5;

std::vector<int> weight_bits(const BitAssignment& bits) {
  std::vector<int> widths;
  for (const LayerBits& layer : bits.layers) widths.push_back(layer.weight);
  return widths;
}

void set_theta(const SuperNet& net, const std::vector<float>& values) {
  net.theta().value().copy_from(Tensor::from(values, net.theta().shape()));
}

// m with candidate choice[g] in row g.
Tensor one_hot(const SuperNet& net, const std::vector<int>& choice) {
  Tensor m = Tensor::zeros_like(net.theta().value());
  for (std::size_t g = 0; g < choice.size(); ++g)
    m.data<float>()[static_cast<std::int64_t>(g) * m.dim(1) + choice[g]] = 1;
  return m;
}

std::vector<float> outputs(Module& model, const Tensor& x) {
  const NoGrad no_grad;
  return model(x).value().to_vector<float>();
}

}  // namespace

TEST_CASE("Gumbel noise has the mean and the variance of the standard Gumbel distribution") {
  Random random(11);
  const std::int64_t n = 200000;
  const Tensor noise = gumbel_noise({n}, DType::f64, random);
  double sum = 0, squares = 0;
  for (double g : noise.span<double>()) {
    sum += g;
    squares += g * g;
  }
  const double mean = sum / n, variance = squares / n - mean * mean;
  const double exact = std::numbers::pi * std::numbers::pi / 6;
  // Four standard errors; the kurtosis of the distribution is 5.4.
  CHECK(std::abs(mean - std::numbers::egamma) < 4 * std::sqrt(exact / n));
  CHECK(std::abs(variance - exact) < 4 * exact * std::sqrt(4.4 / n));
}

TEST_CASE("Gumbel-softmax: one-hot with the probabilities of softmax(θ) as T → 0, uniform as T → ∞") {
  const std::vector<double> theta = {0.3, -1.2, 1.1, 0};
  double total = 0;
  for (double t : theta) total += std::exp(t);
  const std::int64_t n = 40000;
  Tensor rows = Tensor::empty({n, 4}, DType::f64);
  for (std::int64_t i = 0; i < 4 * n; ++i) rows.data<double>()[i] = theta[static_cast<std::size_t>(i % 4)];
  Random random(12);
  const Tensor noise = gumbel_noise({n, 4}, DType::f64, random);
  const Tensor cold = gumbel_softmax(rows, noise, 1e-4).value();
  const Tensor warm = gumbel_softmax(rows, noise, 1).value();
  std::int64_t undecided = 0;
  for (std::int64_t k = 0; k < 4; ++k) {
    const double p = std::exp(theta[static_cast<std::size_t>(k)]) / total;
    double hits = 0, largest = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double m = cold.data<double>()[4 * i + k];
      hits += m;
      undecided += m > 1e-6 && m < 1 - 1e-6 ? 1 : 0;
      // The largest place does not depend on the temperature.
      const double* row = warm.data<double>() + 4 * i;
      largest += std::max_element(row, row + 4) == row + k ? 1 : 0;
    }
    const double deviation = std::sqrt(p * (1 - p) / n);
    CHECK(std::abs(hits / n - p) < 4 * deviation);
    CHECK(std::abs(largest / n - p) < 4 * deviation);
  }
  // Two places within 1e-4 · log(1e6) of each other are rare.
  CHECK(undecided < n / 200);
  const Tensor even = gumbel_softmax(rows, noise, 1e9).value();
  for (double m : even.span<double>()) CHECK(m == Approx(0.25).epsilon(1e-6));
  // By hand, without noise.
  const Tensor half =
      gumbel_softmax(Tensor::from<double>({0, std::log(3.0)}, {1, 2}), Tensor::zeros({1, 2}, DType::f64), 0.5)
          .value();
  CHECK(half.data<double>()[1] == Approx(0.9).epsilon(1e-14));
  CHECK_THROWS_AS(gumbel_softmax(rows, noise, 0), Error);
  CHECK_THROWS_AS(gumbel_softmax(rows, Tensor::zeros({1, 4}, DType::f64), 1), Error);
}

TEST_CASE("the size and its penalty: closed forms") {
  SmoothNet model;
  const SuperNet net(model, {.candidates = {1, 2, 8}, .pinned = {{"linear", 4}}});
  REQUIRE(net.groups().size() == 2);
  const Tensor m = Tensor::from<float>({1, 0, 0, 0.25F, 0.5F, 0.25F}, {2, 3});
  CHECK(net.size_bits(m).item() == Approx(kConv1 + kConv2 * (0.25 + 1 + 2) + 4 * kLinear).epsilon(1e-6));
  CHECK(net.size_bits(net.probabilities()).item() ==
        Approx((kConv1 + kConv2) * 11 / 3 + 4 * kLinear).epsilon(1e-6));
  const Variable size = Tensor::from<double>({std::exp(9)}, {1});
  CHECK(size_penalty(size, 0.1, 0.5).item() == Approx(0.3).epsilon(1e-13));
  CHECK(size_penalty(size, 2, 0).item() == Approx(2).epsilon(1e-13));
  CHECK(size_penalty(size, unit_beta(std::exp(9), 3), 3).item() == Approx(1).epsilon(1e-13));
  // dC/ds = C γ/(s log s).
  const Variable s = Variable::leaf(Tensor::from<double>({500}, {}));
  const Variable c = size_penalty(s, 0.2, 1.7);
  CHECK(grad(c, std::vector{s})[0].item() == Approx(c.item() * 1.7 / (500 * std::log(500))).epsilon(1e-12));
  CHECK_THROWS_AS(size_penalty(Tensor::from<double>({1}, {1}), 1, 1), Error);
  CHECK_THROWS_AS(unit_beta(1, 1), Error);
}

TEST_CASE("the gradient of θ through the whole super-net, with the noise frozen") {
  SmoothNet model;
  model.to(DType::f64);
  const Tensor labels = Tensor::from<std::int64_t>({0, 1, 2, 3, 4}, {5});
  const Tensor x = pictures(DType::f64);
  for (ClipRule clip : {ClipRule::learned, ClipRule::min_max}) {
    SuperNet net(
        model,
        {.candidates = {1, 2, 4, 32},
         .quantizer = {.scheme = WeightScheme::mid_rise, .granularity = Granularity::channel, .clip = clip}});
    REQUIRE(net.theta().shape() == Shape{3, 4});
    Random random(5);
    const Tensor noise = gumbel_noise({3, 4}, DType::f64, random);
    const Tensor theta = random_normal({3, 4}, DType::f64, random);
    const auto loss = [&](const std::vector<Variable>& v) {
      const Variable m = gumbel_softmax(v[0], noise, 0.8);
      net.mix(m);
      return softmax_cross_entropy(model(x), labels) * size_penalty(net.size_bits(m), 0.3, 1.2);
    };
    const GradcheckResult first = gradcheck(loss, {theta});
    CHECK_MESSAGE(first.ok, first.message);
    CHECK(std::abs(first.analytic) > 1e-3);
    const GradcheckResult second = gradgradcheck(loss, {theta});
    CHECK_MESSAGE(second.ok, second.message);
  }
}

TEST_CASE("the mixture is that of the candidates' outputs, and a one-hot m is that quantized layer") {
  SmoothNet model;
  const Tensor x = pictures();
  const WeightSpec quantizer{
      .scheme = WeightScheme::symmetric, .granularity = Granularity::layer, .clip = ClipRule::min_max};
  const std::vector<float> full = outputs(model, x);
  {
    SuperNet net(model, {.candidates = {2, 3, 32}, .quantizer = quantizer, .pinned = {{"conv2", 32}}});
    CHECK(!model.conv2.weight_transform);
    const Tensor m = Tensor::from<float>({0.2F, 0.5F, 0.3F, 0, 0, 1}, {2, 3});
    net.mix(m);
    const NoGrad no_grad;
    const Tensor mixed = model.conv1(x).value();
    Variable expected;
    for (int k = 0; k < 3; ++k) {
      WeightSpec spec = quantizer;
      spec.bits = net.options().candidates[static_cast<std::size_t>(k)];
      const Variable w = quantize_weights(model.conv1.weight.value(), spec).dequantized;
      const Variable share = scale(conv2d(x, w, model.conv1.params()), m.data<float>()[k]);
      expected = expected.defined() ? expected + share : share;
    }
    CHECK(squared_distance(mixed, expected.value()) < 1e-10);
    net.mix(one_hot(net, {2, 2}));
    CHECK(outputs(model, x) == full);
    // Only one set of transforms at a time.
    CHECK_THROWS_AS(SuperNet(model, {}), Error);
  }
  CHECK(outputs(model, x) == full);
  // One-hot at m = 2 bits is what the quantized model with that assignment computes.
  std::vector<float> chosen;
  {
    SuperNet net(model, {.candidates = {1, 2}, .quantizer = quantizer});
    net.mix(one_hot(net, {1, 0, 1}));
    chosen = outputs(model, x);
  }
  BitAssignment bits = uniform_assignment(layer_list(model), 2, 32);
  bits.layers[1].weight = 1;
  QuantizationOptions quantization;
  quantization.weight_scheme = quantizer.scheme;
  quantization.weight_granularity = quantizer.granularity;
  quantization.weight_clip = quantizer.clip;
  QuantizedModel quantized(model, bits, quantization);
  quantized.enable_all();
  CHECK(outputs(model, x) == chosen);
}

TEST_CASE("gradients of the weights and of the learned steps are the mixture of the candidates'") {
  SmoothNet model;
  SuperNet net(model, {.candidates = {2, 4}});
  net.mix(Tensor::from<float>({0.25F, 0.75F, 1, 0, 0.5F, 0.5F}, {3, 2}));
  const auto steps = net.named_parameters();
  REQUIRE(steps.size() == 6);
  CHECK(steps[0].name == "conv1.weight_step.2");
  CHECK(steps[0].variable.shape() == Shape{4});
  const Variable w = model.conv1.weight;
  const Variable mixed = model.conv1.weight_transform(w);
  Random random(4);
  const Variable u = random_normal(w.shape(), DType::f32, random);
  const auto g =
      grad(std::vector{mixed}, std::vector{w, steps[0].variable, steps[1].variable}, {.grad_outputs = {u}});
  WeightSpec spec = net.options().quantizer;
  Variable expected;
  for (int k = 0; k < 2; ++k) {
    spec.bits = k == 0 ? 2 : 4;
    const Variable step = steps[static_cast<std::size_t>(k)].variable;
    const Variable q = learned_step_quantize(w, step, spec);
    const auto own = grad(std::vector{q}, std::vector{w, step}, {.grad_outputs = {u}});
    const double m = k == 0 ? 0.25 : 0.75;
    expected = expected.defined() ? expected + scale(own[0], m) : scale(own[0], m);
    CHECK(squared_distance(g[static_cast<std::size_t>(k + 1)].value(), scale(own[1], m).value()) < 1e-10);
  }
  CHECK(squared_distance(g[0].value(), expected.value()) < 1e-10);
}

TEST_CASE("ResNet-20 by block: nine blocks, the first convolution and the classifier") {
  const auto model = make_model("resnet20", {.seed = 4});
  const SuperNet net(*model);
  REQUIRE(net.groups().size() == 11);
  CHECK(net.groups()[1].name == "layer1.0");
  CHECK(net.groups()[1].layers == std::vector<std::string>{"layer1.0.conv1", "layer1.0.conv2"});
  CHECK(net.groups()[1].weights == 2 * 9 * 16 * 16);
  std::int64_t weights = 0;
  for (const SuperNetGroup& group : net.groups()) weights += group.weights;
  CHECK(weights == 268336);
  CHECK(net.size_bits(net.probabilities()).item() == Approx(268336 * 18.0 / 5).epsilon(1e-6));
}

TEST_CASE("assignments: the most probable, the most probable that fits, and samples") {
  SmoothNet model;
  const SuperNet net(model, {.candidates = {1, 2, 4, 8}, .by_block = false, .pinned = {{"linear", 8}}});
  set_theta(net, {0, 1, 0.5F, 2, 1.5F, 0, 0.2F, 1.7F});
  CHECK(weight_bits(net.most_probable(4)) == std::vector<int>{8, 8, 8});
  CHECK(net.most_probable(4).layers[0].activation == 4);
  CHECK(net.most_probable().layers[2].pinned);
  CHECK(net.most_probable().method == "dnas");
  // Against all sixteen.
  const Tensor log_p = log_softmax(net.theta()).value();
  const double smallest = 8.0 * kLinear / 8 + (kConv1 + kConv2) / 8;
  for (const auto& [at_least, budget] : std::vector<std::pair<double, double>>{{0, smallest},
                                                                               {0, 100},
                                                                               {0, 130},
                                                                               {0, 180},
                                                                               {0, 250},
                                                                               {0, 1000},
                                                                               {85, 130},
                                                                               {140, 200},
                                                                               {300, 350}}) {
    double best = 1e9;
    std::vector<int> widths;
    for (int a = 0; a < 4; ++a) {
      for (int b = 0; b < 4; ++b) {
        const int first = net.options().candidates[static_cast<std::size_t>(a)];
        const int second = net.options().candidates[static_cast<std::size_t>(b)];
        const double size = (first * kConv1 + second * kConv2 + 8 * kLinear) / 8;
        if (size > budget || size < at_least) continue;
        const double cost = -log_p.data<float>()[a] - log_p.data<float>()[4 + b];
        if (cost < best) {
          best = cost;
          widths = {first, second, 8};
        }
      }
    }
    REQUIRE(best < 1e9);
    const BitAssignment bits = net.most_probable_within(budget, kFullPrecision, at_least);
    CHECK(weight_bits(bits) == widths);
    CHECK(bits.omega == Approx(best).epsilon(1e-6));
    CHECK(bits.budget_bytes == budget);
  }
  CHECK_THROWS_AS(net.most_probable_within(60), Error);
  CHECK_THROWS_WITH_AS(net.most_probable_within(1000, kFullPrecision, 999),
                       doctest::Contains("the largest network takes"), Error);
  CHECK_THROWS_WITH_AS(net.most_probable_within(100.5, kFullPrecision, 100.4),
                       doctest::Contains("for 100.4 to 100.5"), Error);
  Random random(8);
  const int n = 20000;
  std::vector<double> counts(8);
  for (int i = 0; i < n; ++i) {
    const std::vector<int> widths = weight_bits(net.sample(random));
    for (std::size_t g = 0; g < 2; ++g) {
      const auto& c = net.options().candidates;
      counts[4 * g + static_cast<std::size_t>(std::find(c.begin(), c.end(), widths[g]) - c.begin())] += 1;
    }
  }
  for (std::size_t i = 0; i < 8; ++i) {
    const double p = std::exp(log_p.data<float>()[i]);
    CHECK(std::abs(counts[i] / n - p) < 4 * std::sqrt(p * (1 - p) / n));
  }
}

TEST_CASE("state, and what is refused") {
  SmoothNet model;
  SuperNetOptions options{.candidates = {2, 4}};
  std::vector<std::pair<std::string, Tensor>> saved;
  {
    const SuperNet net(model, options);
    set_theta(net, {1, 2, 3, 4, 5, 6});
    net.named_parameters()[3].variable.value().fill(0.125);
    for (const auto& [name, tensor] : net.state()) saved.emplace_back(name, tensor.clone());
  }
  {
    SuperNet net(model, options);
    const float* elements = net.theta().value().data<float>();
    net.load_state(saved, "file");
    CHECK(net.theta().value().to_vector<float>() == std::vector<float>{1, 2, 3, 4, 5, 6});
    CHECK(net.theta().value().data<float>() == elements);
    CHECK(net.named_parameters()[3].variable.value().data<float>()[0] == 0.125F);
    saved.pop_back();
    CHECK_THROWS_AS(net.load_state(saved, "file"), Error);
    CHECK_THROWS_AS(net.mix(Tensor::zeros({2, 2}, DType::f32)), Error);
  }
  CHECK_THROWS_AS(SuperNet(model, {.candidates = {}}), Error);
  CHECK_THROWS_AS(SuperNet(model, {.candidates = {4, 2}}), Error);
  CHECK_THROWS_AS(SuperNet(model, {.candidates = {0, 2}}), Error);
  CHECK_THROWS_AS(SuperNet(model, {.pinned = {{"conv7", 8}}}), Error);
  CHECK_THROWS_AS(SuperNet(model, {.pinned = {{"conv1", 9}}}), Error);
  CHECK_THROWS_AS(SuperNet(model, {.pinned = {{"conv1", 8}, {"conv2", 8}, {"linear", 8}}}), Error);
  CHECK_THROWS_AS(
      SuperNet(model, {.quantizer = {.scheme = WeightScheme::asymmetric, .clip = ClipRule::learned}}), Error);
  // Nothing is left behind by a constructor that threw.
  CHECK(!model.conv1.weight_transform);
}
