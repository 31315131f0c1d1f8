// Where a network is linear in something: one use of a weighted layer in a recorded graph.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "autograd/ops.hpp"

namespace goshawk {

enum class LinearKind : std::uint8_t { conv2d, linear };

/// output = conv2d(input, weight) or input · weight, plus what does not depend on either, such as a bias.
struct LinearSite {
  std::string name;  ///< of the layer in the state dict, without ".weight"
  LinearKind kind = LinearKind::conv2d;
  /// The input as this layer alone sees it: a node of its own, so that derivatives with respect to it leave
  /// out what else the same activation is used for. Conv2d [N,H,W,Ci]; linear [N,Ci].
  Variable input;
  Variable weight;    ///< what the input is multiplied by: the leaf, or what became of it (a quantizer)
  Variable output;    ///< conv2d [N,OH,OW,Co]; linear [N,Co]
  ConvParams params;  ///< of a convolution
};

/// What the site's input times another weight is: conv2d(input, weight) or input · weight.
Tensor linear_output(const LinearSite& site, const Tensor& weight);

/// A classifier's recorded forward pass over one microbatch.
struct ClassifierGraph {
  Variable logits;                ///< [N, C]
  Tensor labels;                  ///< i64 [N]
  std::vector<LinearSite> sites;  ///< in network order: that in which the layers were registered
};

}  // namespace goshawk
