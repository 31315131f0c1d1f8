// Small functions around quantization-aware training: what the layers of a model are, what is exported, and
// what it really weighs.
#pragma once

#include <string>
#include <vector>

#include "nn/state_dict.hpp"
#include "quant/quantized_model.hpp"

namespace goshawk {

/// Name and sizes of every weighted layer, at 32 bits. input_elements is that of the last forward, 0 before
/// one.
std::vector<LayerBits> layer_list(Module& model);

/// A weight tensor as it is stored, verified.
struct WeightTensorReport {
  std::string name;  ///< "layer1.0.conv1.weight"
  std::int64_t elements = 0;
  int bits = 32;
  std::int64_t levels = 0;  ///< most distinct values in a quantization group; 0 at 32 bits
  std::int64_t scales = 0;  ///< f32 numbers of its quantizer
};
/// Quantizes every weight tensor as forward does and counts. Throws Error when a tensor has more than 2^bits
/// levels in a group, or a layer is not enabled yet.
std::vector<WeightTensorReport> count_bits(const QuantizedModel& model);

/// Size of the quantized model from count_bits: the bits of every weight tensor as they are, everything else
/// in f32.
SizeReport measure_size(const QuantizedModel& model);

/// state_dict(model), in file layout, with every enabled layer's weights replaced by Q(W): save it with
/// write_safetensors and any framework computes what this model computes, but for the activations' rounding.
StateDict dequantized_state_dict(const QuantizedModel& model);

}  // namespace goshawk
