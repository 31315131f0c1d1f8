// Uniform quantization of activations between a lowest and a highest value, and what its straight-through
// derivative takes from an incoming gradient. f32 and f64.
#pragma once

#include "core/tensor.hpp"

namespace goshawk::kernels {

/// Where activations are cut off, and the grid in between: code = x · to_code, value = code · to_value. The
/// numbers are rounded to the tensor's type.
struct ClipGrid {
  double low = 0, high = 0, to_code = 1, to_value = 1;
};

/// round(clip(x, low, high) · to_code) · to_value, rounding half to even; NaN where x is.
Tensor clip_round(const Tensor& x, const ClipGrid& grid);

struct ClipGradient {
  Tensor input;     ///< g, but 0 where x ≥ high or x ≤ low
  double high = 0;  ///< Σ g over x ≥ high
  double low = 0;   ///< Σ g over x ≤ low
};
/// The sums are taken in fixed blocks, so they do not depend on the number of threads. Throws Error unless g
/// and x have one shape and dtype.
ClipGradient clip_gradient(const Tensor& g, const Tensor& x, double low, double high);

}  // namespace goshawk::kernels
