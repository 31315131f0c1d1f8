// From a u8 picture to the f32 network input: padded random crop, horizontal flip, normalisation.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "core/random.hpp"
#include "datasets/dataset.hpp"

namespace goshawk {

/// Input = (pixel / 255 − mean) / stddev, per channel (R, G, B).
struct Normalization {
  std::array<float, 3> mean = {0.485f, 0.456f, 0.406f};  ///< ImageNet's, torchvision's default
  std::array<float, 3> stddev = {0.229f, 0.224f, 0.225f};

  bool operator==(const Normalization&) const = default;

  static Normalization imagenet() { return {}; }
};

/// Mean and standard deviation of each channel over all pixels of all pictures (evaluation form), exactly
/// summed in integers.
Normalization measure_normalization(const Dataset& dataset);

/// The random choices for training, those of He et al. 2016 (§4.2) for CIFAR when both are on.
struct Augmentation {
  bool horizontal_flip = false;  ///< with probability 1/2
  std::int64_t crop_padding =
      0;  ///< pad every side by this many black pixels, then cut out the original size
};

/// What was drawn for one picture.
struct AugmentationChoice {
  bool flip = false;
  std::int64_t dy = 0;  ///< the region's offset from the unpadded picture, in [−padding, padding]
  std::int64_t dx = 0;
};

AugmentationChoice choose_augmentation(const Augmentation& augmentation, Random& random);

/// Table-driven augmentation and normalisation.
class InputWriter {
 public:
  /// Throws Error unless each standard deviation is positive and finite and each mean is finite.
  explicit InputWriter(const Normalization& normalization);

  /// Writes u8 `picture` [height, width, 3] to f32 `out` [height, width, 3]: cut out at (dy, dx), black
  /// (before normalisation) where that is outside, then mirrored if choice.flip, then normalised.
  void write(std::span<const std::uint8_t> picture, ImageSize size, const AugmentationChoice& choice,
             std::span<float> out) const;

 private:
  std::array<std::array<float, 3>, 256> table_;  // normalised value by pixel value and channel
};

}  // namespace goshawk
