// A 10-class set of 32×32 colour pictures drawn by code: something to train on where there is no data at all.
#pragma once

#include <cstdint>
#include <memory>

#include "datasets/dataset.hpp"

namespace goshawk {

/// How hard the set is. A class is a shape (disc, square, triangle, ring, cross) filled with a texture
/// (stripes or checks); colours, place, size, rotation, background, distractors and noise tell
/// nothing about the class.
struct SyntheticOptions {
  std::uint64_t seed = 0;
  /// Standard deviation of the pixel noise, in units of the full pixel range. The knob to turn first.
  double noise = 0.06;
  /// Distance in RGB (each in [0, 1]) of the two fill colours from the background: uniform in this range.
  double min_contrast = 0.25;
  double max_contrast = 0.50;
  /// Radius of the shape in pixels: uniform in this range.
  double min_radius = 7.0;
  double max_radius = 12.0;
  /// Amplitude of the background's waves, in units of the full pixel range.
  double background = 0.06;
  std::int64_t max_distractors = 3;  ///< small blobs and bars beside or over the shape: 0 to this many
  /// Fraction of pictures whose shape is half way between its own and another one. Even a perfect classifier
  /// is wrong on half of them.
  double ambiguous = 0.04;
};

/// Pictures 0 … count − 1 of the training or test sequence; picture i has class i mod 10 and is drawn from
/// its own Philox stream (seed, split, i): it does not depend on `count`, on the other pictures, on the
/// number of threads or on the machine (only exactly rounded operations are used). Throws Error when an
/// option makes no sense.
std::shared_ptr<const ImageDataset> make_synthetic(Split split, std::int64_t count,
                                                   const SyntheticOptions& options = {});

}  // namespace goshawk
