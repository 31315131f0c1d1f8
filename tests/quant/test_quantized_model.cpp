#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>

#include "autograd/grad.hpp"
#include "autograd/ops.hpp"
#include "core/random.hpp"
#include "models/registry.hpp"
#include "nn/optimizer.hpp"
#include "quant/fake_quantize.hpp"
#include "quant/lq_nets.hpp"
#include "quant/qat.hpp"
#include "quant/quantized_model.hpp"

using namespace goshawk;

namespace {

// conv1 → relu → conv2 → relu → pool → linear.
class SmallNet : public Module {
 public:
  SmallNet()
      : conv1({.in = 3, .out = 4, .kernel = 3, .padding = 1}),
        conv2({.in = 4, .out = 6, .kernel = 3}),
        linear({.in = 6, .out = 5}) {
    register_module("conv1", conv1);
    register_module("conv2", conv2);
    register_module("linear", linear);
    Random random(1);
    for (const auto& [name, layer] : weighted_layers(*this)) {
      const Tensor noise = random_normal(layer->weight.shape(), DType::f32, random);
      for (std::int64_t i = 0; i < noise.numel(); ++i)
        layer->weight.value().data<float>()[i] = 0.3F * noise.data<float>()[i];
    }
  }
  Variable forward(const Variable& x) override {
    return linear(global_avg_pool(relu(conv2(relu(conv1(x))))));
  }
  Conv2d conv1, conv2;
  Linear linear;
};

Tensor pictures(std::uint64_t seed = 3, std::int64_t count = 8) {
  Random random(seed);
  return random_normal({count, 6, 6, 3}, DType::f32, random);
}

Tensor some_labels() {
  return Tensor::from<std::int64_t>({0, 1, 2, 3, 4, 0, 1, 2}, {8});
}

BitAssignment assign(Module& model, int weight, int activation) {
  return uniform_assignment(layer_list(model), weight, activation);
}

std::vector<float> outputs(Module& model, const Tensor& x) {
  const NoGrad no_grad;
  return model(x).value().to_vector<float>();
}

std::vector<std::string> names(const std::vector<NamedParameter>& parameters) {
  std::vector<std::string> out;
  for (const NamedParameter& p : parameters) out.push_back(p.name);
  return out;
}

// A few steps of SGD on everything that is learned; returns the last loss.
double train(SmallNet& net, QuantizedModel& quantized, int steps, double lr = 0.05) {
  std::vector<NamedParameter> parameters = net.named_parameters();
  for (const NamedParameter& p : quantized.named_parameters()) parameters.push_back(p);
  Sgd sgd(parameters, {.lr = lr});
  const Tensor x = pictures();
  double loss_value = 0;
  for (int i = 0; i < steps; ++i) {
    const Variable loss = softmax_cross_entropy(net(x), some_labels());
    loss_value = loss.item();
    sgd.step(grad(loss, sgd.parameters()));
  }
  return loss_value;
}

}  // namespace

TEST_CASE("32 bits everywhere leaves the network bit-identical") {
  const auto model = make_model("resnet20", {.seed = 4});
  model->set_mode(Mode::eval);
  Random random(5);
  const Tensor x = random_normal({2, 32, 32, 3}, DType::f32, random);
  const std::vector<float> before = outputs(*model, x);
  {
    QuantizedModel quantized(*model, assign(*model, 32, 32));
    quantized.calibrate(std::vector{x});
    quantized.enable_all();
    CHECK(quantized.all_enabled());
    CHECK(quantized.named_parameters().empty());
    CHECK(outputs(*model, x) == before);
    for (const auto& [name, layer] : weighted_layers(*model)) {
      CHECK(!layer->weight_transform);
      CHECK(!layer->input_transform);
    }
    CHECK(measure_size(quantized).weight_compression() == 1);
  }
  CHECK(outputs(*model, x) == before);
}

