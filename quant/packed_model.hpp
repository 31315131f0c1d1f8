// A quantized model on disk at the size its bits promise: b bits a weight, and everything else beside it.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "quant/quantized_model.hpp"

namespace goshawk {

/// The bytes of a packed file, by what they hold.
struct PackedSize {
  std::int64_t codes = 0;         ///< weights of quantized layers, b bits each, every layer on a whole byte
  std::int64_t scales = 0;        ///< steps, offsets, bases and levels of the weight quantizers, f32
  std::int64_t ranges = 0;        ///< of the activation quantizers, with their flags
  std::int64_t full_weights = 0;  ///< weights of layers at 32 bits
  std::int64_t other = 0;         ///< batch norm and biases
  std::int64_t header = 0;        ///< names, shapes and metadata

  std::int64_t total() const { return codes + scales + ranges + full_weights + other + header; }
};

/// Weights that a quantizer of one's own has rounded: the model's weights are Q(W) by now, and are 32 bits
/// wide to QuantizedModel.
struct RoundedWeights {
  std::map<std::string, int> bits = {};  ///< of those layers, by name, 1 … 8
  /// Where a width's 2^b levels are counted: in the whole layer, or in each output channel.
  Granularity granularity = Granularity::layer;
};

/// Writes `quantized` (every layer enabled, f32) as a safetensors file: "L.weight.codes" U8 for each
/// quantized layer L, element k of the file layout (OIHW, [out, in]) in bits [k·b, (k+1)·b), the lowest bit
/// of a byte first, as the code less the smallest code; "L.weight.scale" (and ".offset" of asymmetric levels,
/// or
/// ".basis") so that Q(w) = scale · code + offset; the rest of the state dict under its own names; the
/// activation quantizers' state under "quantizer."; bits and schemes in the metadata beside `metadata`.
/// Layers of `rounded` have "L.weight.levels" in place of a scale, [1, n] or [channels, n] with n ≤ 2^b:
/// every value that occurs, by growing value, and codes count from the first. Throws Error when a layer is
/// not enabled, would not come back to the bit, or takes more levels than its width has.
PackedSize write_packed_model(const std::string& path, const QuantizedModel& quantized,
                              std::map<std::string, std::string> metadata = {},
                              const RoundedWeights& rounded = {});

/// Whether a file with this metadata was written by write_packed_model.
bool is_packed_model(const std::map<std::string, std::string>& metadata);

struct PackedModel {
  /// Attached to the model, whose weights are Q(W) now: its weights are at 32 bits (nothing is left to
  /// quantize) and its activations as they were stored. Keep it as long as the model is used.
  std::unique_ptr<QuantizedModel> quantized;
  BitAssignment bits;  ///< as stored
  std::map<std::string, std::string> metadata = {};
};

/// Reads a packed file into `model`, whose outputs are then the same bits as those of the model that was
/// written. Throws Error naming the file and what does not fit; the model may then be partly overwritten.
PackedModel load_packed_model(const std::string& path, Module& model);

}  // namespace goshawk
