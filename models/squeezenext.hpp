// SqueezeNext: Gholami et al. 2018, "SqueezeNext: Hardware-aware neural network design".
#pragma once

#include <cstdint>
#include <optional>

#include "core/random.hpp"
#include "nn/layers.hpp"

namespace goshawk {

/// How the 21 units are spread over the four stages.
enum class SqueezeNextVariant : std::uint8_t {
  sqnxt23,    ///< 6, 6, 8 and 1 after a 7×7 convolution
  sqnxt23v5,  ///< 2, 4, 14 and 1 after a 5×5 one: fewer on the large and narrow maps, which keep hardware
              ///< idle
};

struct SqueezeNextConfig {
  SqueezeNextVariant variant = SqueezeNextVariant::sqnxt23;
  double width = 1;  ///< factor of all channels, a multiple of 1/8; 2 for 2.0-SqNxt-23
  std::int64_t classes = 1000;
  std::int64_t in = 3;  ///< channels of the pictures
  /// Of the first convolution: 1 as in pytorchcv, 0 as in the authors' networks. 281.9 and 278.0 million
  /// multiply-accumulates for 1.0-SqNxt-23 and a picture of 227×227.
  std::int64_t padding = 1;
};

/// conv – bn – relu.
class SqueezeNextConv : public Module {
 public:
  using Config = Conv2dConfig;
  explicit SqueezeNextConv(const Conv2dConfig& config);

  /// [N,H,W,in] → [N,OH,OW,out].
  Variable forward(const Variable& x) override { return conv.forward(x, bn, {.relu = true}); }

  Conv2d conv;
  BatchNorm2d bn;
};

/// Squeezes by 1×1 convolutions to s and then to s/2 channels, convolves by 1×3 and then by 3×1 to s channels
/// each, expands by 1×1 to `out` and adds the input. s is in/2; in a unit that narrows in/4, and in one with
/// a stride `in`. Where the shape changes, the input is added after a 1×1 convolution of its own. Every
/// convolution has a bias and is followed by batch normalisation and ReLU, the last one's before the sum. The
/// paper's ReLU of the sum is left out: for inputs that are at least 0, as all units of a network get them,
/// it changes no value and no derivative.
class SqueezeNextUnit : public Module {
 public:
  struct Config {
    std::int64_t in = 0, out = 0;
    std::int64_t stride = 1;
  };
  explicit SqueezeNextUnit(const Config& config);

  /// [N,H,W,in], results of a ReLU or sums of such → [N,⌈H/stride⌉,⌈W/stride⌉,out].
  Variable forward(const Variable& x) override;

  SqueezeNextConv conv1, conv2, conv3, conv4, conv5;
  std::optional<SqueezeNextConv> identity_conv;  ///< only where the shape changes
};

/// [N,H,W,in] → logits [N,classes]. Parameters are named as in pytorchcv (whose 23v5 differs in beginning
/// with 7×7): "features.init_block.conv.conv.weight", "features.stage1.unit1.conv1.bn.running_mean",
/// "features.stage2.unit1.identity_conv.conv.bias", "features.final_block.conv.weight", "output.bias".
/// 724,056 parameters for 1.0-SqNxt-23 and 2,583,752 for 2.0-SqNxt-23, with 1000 classes.
class SqueezeNext : public Module {
 public:
  /// Convolution and linear weights from N(0, 2/fan_in) (He et al. 2015), the linear bias from U(±1/√fan_in),
  /// drawn from `random` in network order; the other biases are 0. Throws Error for a width that is not a
  /// positive multiple of 1/8.
  SqueezeNext(const SqueezeNextConfig& config, Random& random);

  Variable forward(const Variable& x) override;
  const SqueezeNextConfig& config() const { return config_; }

  Sequential features;  ///< init_block, stage1 to stage4, final_block, final_pool
  Linear output;

 private:
  SqueezeNextConfig config_;
};

}  // namespace goshawk
