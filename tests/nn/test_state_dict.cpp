#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>

#include "core/error.hpp"
#include "core/random.hpp"
#include "nn/init.hpp"
#include "nn/layers.hpp"
#include "nn/state_dict.hpp"

using namespace goshawk;

namespace {

struct Net : Module {
  Net() {
    register_module("conv", conv);
    register_module("bn", bn);
    register_module("linear", linear);
  }
  Variable forward(const Variable& x) override { return linear(global_avg_pool(bn(conv(x)))); }
  Conv2d conv{{.in = 2, .out = 4, .kernel = 3, .padding = 1, .bias = true}};
  BatchNorm2d bn{{.channels = 4}};
  Linear linear{{.in = 4, .out = 3}};
};

void randomise(Module& net, std::uint64_t seed) {
  Random random(seed);
  pytorch_default_init(net, random);
  for (const NamedBuffer& buffer : net.named_buffers()) {
    buffer.tensor.copy_from(random_uniform(buffer.tensor.shape(), buffer.tensor.dtype(), random, 0.5, 2));
  }
}

std::vector<float> everything(Module& net) {
  std::vector<float> all;
  for (const auto& [name, tensor] : state_dict(net)) {
    const auto values = tensor.to(DType::f32).to_vector<float>();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

Tensor& entry(StateDict& entries, const std::string& name) {
  return std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return e.first == name; })->second;
}

}  // namespace

TEST_CASE("names, order and layouts are those of PyTorch's files") {
  Net net;
  randomise(net, 1);
  StateDict entries = state_dict(net);
  std::vector<std::string> names;
  for (const auto& [name, tensor] : entries) names.push_back(name);
  CHECK(names == std::vector<std::string>{"conv.weight", "conv.bias", "bn.weight", "bn.bias",
                                          "bn.running_mean", "bn.running_var", "linear.weight",
                                          "linear.bias"});
  const Tensor& conv = entry(entries, "conv.weight");
  CHECK(conv.shape() == Shape{4, 2, 3, 3});
  for (std::int64_t o = 0; o < 4; ++o) {
    for (std::int64_t i = 0; i < 2; ++i) {
      for (std::int64_t k = 0; k < 9; ++k) {
        CHECK(conv.data<float>()[(o * 2 + i) * 9 + k] ==
              net.conv.weight.value().data<float>()[(k * 2 + i) * 4 + o]);
      }
    }
  }
  const Tensor& linear = entry(entries, "linear.weight");
  CHECK(linear.shape() == Shape{3, 4});
  CHECK(linear.data<float>()[2 * 4 + 1] == net.linear.weight.value().data<float>()[1 * 3 + 2]);
  // The entries are copies.
  entry(entries, "linear.bias").fill(9);
  CHECK(net.linear.bias.value().data<float>()[0] != 9);
}

TEST_CASE("a grouped convolution is stored with the channels that one group sees") {
  struct Grouped : Module {
    Grouped() { register_module("conv", conv); }
    Variable forward(const Variable& x) override { return conv(x); }
    Conv2d conv{{.in = 6, .out = 4, .kernel = {3, 1}, .groups = 2}};
  };
  Grouped net, other;
  randomise(net, 5);
  StateDict entries = state_dict(net);
  const Tensor& w = entry(entries, "conv.weight");
  CHECK(w.shape() == Shape{4, 3, 3, 1});  // [out, in / groups, KH, KW]
  CHECK(w.data<float>()[(3 * 3 + 2) * 3 + 1] == net.conv.weight.value().data<float>()[(1 * 3 + 2) * 4 + 3]);
  load_state_dict(other, entries, "test");
  CHECK(everything(other) == everything(net));
}

TEST_CASE("layout conversion is its own inverse for every rank") {
  Random random(1);
  for (const Shape& shape : {Shape{3, 5, 2, 4}, Shape{4, 3}, Shape{6}, Shape{}}) {
    const Tensor t = random_normal(shape, DType::f64, random);
    const Tensor back = to_memory_layout(to_file_layout(t));
    CHECK(back.shape() == shape);
    CHECK(back.to_vector<double>() == t.to_vector<double>());
  }
  CHECK(to_file_layout(Tensor::zeros({3, 5, 2, 4}, DType::f32)).shape() == Shape{4, 2, 3, 5});
  CHECK(to_memory_layout(Tensor::zeros({4, 2, 3, 5}, DType::f32)).shape() == Shape{3, 5, 2, 4});
}

