#include "models/squeezenext.hpp"

#include <array>
#include <cmath>
#include <memory>
#include <utility>

#include "core/error.hpp"
#include "nn/init.hpp"

namespace goshawk {
namespace {

// Channels of a network of width 1.
constexpr std::int64_t kInitialChannels = 64;
constexpr std::array<std::int64_t, 4> kStageChannels{32, 64, 128, 256};
constexpr std::int64_t kFinalChannels = 128;

struct Layout {
  std::int64_t kernel;  // of the first convolution
  std::array<int, kStageChannels.size()> units;
};

Layout layout_of(SqueezeNextVariant variant) {
  if (variant == SqueezeNextVariant::sqnxt23v5) return {.kernel = 5, .units = {2, 4, 14, 1}};
  return {.kernel = 7, .units = {6, 6, 8, 1}};
}

// Channels of a network of width 1 → of one of `width`. With eighths, every unit gets whole numbers.
std::int64_t widened(std::int64_t channels, double width) {
  check(width > 0 && 8 * width == std::floor(8 * width),
        "[SqueezeNext] width {} is not a multiple of 1/8; choose 1, 1.5 or 2", width);
  return std::llround(static_cast<double>(channels) * width);
}

std::int64_t squeezed(const SqueezeNextUnit::Config& config) {
  if (config.stride != 1) return config.in;
  return config.in > config.out ? config.in / 4 : config.in / 2;
}

Conv2dConfig pointwise(std::int64_t in, std::int64_t out, std::int64_t stride = 1) {
  return {.in = in, .out = out, .kernel = 1, .stride = stride, .bias = true};
}

}  // namespace

SqueezeNextConv::SqueezeNextConv(const Conv2dConfig& config) : conv(config), bn({.channels = config.out}) {
  register_module("conv", conv);
  register_module("bn", bn);
}

SqueezeNextUnit::SqueezeNextUnit(const Config& config)
    : conv1(pointwise(config.in, squeezed(config), config.stride)),
      conv2(pointwise(squeezed(config), squeezed(config) / 2)),
      conv3({.in = squeezed(config) / 2,
             .out = squeezed(config),
             .kernel = {1, 3},
             .padding = {0, 1},
             .bias = true}),
      conv4({.in = squeezed(config),
             .out = squeezed(config),
             .kernel = {3, 1},
             .padding = {1, 0},
             .bias = true}),
      conv5(pointwise(squeezed(config), config.out)) {
  register_module("conv1", conv1);
  register_module("conv2", conv2);
  register_module("conv3", conv3);
  register_module("conv4", conv4);
  register_module("conv5", conv5);
  if (config.stride != 1 || config.in != config.out) {
    identity_conv.emplace(pointwise(config.in, config.out, config.stride));
    register_module("identity_conv", *identity_conv);
  }
}

Variable SqueezeNextUnit::forward(const Variable& x) {
  const Variable expanded = conv5(conv4(conv3(conv2(conv1(x)))));
  // Both are results of ReLUs or sums of such: a ReLU of their sum would not change it, and what it would
  // mask of a gradient, where all are 0, those mask.
  return add(expanded, identity_conv ? (*identity_conv)(x) : x);
}

SqueezeNext::SqueezeNext(const SqueezeNextConfig& config, Random& random)
    : output({.in = widened(kFinalChannels, config.width), .out = config.classes}), config_(config) {
  const Layout layout = layout_of(config.variant);
  std::int64_t in = widened(kInitialChannels, config.width);

  auto init_block = std::make_unique<Sequential>();
  init_block->add<SqueezeNextConv>({.in = config.in,
                                    .out = in,
                                    .kernel = layout.kernel,
                                    .stride = 2,
                                    .padding = config.padding,
                                    .bias = true},
                                   "conv");
  init_block->add<MaxPool2d>({.kernel = 3, .stride = 2, .ceil = true}, "pool");
  features.append(std::move(init_block), "init_block");

  for (std::size_t i = 0; i < kStageChannels.size(); ++i) {
    const std::int64_t out = widened(kStageChannels[i], config.width);
    auto stage = std::make_unique<Sequential>();
    for (int j = 0; j < layout.units[i]; ++j) {
      stage->add<SqueezeNextUnit>({.in = in, .out = out, .stride = i > 0 && j == 0 ? 2 : 1},
                                  fmt::format("unit{}", j + 1));
      in = out;
    }
    features.append(std::move(stage), fmt::format("stage{}", i + 1));
  }
  features.add<SqueezeNextConv>(pointwise(in, output.config().in), "final_block");
  features.append(std::make_unique<GlobalAvgPool>(), "final_pool");
  register_module("features", features);
  register_module("output", output);

  for (const auto& [name, layer] : weighted_layers(*this)) kaiming_normal(layer->weight, random);
  const double bound = 1 / std::sqrt(static_cast<double>(output.config().in));
  output.bias.value().copy_from(random_uniform(output.bias.shape(), DType::f32, random, -bound, bound));
}

Variable SqueezeNext::forward(const Variable& x) {
  check(x.shape().size() == 4 && x.dim(3) == config_.in,
        "[SqueezeNext] the input has shape {} but pictures are [N, height, width, {}] (NHWC)", x.shape(),
        config_.in);
  return output(features(x));
}

}  // namespace goshawk
