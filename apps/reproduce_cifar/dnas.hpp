// The search that the DNAS rows take their bits from.
#pragma once

#include "apps/reproduce_cifar/experiment.hpp"
#include "quant/bits.hpp"

namespace goshawk {

/// The most probable assignment of 95 to 100 % of `bytes` weight bytes after a search from the baseline, as
/// many epochs as a fine-tuning has (docs/dnas.md). One search serves every size: it is kept as
/// checkpoints/dnas.search.safetensors, and goes on there after an interruption. Throws Error when no
/// assignment lies between these sizes.
BitAssignment dnas_bits(const Experiment& experiment, double bytes, int activation_bits);

}  // namespace goshawk