TEST_CASE("ResNet-20 at Direct's 2 and 4 bits: all 20 layers count at 2 bits") {
  const auto model = make_model("resnet20", {.seed = 4});
  Random random(5);
  const Tensor x = random_normal({2, 32, 32, 3}, DType::f32, random);
  QuantizedModel quantized(*model, assign(*model, 2, 4));
  CHECK_THROWS_AS(count_bits(quantized), Error);
  quantized.calibrate(std::vector{x});
  CHECK(model->mode() == Mode::train);
  quantized.enable_all();
  const auto reports = count_bits(quantized);
  CHECK(reports.size() == 20);
  for (const WeightTensorReport& r : reports) {
    CHECK(r.bits == 2);
    CHECK(r.levels <= 4);
    CHECK(r.levels >= 2);
  }
  const SizeReport size = measure_size(quantized);
  CHECK(size.weight_count == 268336);
  CHECK(size.weight_compression() == 16);
  CHECK(size.activation_compression() == 8);
  CHECK(size.other_parameters == 1376 + 1376 + 10);
  // A step per output channel (conv1 and layer1 7·16, layer2 6·32, layer3 6·64, linear 10), 19 clips, and the
  // picture's scale and offset.
  CHECK(size.scales == 7 * 16 + 6 * 32 + 6 * 64 + 10 + 19 + 2);

  model->set_mode(Mode::eval);
  Variable y = (*model)(x);
  const auto ops = graph_ops(y);
  CHECK(std::count(ops.begin(), ops.end(), "pact") == 1);
  CHECK(std::count(ops.begin(), ops.end(), "learned_step_quantize") == 1);
}

TEST_CASE("stage by stage: only enabled layers change, and the net computes what its parts say") {
  SmallNet net;
  const Tensor x = pictures();
  QuantizationOptions options;
  options.weight_clip = ClipRule::mse;
  options.weight_scheme = WeightScheme::symmetric;
  options.activations_from_start = false;
  options.input_scheme = InputScheme::none;
  QuantizedModel quantized(net, assign(net, 3, 4), options);
  const std::vector<float> full = outputs(net, x);
  CHECK_THROWS_AS(quantized.enable(std::vector<std::string>{"conv2"}), Error);  // no calibration yet
  CHECK_THROWS_AS(quantized.enable(std::vector<std::string>{"conv7"}), Error);
  CHECK_THROWS_AS(quantized.calibrate({}), Error);
  quantized.calibrate(std::vector{x});
  CHECK(outputs(net, x) == full);
  CHECK(!quantized.enabled("conv2"));

  quantized.enable(std::vector<std::string>{"conv2"});
  CHECK(quantized.enabled("conv2"));
  CHECK(!quantized.enabled("conv1"));
  CHECK(!quantized.all_enabled());
  CHECK(names(quantized.named_parameters()) == std::vector<std::string>{"conv2.act_clip"});
  const NoGrad no_grad;
  const WeightSpec spec{3, WeightScheme::symmetric, Granularity::channel, ClipRule::mse};
  const Variable clip = quantized.named_parameters()[0].variable;
  const Variable hidden = pact(relu(conv2d(x, net.conv1.weight, {.pad_h = 1, .pad_w = 1})), clip, 4);
  const Tensor w = quantize_weights(net.conv2.weight.value(), spec).dequantized;
  const Variable y =
      matmul(global_avg_pool(relu(conv2d(hidden, w, {}))), net.linear.weight) + net.linear.bias;
  CHECK(outputs(net, x) == y.value().to_vector<float>());
  CHECK(quantized.quantized_weight("conv2").dequantized.to_vector<float>() == w.to_vector<float>());
  CHECK(quantized.quantized_weight("conv1").bits == 32);
}

TEST_CASE("learned parameters: named, and trained in place") {
  SmallNet net;
  QuantizedModel quantized(net, assign(net, 2, 3));
  quantized.calibrate(std::vector{pictures()});
  CHECK(names(quantized.named_parameters()) == std::vector<std::string>{"conv2.act_clip", "linear.act_clip"});
  quantized.enable_all();
  CHECK(names(quantized.named_parameters()) ==
        std::vector<std::string>{"conv1.weight_step", "conv2.act_clip", "conv2.weight_step",
                                 "linear.act_clip", "linear.weight_step"});
  CHECK(quantized.named_parameters()[0].variable.shape() == Shape{4});
  // Enabling again keeps what was learned.
  const float* elements = quantized.named_parameters()[0].variable.value().data<float>();
  const double before = train(net, quantized, 1);
  quantized.enable_all();
  CHECK(quantized.named_parameters()[0].variable.value().data<float>() == elements);
  std::vector<Tensor> at_start;
  for (const NamedParameter& p : quantized.named_parameters()) at_start.push_back(p.variable.value().clone());
  CHECK(train(net, quantized, 150) < before);
  for (std::size_t i = 0; i < at_start.size(); ++i) {
    CHECK(squared_distance(quantized.named_parameters()[i].variable.value(), at_start[i]) > 0);
  }
  for (const WeightTensorReport& r : count_bits(quantized)) CHECK(r.levels <= 4);
}

