#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <numeric>
#include <vector>

#include "autograd/grad.hpp"
#include "core/error.hpp"
#include "core/random.hpp"
#include "nn/layer_recorder.hpp"
#include "nn/layers.hpp"

using namespace goshawk;

namespace {

Tensor normal(const Shape& shape, std::uint64_t seed, DType dtype = DType::f64) {
  Random random(seed);
  return random_normal(shape, dtype, random);
}

double largest_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const auto left = a.to(DType::f64), right = b.to(DType::f64);
  double largest = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    const double difference = std::abs(left.data<double>()[i] - right.data<double>()[i]);
    if (std::isnan(difference)) return difference;  // which passes no check
    largest = std::max(largest, difference);
  }
  return largest;
}

// Mean and sum of squared deviations of each of the last dimension's channels.
struct Moments {
  std::vector<double> mean, deviations;
};
Moments moments(const Tensor& x) {
  const std::int64_t channels = x.dim(-1), rows = x.numel() / channels;
  Moments m;
  for (std::int64_t c = 0; c < channels; ++c) {
    double sum = 0, squares = 0;
    for (std::int64_t r = 0; r < rows; ++r) sum += x.data<double>()[r * channels + c];
    const double mean = sum / static_cast<double>(rows);
    for (std::int64_t r = 0; r < rows; ++r) squares += std::pow(x.data<double>()[r * channels + c] - mean, 2);
    m.mean.push_back(mean);
    m.deviations.push_back(squares);
  }
  return m;
}

}  // namespace

