// Initial weights.
#pragma once

#include <cstdint>

#include "core/random.hpp"
#include "nn/module.hpp"

namespace goshawk {

enum class Fan : std::uint8_t { in, out };

struct KaimingOptions {
  Fan fan = Fan::in;
  double gain = 1.4142135623730951;  ///< √2, for ReLU
};

/// Number of inputs that one output sums over, or of outputs that one input reaches. Weights are [..., in,
/// out] in memory (HWIO or [In,Out]). A weight does not say in how many groups its convolution is: Fan::out
/// is then that of all groups together, as in PyTorch.
std::int64_t fan_of(const Tensor& weight, Fan fan);

/// Overwrites with N(0, gain²/fan): He et al. 2015, equation 10. Elements are drawn in memory order.
void kaiming_normal(const Variable& weight, Random& random, const KaimingOptions& options = {});
/// Overwrites with U(−b, b), b = gain · √(3/fan): the uniform distribution of the same variance.
void kaiming_uniform(const Variable& weight, Random& random, const KaimingOptions& options = {});

class WeightedLayer;
/// What PyTorch does to a new convolution or linear layer: weight and bias from U(−1/√fan_in, 1/√fan_in).
void pytorch_default_init(WeightedLayer& layer, Random& random);
/// The same for every weighted layer of a model, in network order.
void pytorch_default_init(Module& model, Random& random);

}  // namespace goshawk