TEST_CASE("every scheme trains: a few steps lower the loss, in a mixture of bits") {
  struct Case {
    WeightScheme weights;
    Granularity granularity;
    ClipRule clip;
    ActivationScheme activations;
  };
  const Case cases[] = {
      {WeightScheme::dorefa, Granularity::layer, ClipRule::mse, ActivationScheme::dorefa},
      {WeightScheme::dorefa, Granularity::layer, ClipRule::mse, ActivationScheme::pact},
      {WeightScheme::lq_nets, Granularity::channel, ClipRule::mse, ActivationScheme::pact},
      {WeightScheme::lq_nets, Granularity::layer, ClipRule::mse, ActivationScheme::fixed},
      {WeightScheme::lq_nets, Granularity::channel, ClipRule::mse, ActivationScheme::lq_nets},
      {WeightScheme::twos_complement, Granularity::layer, ClipRule::lsq, ActivationScheme::lsq},
      {WeightScheme::twos_complement, Granularity::channel, ClipRule::learned, ActivationScheme::lsq},
      {WeightScheme::symmetric, Granularity::channel, ClipRule::percentile, ActivationScheme::asymmetric},
      {WeightScheme::asymmetric, Granularity::layer, ClipRule::min_max, ActivationScheme::asymmetric},
      {WeightScheme::symmetric, Granularity::layer, ClipRule::min_max, ActivationScheme::pact},
      {WeightScheme::mid_rise, Granularity::channel, ClipRule::mse, ActivationScheme::fixed},
  };
  for (const Case& c : cases) {
    CAPTURE(weight_scheme_name(c.weights));
    CAPTURE(clip_rule_name(c.clip));
    CAPTURE(activation_scheme_name(c.activations));
    CHECK(parse_activation_scheme(activation_scheme_name(c.activations)) == c.activations);
    SmallNet net;
    BitAssignment bits = assign(net, 3, 4);
    bits.layers[1].weight = 2;
    bits.layers[2].activation = 3;
    QuantizationOptions options;
    options.weight_scheme = c.weights;
    options.weight_granularity = c.granularity;
    options.weight_clip = c.clip;
    options.activation_scheme = c.activations;
    QuantizedModel quantized(net, bits, options);
    quantized.calibrate(std::vector{pictures()});
    quantized.enable_all();
    const double before = train(net, quantized, 1);
    CHECK(train(net, quantized, 150) < 0.9 * before);
    for (const WeightTensorReport& r : count_bits(quantized)) {
      CHECK(r.levels <= (1 << r.bits));
      CHECK(r.levels >= 2);
    }
    // What was learned and calibrated comes back to the bit.
    net.set_mode(Mode::eval);
    const std::vector<float> trained = outputs(net, pictures(7));
    SmallNet second;
    const auto source = net.named_parameters(), target = second.named_parameters();
    for (std::size_t i = 0; i < source.size(); ++i)
      target[i].variable.value().copy_from(source[i].variable.value());
    QuantizedModel restored(second, bits, options);
    restored.load_state(quantized.state(), "memory");
    second.set_mode(Mode::eval);
    CHECK(outputs(second, pictures(7)) == trained);
    CHECK(names(restored.named_parameters()) == names(quantized.named_parameters()));
  }
  CHECK_THROWS_AS(parse_activation_scheme("relu"), UsageError);
}

