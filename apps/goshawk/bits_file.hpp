// The bits of a model's layers, from either kind of bits.json.
#pragma once

#include <string>
#include <vector>

#include "quant/bits.hpp"

namespace goshawk {

/// Reads the file for a model with these layers (see layer_list). What goshawk allocate writes has weight
/// bits alone: the inputs of all layers get `activation_bits`. A file of a run ("format": "goshawk-bits-1")
/// has both, and must fit the layers as it stands. Throws Error naming the file for one that is neither, for
/// a layer that the model does not have (with the name that may be meant), one that is missing or listed
/// twice, and for widths that are none.
BitAssignment read_bits_for(const std::string& path, const std::vector<LayerBits>& layers,
                            int activation_bits);

}  // namespace goshawk