TEST_CASE("convolution and linear layers compute their sums") {
  Conv2d conv({.in = 2, .out = 3, .kernel = 3, .stride = 2, .padding = 1, .bias = true});
  conv.to(DType::f64);
  conv.weight.value().copy_from(normal({3, 3, 2, 3}, 1));
  conv.bias.value().copy_from(normal({3}, 2));
  const Tensor x = normal({2, 5, 4, 2}, 3);
  const Variable y = conv(x);
  CHECK(y.shape() == Shape{2, 3, 2, 3});
  double expected = conv.bias.value().data<double>()[2];
  // Output (n, oy, ox, co) = (1, 1, 1, 2): input rows 1..3, columns 1..3.
  for (int ky = 0; ky < 3; ++ky) {
    for (int kx = 0; kx < 3; ++kx) {
      for (int ci = 0; ci < 2; ++ci) {
        expected += x.data<double>()[((5 + 1 + ky) * 4 + 1 + kx) * 2 + ci] *
                    conv.weight.value().data<double>()[((ky * 3 + kx) * 2 + ci) * 3 + 2];
      }
    }
  }
  CHECK(y.value().data<double>()[((3 + 1) * 2 + 1) * 3 + 2] == doctest::Approx(expected).epsilon(1e-12));

  // A rectangular kernel: heights come first, and every size has two.
  Conv2d wide({.in = 1, .out = 1, .kernel = {1, 3}, .stride = {2, 1}, .padding = {0, 1}});
  wide.weight.value().copy_from(Tensor::from<float>({1, 10, 100}, {1, 3, 1, 1}));
  const Tensor digits = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {1, 3, 2, 1});
  CHECK(wide(digits).shape() == Shape{1, 2, 2, 1});
  CHECK(wide(digits).value().to_vector<float>() == std::vector<float>{210, 21, 650, 65});

  // Two groups: the first two input channels make the first output channel, the others the second.
  Conv2d grouped({.in = 4, .out = 2, .kernel = 1, .groups = 2, .bias = true});
  CHECK(grouped.weight.shape() == Shape{1, 1, 2, 2});
  grouped.weight.value().copy_from(Tensor::from<float>({1, 2, 10, 20}, {1, 1, 2, 2}));
  grouped.bias.value().copy_from(Tensor::from<float>({1000, 2000}, {2}));
  CHECK(grouped(Tensor::from<float>({1, 2, 3, 4}, {1, 1, 1, 4})).value().to_vector<float>() ==
        std::vector<float>{1021, 2086});
  CHECK(grouped.last_macs() == 4);
  Conv2d depthwise({.in = 6, .out = 6, .kernel = 3, .groups = 6});
  CHECK(depthwise(Tensor::zeros({2, 5, 4, 6}, DType::f32)).shape() == Shape{2, 3, 2, 6});
  CHECK(depthwise.last_macs() == 6 * 9 * 6);
  const auto message = [](const Conv2dConfig& config) -> std::string {
    try {
      const Conv2d refused(config);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  CHECK(message({.in = 4, .out = 6, .groups = 4}) ==
        "[Conv2d] 4 groups do not divide the 4 input and 6 output channels; choose a common divisor");
  CHECK(message({.in = 4, .out = 6, .groups = 0}).starts_with("[Conv2d] 0 groups"));

  Linear linear({.in = 4, .out = 2});
  linear.to(DType::f64);
  linear.weight.value().copy_from(Tensor::from<double>({1, 2, 3, 4, 5, 6, 7, 8}, {4, 2}));
  linear.bias.value().copy_from(Tensor::from<double>({0.5, -0.5}, {2}));
  const Tensor row = Tensor::from<double>({1, 0, -1, 2}, {1, 4});
  CHECK(linear(row).value().to_vector<double>() == std::vector<double>{10.5, 11.5});
}

TEST_CASE("a weighted layer records its sizes and applies its transforms") {
  Conv2d conv({.in = 2, .out = 3, .kernel = 3, .stride = 2, .padding = 1});
  conv.to(DType::f64);
  conv.weight.value().copy_from(normal({3, 3, 2, 3}, 1));
  CHECK(conv.last_output_pixels() == 0);
  CHECK(conv.last_macs() == 0);
  const Tensor x = normal({4, 8, 6, 2}, 2);
  const Variable plain = conv(x);
  CHECK(conv.last_output_pixels() == 12);
  CHECK(conv.last_input_elements() == 96);
  CHECK(conv.weight_count() == 54);
  CHECK(conv.last_macs() == 54 * 12);
  CHECK(conv.out_channels() == 3);

  // A transform with a learned parameter of its own: its gradient is that of the composition.
  const Variable factor = Variable::leaf(Tensor::scalar(2, DType::f64));
  conv.weight_transform = [&](const Variable& w) { return mul(w, factor); };
  Tensor observed;
  conv.input_transform = [&](const Variable& input) {
    observed = input.value();
    return scale(input, 3);
  };
  const Variable y = conv(x);
  CHECK(observed.raw() == x.raw());
  CHECK(largest_difference(y.value(), scale(plain, 6).value()) < 1e-12);
  const Variable total = sum(y);
  const std::vector<Variable> inputs{factor, conv.weight};
  const auto gradients = grad(total, inputs);
  CHECK(gradients[0].item() == doctest::Approx(total.item() / 2).epsilon(1e-12));
  conv.weight_transform = nullptr;
  conv.input_transform = nullptr;
  CHECK(largest_difference(conv(x).value(), plain.value()) == 0);

  Linear linear({.in = 6, .out = 5});
  linear(Tensor::zeros({7, 6}, DType::f32));
  CHECK(linear.last_output_pixels() == 1);
  CHECK(linear.last_input_elements() == 6);
  CHECK(linear.last_macs() == 30);
}

TEST_CASE("batch norm in train mode normalises each channel and keeps PyTorch's running statistics") {
  BatchNorm2d bn({.channels = 3, .eps = 1e-5, .momentum = 0.1});
  bn.to(DType::f64);
  const Tensor first = add_scalar(scale(normal({4, 3, 2, 3}, 1), 2.5), 1.5).value();
  const Tensor second = normal({5, 3, 3, 3}, 2);
  const Tensor y = bn(first).value();
  const Moments in = moments(first), out = moments(y);
  for (std::size_t c = 0; c < 3; ++c) {
    CHECK(std::abs(out.mean[c]) < 1e-12);
    const double variance = in.deviations[c] / 24;
    CHECK(out.deviations[c] / 24 == doctest::Approx(variance / (variance + 1e-5)).epsilon(1e-12));
    // From 0 and 1: 0.9 · old + 0.1 · new, the new variance divided by n − 1.
    CHECK(bn.running_mean.data<double>()[c] == doctest::Approx(0.1 * in.mean[c]).epsilon(1e-12));
    CHECK(bn.running_var.data<double>()[c] ==
          doctest::Approx(0.9 + 0.1 * in.deviations[c] / 23).epsilon(1e-12));
  }
  bn(second);
  const Moments next = moments(second);
  for (std::size_t c = 0; c < 3; ++c) {
    CHECK(bn.running_mean.data<double>()[c] ==
          doctest::Approx(0.9 * 0.1 * in.mean[c] + 0.1 * next.mean[c]).epsilon(1e-12));
    CHECK(bn.running_var.data<double>()[c] ==
          doctest::Approx(0.9 * (0.9 + 0.1 * in.deviations[c] / 23) + 0.1 * next.deviations[c] / 44)
              .epsilon(1e-12));
  }
}

TEST_CASE("batch norm in eval mode uses the running statistics and leaves them alone") {
  BatchNorm2d bn({.channels = 2, .eps = 0.25});
  bn.to(DType::f64);
  bn.running_mean.copy_from(Tensor::from<double>({1, -2}, {2}));
  bn.running_var.copy_from(Tensor::from<double>({0.75, 3.75}, {2}));
  bn.weight.value().copy_from(Tensor::from<double>({3, 4}, {2}));
  bn.bias.value().copy_from(Tensor::from<double>({0.5, 7}, {2}));
  bn.set_mode(Mode::eval);
  const Tensor x = Tensor::from<double>({2, 0, -1, -2}, {1, 1, 2, 2});
  // (x − mean) / sqrt(var + eps) · weight + bias with sqrt(1) and sqrt(4).
  const std::vector<double> expected{3.5, 11, -5.5, 7};
  const Tensor y = bn(x).value();
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(y.data<double>()[i] == doctest::Approx(expected[i]).epsilon(1e-14));
  CHECK(bn.running_mean.to_vector<double>() == std::vector<double>{1, -2});
  CHECK(bn.running_var.to_vector<double>() == std::vector<double>{0.75, 3.75});
}

TEST_CASE("batch norm's epilogue is the residual addition and the ReLU, in both modes, with gradients") {
  const Tensor x = normal({3, 2, 2, 4}, 1), r = normal({3, 2, 2, 4}, 2), direction = normal({3, 2, 2, 4}, 3);
  for (const Mode mode : {Mode::train, Mode::eval}) {
    BatchNorm2d bn({.channels = 4});
    bn.to(DType::f64);
    bn.weight.value().copy_from(normal({4}, 4));
    bn.bias.value().copy_from(normal({4}, 5));
    bn.set_mode(mode);
    for (const bool with_residual : {false, true}) {
      for (const bool with_relu : {false, true}) {
        const Variable input = Variable::leaf(x), residual = Variable::leaf(r);
        const Variable fused =
            bn.forward(input, {.relu = with_relu, .residual = with_residual ? residual : Variable()});
        Variable plain = bn.forward(input);
        {
          const NoGrad guard;  // without a graph another path is taken; it must agree
          const Variable again =
              bn.forward(input, {.relu = with_relu, .residual = with_residual ? residual : Variable()});
          CHECK(largest_difference(again.value(), fused.value()) < 1e-12);
        }
        if (with_residual) plain = add(plain, residual);
        if (with_relu) plain = relu(plain);
        CHECK(largest_difference(fused.value(), plain.value()) < 1e-12);
        const std::vector<Variable> wrt{input, bn.weight, bn.bias, residual};
        const GradOptions options{.grad_outputs = {direction}, .allow_unused = true};
        const auto a = grad(fused, wrt, options), b = grad(plain, wrt, options);
        for (std::size_t i = 0; i < wrt.size(); ++i)
          CHECK(largest_difference(a[i].value(), b[i].value()) < 1e-12);
      }
    }
  }
}

TEST_CASE("a convolution runs with the batch norm behind it: the same function, with gradients") {
  const Tensor x = normal({3, 5, 4, 2}, 1), r = normal({3, 5, 4, 6}, 2), direction = normal({3, 5, 4, 6}, 3);
  for (const Mode mode : {Mode::train, Mode::eval}) {
    for (const bool with_bias : {false, true}) {
      Conv2d conv({.in = 2, .out = 6, .kernel = 3, .padding = 1, .groups = 2, .bias = with_bias});
      BatchNorm2d bn({.channels = 6});
      conv.to(DType::f64);
      bn.to(DType::f64);
      std::uint64_t seed = 4;
      std::vector<Variable> wrt{conv.weight, bn.weight, bn.bias};
      if (with_bias) wrt.push_back(conv.bias);
      for (const Variable& p : wrt) p.value().copy_from(normal(p.shape(), seed++));
      bn.running_mean.copy_from(normal({6}, seed++));
      for (double& v : bn.running_var.span<double>()) v = 0.5 + 0.1 * static_cast<double>(seed++);
      // Transforms that can be seen.
      conv.weight_transform = [](const Variable& w) { return mul(w, w); };
      conv.input_transform = [](const Variable& v) { return scale(v, 3); };
      conv.set_mode(mode);
      bn.set_mode(mode);
      for (const bool with_residual : {false, true}) {
        const Variable input = Variable::leaf(x), residual = Variable::leaf(r);
        const Epilogue epilogue{.relu = true, .residual = with_residual ? residual : Variable()};
        const Variable apart = bn.forward(conv.forward(input), epilogue);
        const Variable together = conv.forward(input, bn, epilogue);
        CHECK(largest_difference(together.value(), apart.value()) < 1e-12);
        // In eval mode nothing follows the convolution, unless somebody wants what it gives by itself.
        const auto has = [](const Variable& y, const char* op) {
          const auto ops = graph_ops(y);
          return std::find(ops.begin(), ops.end(), op) != ops.end();
        };
        CHECK(has(together, "batch_norm_train") == (mode == Mode::train));
        CHECK(has(together, "channel_affine") == false);
        {
          LayerRecorder recorder(conv);
          const Variable recorded = conv.forward(input, bn, epilogue);
          CHECK(has(recorded, "channel_affine") == (mode == Mode::eval));
          CHECK(largest_difference(recorded.value(), apart.value()) < 1e-12);
          REQUIRE(recorder.sites().size() == 1);
        }
        {
          const NoGrad guard;
          CHECK(largest_difference(conv.forward(input, bn, epilogue).value(), apart.value()) < 1e-12);
        }
        std::vector<Variable> all = wrt;
        all.push_back(input);
        if (with_residual) all.push_back(residual);
        const GradOptions options{.grad_outputs = {direction}};
        const auto a = grad(apart, all, options), b = grad(together, all, options);
        for (std::size_t i = 0; i < all.size(); ++i)
          CHECK(largest_difference(a[i].value(), b[i].value()) < 1e-11);
      }
      CHECK(conv.last_output_pixels() == 20);
      CHECK(conv.last_input_elements() == 40);
    }
  }
  Conv2d conv({.in = 2, .out = 6, .kernel = 3});
  BatchNorm2d narrow({.channels = 5});
  narrow.set_mode(Mode::eval);
  CHECK_THROWS_WITH_AS(conv.forward(normal({1, 3, 3, 2}, 1, DType::f32), narrow, {}),
                       "[Conv2d] a batch norm of 5 channels cannot follow 6 output channels", Error);
}

TEST_CASE("a row of modules joins a convolution with what is right behind it, and only that") {
  struct Doubling : BatchNorm2d {
    using BatchNorm2d::BatchNorm2d;
    Variable forward(const Variable& v) override { return scale(BatchNorm2d::forward(v), 2); }
  };
  const Tensor x = normal({2, 4, 4, 2}, 1);
  const auto row = [](bool relu, bool doubling, Mode mode) {
    auto net = std::make_unique<Sequential>();
    net->add<Conv2d>({.in = 2, .out = 3, .kernel = 1});
    if (doubling) {
      net->append(std::make_unique<Doubling>(BatchNorm2dConfig{.channels = 3}));
    } else {
      net->add<BatchNorm2d>({.channels = 3});
    }
    if (relu) net->add<ReLU>();
    net->add<Conv2d>({.in = 3, .out = 2, .kernel = 3});
    net->to(DType::f64);
    std::uint64_t seed = 2;
    for (const Variable& p : net->parameters()) p.value().copy_from(normal(p.shape(), seed++));
    net->set_mode(mode);
    return net;
  };
  for (const Mode mode : {Mode::train, Mode::eval}) {
    for (const bool with_relu : {false, true}) {
      for (const bool doubling : {false, true}) {
        const auto net = row(with_relu, doubling, mode), same = row(with_relu, doubling, mode);
        Variable y = (*net)[0].forward(x);
        for (std::size_t i = 1; i < net->size(); ++i) y = (*net)[i].forward(y);
        const Variable joined = same->forward(x);
        CHECK(largest_difference(joined.value(), y.value()) < 1e-12);
        const auto ops = graph_ops(joined);
        const bool affine = std::find(ops.begin(), ops.end(), "channel_affine") != ops.end();
        CHECK(affine == (mode == Mode::eval && doubling));
        const auto buffers = net->named_buffers(), same_buffers = same->named_buffers();
        REQUIRE(buffers.size() == 2);
        for (std::size_t b = 0; b < 2; ++b)
          CHECK(same_buffers[b].tensor.to_vector<double>() == buffers[b].tensor.to_vector<double>());
      }
    }
  }
}

TEST_CASE("layers refuse what they cannot do, and say why") {
  CHECK_THROWS_AS(Conv2d({.in = 0, .out = 3}), Error);
  CHECK_THROWS_AS(Conv2d({.in = 3, .out = 3, .stride = 0}), Error);
  CHECK_THROWS_AS(Conv2d({.in = 3, .out = 3, .padding = -1}), Error);
  CHECK_THROWS_WITH_AS(Conv2d({.in = 3, .out = 3, .kernel = {1, 0}}),
                       "[Conv2d] in 3, out 3, kernel 1x0 and stride 1x1 must be positive and padding 0x0 not "
                       "negative",
                       Error);
  CHECK_THROWS_AS(Linear({.in = 3, .out = 0}), Error);
  CHECK_THROWS_AS(BatchNorm2d({.channels = 0}), Error);
  CHECK_THROWS_AS(BatchNorm2d({.channels = 3, .momentum = 1.5}), Error);
  Linear linear({.in = 4, .out = 2});
  CHECK_THROWS_WITH_AS(
      linear(Tensor::zeros({2, 5}, DType::f32)),
      "[Linear] the input has shape [2, 5] but the layer needs [N, 4]; flatten it or change .in", Error);
  BatchNorm2d bn({.channels = 3});
  CHECK_THROWS_AS(bn(Tensor::zeros({2, 2, 2, 4}, DType::f32)), Error);
  CHECK_THROWS_WITH_AS(
      bn(Tensor::zeros({1, 1, 1, 3}, DType::f32)),
      "[BatchNorm2d] the input has shape [1, 1, 1, 3], one value per channel, which has no variance; "
      "use a larger batch or eval mode",
      Error);
  CHECK(bn.running_var.to_vector<float>() == std::vector<float>{1, 1, 1});
}

TEST_CASE("pooling layers, flatten and rows of modules") {
  Sequential net;
  net.add<AvgPool2d>({.kernel = 2, .stride = 2}, "pool");
  net.add<ReLU>();
  net.add<Flatten>();
  CHECK(net.size() == 3);
  const Tensor x = Tensor::from<float>({1, 2, 3, 4, -5, -6, -7, -8}, {2, 2, 2, 1});
  CHECK(net(x).value().to_vector<float>() == std::vector<float>{2.5F, 0});
  CHECK(net(x).shape() == Shape{2, 1});
  CHECK(net.named_modules()[1].name == "pool");
  CHECK(net.named_modules()[2].name == "1");
  CHECK_THROWS_WITH_AS(net[3], "[Sequential] there is no module 3 among 3", Error);
  CHECK(Flatten()(Tensor::zeros({0, 2, 2, 3}, DType::f32)).shape() == Shape{0, 12});
  // Maps channel by channel, anything else as it lies.
  std::vector<float> count(24);
  std::iota(count.begin(), count.end(), 0.0F);
  const std::vector<float> by_channel{0,  3,  6,  9,  1,  4,  7,  10, 2,  5,  8,  11,
                                      12, 15, 18, 21, 13, 16, 19, 22, 14, 17, 20, 23};
  CHECK(Flatten()(Tensor::from(count, {2, 2, 2, 3})).value().to_vector<float>() == by_channel);
  CHECK(Flatten()(Tensor::from(count, {2, 4, 3})).value().to_vector<float>() == count);
  CHECK(Flatten()(Tensor::from(count, {2, 12})).value().to_vector<float>() == count);
  MaxPool2d largest({.kernel = 2, .stride = 2});
  CHECK(largest(x).value().to_vector<float>() == std::vector<float>{4, -5});
  MaxPool2d over({.kernel = 3, .stride = 2, .ceil = true});
  CHECK(over(x).value().to_vector<float>() == std::vector<float>{4, -5});
  // Padding never wins a maximum, and counts as zeros in a mean.
  MaxPool2d padded({.kernel = 2, .stride = 2, .padding = 1});
  CHECK(padded(x).value().to_vector<float>() == std::vector<float>{1, 2, 3, 4, -5, -6, -7, -8});
  AvgPool2d padded_mean({.kernel = 2, .stride = 2, .padding = 1});
  CHECK(padded_mean(x).value().to_vector<float>() ==
        std::vector<float>{0.25F, 0.5F, 0.75F, 1, -1.25F, -1.5F, -1.75F, -2});
  GlobalAvgPool mean;
  CHECK(mean(x).value().to_vector<float>() == std::vector<float>{2.5F, -6.5F});
}

TEST_CASE("the predicted class is the first of equals, and none beside a NaN") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor logits = Tensor::from<float>({1, 3, 2, 5, 5, 1, 5, 5, 1, 0, nan, 9}, {4, 3});
  CHECK(predicted_classes(logits).to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 0, 0, -1});
  CHECK(predicted_classes(logits.to(DType::f64)).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{1, 0, 0, -1});
  CHECK(predicted_classes(Tensor::empty({0, 3}, DType::f32)).numel() == 0);
  CHECK_THROWS_AS(predicted_classes(Tensor::empty({3}, DType::f32)), Error);
  CHECK(count_correct(logits, Tensor::from<std::int64_t>({1, 0, 1, 2}, {4})) == 2);
  CHECK(count_correct(logits, Tensor::from<std::int64_t>({0, 0, 0, 1}, {4})) == 2);
  CHECK_THROWS_AS(count_correct(logits, Tensor::from<std::int64_t>({0, 0, 0, 3}, {4})), Error);
  CHECK_THROWS_AS(count_correct(logits, Tensor::from<std::int64_t>({0, 0, 0}, {3})), Error);
}