TEST_CASE("sizes count an LQ-Nets basis: b numbers a channel") {
  SmallNet net;
  QuantizationOptions options;
  options.weight_scheme = WeightScheme::lq_nets;
  options.weight_clip = ClipRule::mse;
  options.activation_scheme = ActivationScheme::lsq;
  QuantizedModel quantized(net, assign(net, 3, 4), options);
  net(pictures());  // sizes need the layers' inputs
  quantized.calibrate(std::vector{pictures()});
  quantized.enable_all();
  // Three numbers for 4 + 6 + 5 channels, two input steps, and the picture's scale and offset.
  CHECK(measure_size(quantized).scales == 3 * (4 + 6 + 5) + 2 + 2);
}

TEST_CASE("LQ-Nets' activations: the basis follows the batches in train mode only, and resumes") {
  QuantizationOptions options;
  options.weight_scheme = WeightScheme::lq_nets;
  options.weight_clip = ClipRule::mse;
  options.activation_scheme = ActivationScheme::lq_nets;
  options.input_scheme = InputScheme::none;
  SmallNet net;
  BitAssignment bits = assign(net, 2, 2);
  bits.layers[2].activation = 3;
  QuantizedModel quantized(net, bits, options);
  quantized.calibrate(std::vector{pictures()});
  quantized.enable_all();
  const auto bases = [](const QuantizedModel& q) {
    std::vector<Tensor> all;
    for (const auto& [name, tensor] : q.state()) {
      if (name.ends_with(".act_basis")) all.push_back(tensor.clone());
    }
    return all;
  };
  const auto same = [&](const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (a[i].to_vector<float>() != b[i].to_vector<float>()) return false;
    }
    return a.size() == b.size();
  };
  const std::vector<Tensor> start = bases(quantized);
  REQUIRE(start.size() == 2);
  CHECK(start[0].shape() == Shape{1, 2});
  CHECK(start[1].shape() == Shape{1, 3});
  // No parameters: nothing for an optimiser to move.
  CHECK(quantized.named_parameters().empty());
  // A basis of two, one of three numbers, and three times two bits a channel for the weights.
  CHECK(measure_size(quantized).scales == 2 + 3 + 2 * (4 + 6 + 5));

  net.set_mode(Mode::eval);
  outputs(net, pictures(5));
  CHECK(same(bases(quantized), start));
  net.set_mode(Mode::train);
  {
    const MeasuringGuard measuring;
    outputs(net, pictures(5));
    CHECK(same(bases(quantized), start));
  }
  const Tensor seen = relu(net.conv1(pictures(5))).value();
  Tensor refit;
  basis_quantize(seen, start[0], BasisCodes::binary, &refit);
  const Tensor expected = start[0].clone();
  move_basis(expected, refit);
  outputs(net, pictures(5));
  CHECK(bases(quantized)[0].to_vector<float>() == expected.to_vector<float>());

  // A checkpoint continues with the same bits.
  train(net, quantized, 4);
  SmallNet other;
  load_state_dict(other, state_dict(net), "snapshot");
  std::vector<std::pair<std::string, Tensor>> saved;
  for (const auto& [name, tensor] : quantized.state()) saved.emplace_back(name, tensor.clone());
  train(net, quantized, 4);
  QuantizedModel resumed(other, bits, options);
  resumed.load_state(saved, "snapshot");
  train(other, resumed, 4);
  CHECK(same(bases(resumed), bases(quantized)));
  other.set_mode(Mode::eval);
  net.set_mode(Mode::eval);
  CHECK(outputs(other, pictures(8)) == outputs(net, pictures(8)));

  for (auto& [name, tensor] : saved) {
    if (name.ends_with(".act_basis")) tensor = tensor.reshape({-1});
  }
  CHECK_THROWS_AS(resumed.load_state(saved, "file"), Error);
}

