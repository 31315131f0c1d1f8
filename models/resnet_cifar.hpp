// The residual networks for 32×32 pictures: He et al. 2016, "Deep residual learning for image recognition",
// §4.2.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/random.hpp"
#include "nn/layers.hpp"

namespace goshawk {

/// What joins a block's input to its output where the shape changes.
enum class Shortcut : std::uint8_t {
  subsample,   ///< option A: every second pixel, zeros for the new channels; no parameters
  projection,  ///< option B: 1×1 convolution with the block's stride, and batch normalisation
};

struct ResNetCifarConfig {
  int depth = 20;  ///< 6n + 2 layers: three stages of n blocks of two convolutions
  std::int64_t classes = 10;
  Shortcut shortcut = Shortcut::subsample;
  std::int64_t width = 16;  ///< channels of the first stage; doubled in each following one
  std::int64_t in = 3;      ///< channels of the pictures
};

/// conv1 – bn1 – relu – conv2 – bn2 – (+ shortcut) – relu.
class BasicBlock : public Module {
 public:
  struct Config {
    std::int64_t in = 0, out = 0;
    std::int64_t stride = 1;
    Shortcut shortcut = Shortcut::subsample;
  };
  explicit BasicBlock(Config config);

  /// [N,H,W,in] → [N,⌈H/stride⌉,⌈W/stride⌉,out].
  Variable forward(const Variable& x) override;

  Conv2d conv1;
  BatchNorm2d bn1;
  Conv2d conv2;
  BatchNorm2d bn2;
  Sequential shortcut;  ///< empty unless option B changes the shape here

 private:
  Variable shortcut_of(const Variable& x);
  Config config_;
};

/// [N,H,W,in] → logits [N,classes]. Parameters are named as in the usual PyTorch implementation:
/// "conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.running_mean", "layer2.0.shortcut.0.weight" (option
/// B), "linear.bias". 269,722 parameters for depth 20, ten classes, option A.
class ResNetCifar : public Module {
 public:
  /// Convolution and linear weights from N(0, 2/fan_in) (He et al. 2015), the linear bias from U(±1/√fan_in),
  /// drawn from `random` in network order. Throws Error unless depth = 6n + 2 with n ≥ 1.
  ResNetCifar(const ResNetCifarConfig& config, Random& random);

  Variable forward(const Variable& x) override;
  const ResNetCifarConfig& config() const { return config_; }

  Conv2d conv1;
  BatchNorm2d bn1;
  Sequential layer1, layer2, layer3;
  Linear linear;

 private:
  ResNetCifarConfig config_;
};

}  // namespace goshawk