TEST_CASE("a linear layer behind Flatten has PyTorch's weight: an element for each channel, row and column") {
  constexpr std::int64_t kHeight = 2, kWidth = 3, kChannels = 4, kOut = 5;
  Sequential net;
  net.add<Flatten>();
  net.add<Linear>({.in = kHeight * kWidth * kChannels, .out = kOut, .bias = false}, "fc");
  net.to(DType::f64);
  Random random(4);
  const Tensor file = random_normal({kOut, kChannels * kHeight * kWidth}, DType::f64, random);
  load_state_dict(net, {{"fc.weight", file}}, "f");
  const Tensor x = random_normal({2, kHeight, kWidth, kChannels}, DType::f64, random);
  const Tensor y = net(x).value();
  for (std::int64_t n = 0; n < 2; ++n) {
    for (std::int64_t o = 0; o < kOut; ++o) {
      double expected = 0;
      for (std::int64_t c = 0; c < kChannels; ++c) {
        for (std::int64_t h = 0; h < kHeight; ++h) {
          for (std::int64_t w = 0; w < kWidth; ++w) {
            expected += x.data<double>()[((n * kHeight + h) * kWidth + w) * kChannels + c] *
                        file.data<double>()[((o * kChannels + c) * kHeight + h) * kWidth + w];
          }
        }
      }
      CHECK(y.data<double>()[n * kOut + o] == doctest::Approx(expected).epsilon(1e-12));
    }
  }
}

TEST_CASE("a state dict goes round, in place, between f32 and f64 as well") {
  Net from, to;
  randomise(from, 1);
  randomise(to, 2);
  CHECK(everything(from) != everything(to));
  const auto node = to.conv.weight.node();
  const std::byte* storage = to.conv.weight.value().raw();
  load_state_dict(to, state_dict(from), "f");
  CHECK(everything(from) == everything(to));
  CHECK(to.conv.weight.node() == node);
  CHECK(to.conv.weight.value().raw() == storage);

  Net wide;
  wide.to(DType::f64);
  load_state_dict(wide, state_dict(from), "f");
  CHECK(wide.bn.running_var.dtype() == DType::f64);
  CHECK(everything(wide) == everything(from));
  randomise(to, 3);
  load_state_dict(to, state_dict(wide), "f");
  CHECK(everything(to) == everything(from));
  CHECK(to.conv.weight.dtype() == DType::f32);
}

TEST_CASE("num_batches_tracked is ignored and a prefix on every name is dropped") {
  Net from, to;
  randomise(from, 1);
  StateDict entries = state_dict(from);
  std::reverse(entries.begin(), entries.end());
  entries.emplace_back("bn.num_batches_tracked", Tensor::zeros({}, DType::i64));
  load_state_dict(to, entries, "f");
  CHECK(everything(to) == everything(from));
  for (auto& [name, tensor] : entries) name.insert(0, "module.");
  randomise(to, 2);
  load_state_dict(to, entries, "f");
  CHECK(everything(to) == everything(from));
}

TEST_CASE("a model whose own names begin like the dropped prefix loads its own file") {
  Sequential from, to;
  for (Sequential* net : {&from, &to}) net->add<Linear>({.in = 2, .out = 2}, "module");
  from.parameters()[0].value().fill(3);
  load_state_dict(to, state_dict(from), "f");
  CHECK(to.parameters()[0].value().to_vector<float>() == std::vector<float>{3, 3, 3, 3});
  // And from DataParallel's.
  StateDict wrapped = state_dict(from);
  for (auto& [name, tensor] : wrapped) name.insert(0, "module.");
  to.parameters()[0].value().fill(0);
  load_state_dict(to, wrapped, "f");
  CHECK(to.parameters()[0].value().to_vector<float>() == std::vector<float>{3, 3, 3, 3});
}