TEST_CASE("state: a resumed model continues with the same bits") {
  const std::vector<std::string> first = {"conv2"};
  SmallNet net;
  QuantizedModel quantized(net, assign(net, 2, 4));
  quantized.calibrate(std::vector{pictures()});
  quantized.enable(first);
  train(net, quantized, 5);

  // A snapshot of weights and state, as a checkpoint keeps them.
  SmallNet other;
  load_state_dict(other, state_dict(net), "snapshot");
  std::vector<std::pair<std::string, Tensor>> saved;
  for (const auto& [name, tensor] : quantized.state()) saved.emplace_back(name, tensor.clone());
  train(net, quantized, 5);
  quantized.enable_all();
  train(net, quantized, 5);

  QuantizedModel resumed(other, assign(other, 2, 4));
  resumed.load_state(saved, "snapshot");
  CHECK(resumed.enabled("conv2"));
  CHECK(!resumed.enabled("linear"));
  CHECK(names(resumed.named_parameters()) ==
        std::vector<std::string>{"conv2.act_clip", "conv2.weight_step", "linear.act_clip"});
  train(other, resumed, 5);
  resumed.enable_all();
  train(other, resumed, 5);
  CHECK(outputs(other, pictures(8)) == outputs(net, pictures(8)));

  SUBCASE("loading keeps the leaves of a running model, so that its optimiser stays valid") {
    const float* elements = quantized.named_parameters()[0].variable.value().data<float>();
    quantized.load_state(resumed.state(), "snapshot");
    CHECK(quantized.named_parameters()[0].variable.value().data<float>() == elements);
  }
  SUBCASE("bad states are errors and change nothing") {
    const std::vector<float> before = outputs(other, pictures(8));
    auto missing = saved;
    missing.pop_back();
    CHECK_THROWS_AS(resumed.load_state(missing, "file"), Error);
    auto extra = saved;
    extra.emplace_back("conv9.act_clip", Tensor::full({1}, DType::f32, 1));
    CHECK_THROWS_AS(resumed.load_state(extra, "file"), Error);
    auto misshapen = saved;
    for (auto& [name, tensor] : misshapen) {
      if (name == "conv2.weight_step") tensor = Tensor::full({3}, DType::f32, 1);
    }
    CHECK_THROWS_AS(resumed.load_state(misshapen, "file"), Error);
    auto twice = saved;
    twice.push_back(twice.front());
    CHECK_THROWS_AS(resumed.load_state(twice, "file"), Error);
    auto flags = saved;
    flags[0].second = Tensor::from<std::int64_t>({1, 7, 0, 0}, {4});
    CHECK_THROWS_AS(resumed.load_state(flags, "file"), Error);
    CHECK(outputs(other, pictures(8)) == before);
    SmallNet third;
    QuantizedModel unquantized(third, assign(third, 32, 32));
    CHECK_THROWS_AS(unquantized.load_state(saved, "file"), Error);
  }
}

TEST_CASE("the picture: 8 bits on a fixed grid, asymmetric, symmetric or not at all") {
  for (InputScheme scheme : {InputScheme::none, InputScheme::symmetric, InputScheme::asymmetric}) {
    SmallNet net;
    BitAssignment bits = assign(net, 32, 32);
    bits.layers[0].activation = 4;  // stands for "quantized"; the picture has its own width
    const Tensor x = pictures();
    const std::vector<float> full = outputs(net, x);
    QuantizationOptions options;
    options.input_scheme = scheme;
    QuantizedModel quantized(net, bits, options);
    quantized.calibrate(std::vector{x});
    CHECK(quantized.named_parameters().empty());
    const std::vector<float> rounded = outputs(net, x);
    if (scheme == InputScheme::none) {
      CHECK(rounded == full);
      continue;
    }
    CHECK(rounded != full);
    double worst = 0, size = 0;
    for (std::size_t i = 0; i < full.size(); ++i) {
      worst = std::max<double>(worst, std::abs(rounded[i] - full[i]));
      size = std::max<double>(size, std::abs(full[i]));
    }
    CHECK(worst < 0.02 * size);
    const Variable input = net.conv1.input_transform(x);
    CHECK(distinct_levels(input.value(), Granularity::layer) <= 256);
    CHECK(distinct_levels(input.value(), Granularity::layer) > 100);
  }
}

