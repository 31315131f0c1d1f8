#include "models/resnet_cifar.hpp"

#include <cmath>

#include "core/error.hpp"
#include "nn/init.hpp"

namespace goshawk {
namespace {

// Option A. x[:, ::s, ::s, :], then equally many zero channels before and after (one more after, where their
// number is odd).
Variable subsample_and_pad(const Variable& x, std::int64_t stride, std::int64_t channels) {
  const std::int64_t n = x.dim(0), h = (x.dim(1) + stride - 1) / stride, w = (x.dim(2) + stride - 1) / stride;
  const Variable pixels =
      slice(x, {.start = {0, 0, 0, 0}, .step = {1, stride, stride, 1}}, {n, h, w, x.dim(3)});
  return unslice(pixels, {.start = {0, 0, 0, (channels - x.dim(3)) / 2}, .step = {1, 1, 1, 1}},
                 {n, h, w, channels});
}

int blocks_per_stage(int depth) {
  check(depth >= 8 && (depth - 2) % 6 == 0, "[ResNetCifar] depth {} is not 6n + 2; choose 20, 32, 44 or 56",
        depth);
  return (depth - 2) / 6;
}

}  // namespace

BasicBlock::BasicBlock(Config config)
    : conv1({.in = config.in, .out = config.out, .kernel = 3, .stride = config.stride, .padding = 1}),
      bn1({.channels = config.out}),
      conv2({.in = config.out, .out = config.out, .kernel = 3, .padding = 1}),
      bn2({.channels = config.out}),
      config_(config) {
  check(config.out >= config.in || config.shortcut == Shortcut::projection,
        "[BasicBlock] {} output channels are fewer than {} input channels; choose a shortcut that is a "
        "projection",
        config.out, config.in);
  register_module("conv1", conv1);
  register_module("bn1", bn1);
  register_module("conv2", conv2);
  register_module("bn2", bn2);
  register_module("shortcut", shortcut);
  if (config.shortcut == Shortcut::projection && (config.stride != 1 || config.in != config.out)) {
    shortcut.add<Conv2d>({.in = config.in, .out = config.out, .kernel = 1, .stride = config.stride});
    shortcut.add<BatchNorm2d>({.channels = config.out});
  }
}

Variable BasicBlock::shortcut_of(const Variable& x) {
  if (!shortcut.empty()) return shortcut(x);
  if (config_.stride == 1 && config_.in == config_.out) return x;
  return subsample_and_pad(x, config_.stride, config_.out);
}

Variable BasicBlock::forward(const Variable& x) {
  const Variable hidden = conv1.forward(x, bn1, {.relu = true});
  return conv2.forward(hidden, bn2, {.relu = true, .residual = shortcut_of(x)});
}

ResNetCifar::ResNetCifar(const ResNetCifarConfig& config, Random& random)
    : conv1({.in = config.in, .out = config.width, .kernel = 3, .padding = 1}),
      bn1({.channels = config.width}),
      linear({.in = 4 * config.width, .out = config.classes}),
      config_(config) {
  const int blocks = blocks_per_stage(config.depth);
  register_module("conv1", conv1);
  register_module("bn1", bn1);
  std::int64_t in = config.width;
  const auto fill_stage = [&](const char* name, Sequential& stage, std::int64_t out, std::int64_t stride) {
    for (int i = 0; i < blocks; ++i) {
      stage.add<BasicBlock>(
          {.in = in, .out = out, .stride = i == 0 ? stride : 1, .shortcut = config.shortcut});
      in = out;
    }
    register_module(name, stage);
  };
  fill_stage("layer1", layer1, config.width, 1);
  fill_stage("layer2", layer2, 2 * config.width, 2);
  fill_stage("layer3", layer3, 4 * config.width, 2);
  register_module("linear", linear);

  for (const auto& [name, layer] : weighted_layers(*this)) kaiming_normal(layer->weight, random);
  const double bound = 1 / std::sqrt(static_cast<double>(linear.config().in));
  linear.bias.value().copy_from(random_uniform(linear.bias.shape(), DType::f32, random, -bound, bound));
}

Variable ResNetCifar::forward(const Variable& x) {
  check(x.shape().size() == 4 && x.dim(3) == config_.in,
        "[ResNetCifar] the input has shape {} but pictures are [N, height, width, {}] (NHWC)", x.shape(),
        config_.in);
  const Variable stem = conv1.forward(x, bn1, {.relu = true});
  return linear(global_avg_pool(layer3(layer2(layer1(stem)))));
}

}  // namespace goshawk