TEST_CASE("numbers that the model cannot hold or compute with are refused, and it stays as it was") {
  Net from, net;
  randomise(from, 1);
  randomise(net, 2);
  const auto before = everything(net);
  from.to(DType::f64);
  StateDict large = state_dict(from);
  entry(large, "linear.bias").data<double>()[1] = -1e300;
  CHECK_THROWS_WITH_AS(
      load_state_dict(net, large, "w.safetensors"),
      "[load_state_dict] w.safetensors: tensor 'linear.bias' has the element -1e+300, which is "
      "too large for f32; load it into a model of f64",
      Error);
  for (const DType dtype : {DType::f32, DType::f64}) {
    from.to(dtype);
    StateDict negative = state_dict(from);
    entry(negative, "bn.running_var").fill(-0.5);
    CHECK_THROWS_WITH_AS(
        load_state_dict(net, negative, "w.safetensors"),
        "[load_state_dict] w.safetensors: tensor 'bn.running_var' has the element -0.5, and a "
        "variance is not negative; the file is damaged",
        Error);
  }
  CHECK(everything(net) == before);
  // A parameter may have any sign, and what is not finite in the file is the caller's to judge.
  from.to(DType::f64);
  StateDict infinite = state_dict(from);
  entry(infinite, "linear.bias").fill(-std::numeric_limits<double>::infinity());
  load_state_dict(net, infinite, "w.safetensors");
  CHECK(std::isinf(net.linear.bias.value().data<float>()[0]));
}

TEST_CASE("what does not fit is refused in one line, and the model stays as it was") {
  Net from, net;
  randomise(from, 1);
  randomise(net, 2);
  const auto before = everything(net);
  const StateDict good = state_dict(from);

  StateDict missing = good;
  missing.erase(missing.begin() + 4);
  CHECK_THROWS_WITH_AS(
      load_state_dict(net, missing, "w.safetensors"),
      "[load_state_dict] w.safetensors: tensor 'bn.running_mean' (shape [4]) is missing; choose the "
      "model this file was saved from",
      Error);
  StateDict extra = good;
  extra.emplace_back("conv2.weight", Tensor::zeros({1, 2}, DType::f32));
  CHECK_THROWS_WITH_AS(
      load_state_dict(net, extra, "w.safetensors"),
      "[load_state_dict] w.safetensors: tensor 'conv2.weight' (shape [1, 2]) is not part of the "
      "model; choose the model this file was saved from",
      Error);
  StateDict misshapen = good;
  entry(misshapen, "conv.weight") = Tensor::zeros({3, 3, 2, 4}, DType::f32);
  CHECK_THROWS_WITH_AS(
      load_state_dict(net, misshapen, "w.safetensors"),
      "[load_state_dict] w.safetensors: tensor 'conv.weight' has shape [3, 3, 2, 4] but the model "
      "needs [4, 2, 3, 3]; choose the model this file was saved from",
      Error);
  StateDict transposed = good;
  entry(transposed, "linear.weight") = Tensor::zeros({4, 3}, DType::f32);
  CHECK_THROWS_AS(load_state_dict(net, transposed, "w.safetensors"), Error);
  StateDict integers = good;
  entry(integers, "conv.bias") = Tensor::zeros({4}, DType::i64);
  CHECK_THROWS_WITH_AS(load_state_dict(net, integers, "w.safetensors"),
                       "[load_state_dict] w.safetensors: tensor 'conv.bias' is i64; save it as f32 or f64",
                       Error);
  StateDict twice = good;
  twice.push_back(good[0]);
  CHECK_THROWS_WITH_AS(
      load_state_dict(net, twice, "w.safetensors"),
      "[load_state_dict] w.safetensors: tensor 'conv.weight' occurs twice; write the file again with "
      "unique names",
      Error);
  StateDict half_prefixed = good;
  half_prefixed[0].first = "module.conv.weight";
  CHECK_THROWS_AS(load_state_dict(net, half_prefixed, "w.safetensors"), Error);
  CHECK_THROWS_AS(load_state_dict(net, {}, "w.safetensors"), Error);
  CHECK(everything(net) == before);
}