TEST_CASE("signed activations get a signed quantizer") {
  // No ReLU: the second layer sees negative values. LQ-Nets gets codes ±1 for them.
  class Signed : public Module {
   public:
    Signed() : conv1({.in = 3, .out = 3}), conv2({.in = 3, .out = 2}) {
      register_module("conv1", conv1);
      register_module("conv2", conv2);
      conv1.weight.value().fill(0.5);
      conv2.weight.value().fill(0.25);
    }
    Variable forward(const Variable& x) override { return conv2(conv1(x)); }
    Conv2d conv1, conv2;
  } model;
  const Tensor x = pictures();
  QuantizedModel quantized(model, assign(model, 32, 4));
  quantized.calibrate(std::vector{x});
  const NoGrad no_grad;
  const Variable hidden = model.conv1(x);
  const Tensor rounded = model.conv2.input_transform(hidden).value();
  CHECK(distinct_levels(rounded, Granularity::layer) <= 15);
  CHECK(*std::min_element(rounded.data<float>(), rounded.data<float>() + rounded.numel()) < 0);
  QuantizationOptions options;
  options.input_scheme = InputScheme::none;
  options.activation_scheme = ActivationScheme::lq_nets;
  Signed second;
  QuantizedModel learned(second, assign(second, 32, 3), options);
  learned.calibrate(std::vector{x});
  const Tensor levels = second.conv2.input_transform(hidden).value();
  CHECK(distinct_levels(levels, Granularity::layer) <= 8);
  CHECK(*std::min_element(levels.data<float>(), levels.data<float>() + levels.numel()) < 0);
  Signed binary;
  QuantizedModel one_bit(binary, assign(binary, 32, 1), options);
  CHECK_THROWS_AS(one_bit.calibrate(std::vector{x}), Error);
  // A failed calibration leaves no observer behind.
  CHECK(!binary.conv2.input_transform);
}

TEST_CASE("calibration leaves every module in the mode that it had") {
  SmallNet net;
  QuantizedModel quantized(net, assign(net, 2, 4), {});
  net.set_mode(Mode::train);
  net.conv2.set_mode(Mode::eval);  // frozen by hand
  quantized.calibrate(std::vector{pictures()});
  CHECK(net.mode() == Mode::train);
  CHECK(net.conv1.mode() == Mode::train);
  CHECK(net.conv2.mode() == Mode::eval);
}

TEST_CASE("an assignment's layers may come in any order") {
  SmallNet net;
  BitAssignment bits = assign(net, 2, 4), reversed = bits;
  bits.layers[0].activation = reversed.layers[0].activation = 8;
  bits.layers[2].activation = reversed.layers[2].activation = 2;
  std::reverse(reversed.layers.begin(), reversed.layers.end());
  double in_order = 0;
  {
    const QuantizedModel quantized(net, bits, {});
    in_order = size_report(quantized.bits()).activation_compression();
  }
  const QuantizedModel quantized(net, reversed, {});
  CHECK(quantized.bits().layers[0].name == "conv1");
  CHECK(size_report(quantized.bits()).activation_compression() == in_order);
}

TEST_CASE("wrong assignments are errors, and a model has one quantizer at a time") {
  SmallNet net;
  BitAssignment bits = assign(net, 2, 4);
  BitAssignment fewer = bits;
  fewer.layers.pop_back();
  CHECK_THROWS_AS(QuantizedModel(net, fewer), Error);
  BitAssignment renamed = bits;
  renamed.layers[1].name = "conv9";
  CHECK_THROWS_AS(QuantizedModel(net, renamed), Error);
  BitAssignment resized = bits;
  resized.layers[1].parameters += 1;
  CHECK_THROWS_AS(QuantizedModel(net, resized), Error);
  BitAssignment wide = bits;
  wide.layers[1].weight = 16;
  CHECK_THROWS_AS(QuantizedModel(net, wide), Error);
  QuantizationOptions options;
  options.weight_scheme = WeightScheme::asymmetric;
  CHECK_THROWS_AS(QuantizedModel(net, bits, options), Error);
  QuantizedModel quantized(net, bits);
  quantized.calibrate(std::vector{pictures()});
  quantized.enable_all();
  CHECK_THROWS_AS(QuantizedModel(net, bits), Error);
}

TEST_CASE("the exported weights are the quantizer's own") {
  SmallNet net;
  QuantizedModel quantized(net, assign(net, 2, 32));
  quantized.enable_all();
  const std::vector<float> rounded = outputs(net, pictures());
  const StateDict exported = dequantized_state_dict(quantized);
  SmallNet plain;
  load_state_dict(plain, exported, "export");
  CHECK(outputs(plain, pictures()) == rounded);
}
