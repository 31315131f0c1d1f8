// Sums of convolutions that share operands, such as the tangents of a convolution along several directions,
// and what is done to an image before it is written.
#pragma once

#include <vector>

#include "core/kernels/conv.hpp"

namespace goshawk::kernels {

/// What is convolved with what. The sums below are of one or two such pairs of the same shapes.
struct ConvPair {
  Tensor a, b;
};
using ConvPairs = std::vector<ConvPair>;

/// A sum that gives an image: Σ + bias? + residual? where the mask is not ≤ 0, and 0 elsewhere.
struct ConvSum {
  ConvPairs pairs;
  Tensor bias = {};        ///< [channels of the image], or undefined
  Tensor residual = {};    ///< of the image's shape, or undefined
  Tensor mask = {};        ///< of the image's shape, or undefined
  bool overwrite = false;  ///< the result may be written to the residual, which is nobody else's
};

/// Σ conv2d(a, b) over the pairs of each sum. As if each sum were alone, to the bit, but faster than one
/// convolution after the other: operands that stand at the same place in several sums are read and
/// transformed once, and two pairs are added before the sum is written where that rounds no more coarsely.
/// Operands and errors as of conv2d.
std::vector<Tensor> conv2d_sums(const std::vector<ConvSum>& sums, const ConvParams& params);
/// Σ conv2d_input_grad(a, b, x_shape, params).
std::vector<Tensor> conv2d_input_grad_sums(const std::vector<ConvSum>& sums, const Shape& x_shape,
                                           const ConvParams& params);
/// Σ conv2d_weight_grad(a, b, w_shape, params).
std::vector<Tensor> conv2d_weight_grad_sums(const std::vector<ConvPairs>& sums, const Shape& w_shape,
                                            const ConvParams& params);

}  // namespace goshawk::kernels
