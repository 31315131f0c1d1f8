// A bit assignment, what it costs in bytes, and bits.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace goshawk {

/// The bits of one weighted layer; 32 means not quantized.
struct LayerBits {
  std::string name;
  std::int64_t parameters = 0;      ///< elements of the weight tensor
  std::int64_t input_elements = 0;  ///< elements of the layer's input, one image; 0 when unknown
  int weight = 32;
  int activation = 32;  ///< of the input; where that is the picture, see picture_bits()
  bool pinned = false;  ///< fixed by the user, not by the allocator
};

struct BitAssignment {
  std::string method;                  ///< "direct", "hawq", "hawq-v2", "knapsack", "manual"
  double budget_bytes = 0;             ///< of the weights; 0 when there was none
  double omega = 0;                    ///< the objective that was minimised; 0 when there was none
  std::vector<LayerBits> layers = {};  ///< network order

  /// Throws Error naming the layer when there is none of that name.
  const LayerBits& layer(std::string_view name) const;
};

/// Sizes and compressions. Convention "weights": the weight tensors of convolution and linear layers only,
/// each counted at the bits it is stored with; this is how the papers' W-comp comes to 16.00× at 2 bits.
/// Convention "total" adds what stays in f32: batch-norm parameters and statistics, biases, and the
/// quantizers' scales.
struct SizeReport {
  std::int64_t weight_count = 0;               ///< Σ n_i
  std::int64_t weight_bits = 0;                ///< Σ n_i b_i
  std::int64_t other_parameters = 0;           ///< f32 numbers outside the weight tensors
  std::int64_t scales = 0;                     ///< f32 numbers the weight quantizers need
  double mean_activation_bits = 0;             ///< plain mean over the layers whose input is counted
  double mean_activation_bits_by_element = 0;  ///< weighted by input_elements; 0 when one is unknown

  double weight_bytes() const { return static_cast<double>(weight_bits) / 8; }
  double total_bytes() const { return weight_bytes() + 4 * static_cast<double>(other_parameters + scales); }
  /// W-comp: 32 Σ n_i / Σ n_i b_i.
  double weight_compression() const;
  /// f32 bytes of everything over total_bytes().
  double total_compression() const;
  /// A-comp: 32 / mean_activation_bits.
  double activation_compression() const;
};

struct SizeOptions {
  std::int64_t other_parameters = 0;
  std::int64_t scales = 0;
  /// The first layer's input is the picture, not an activation: left out of A-comp, as the papers do.
  bool count_network_input = false;
};
/// Throws Error for an assignment without layers.
SizeReport size_report(const BitAssignment& bits, const SizeOptions& options = {});

/// Every layer at the same bits: the papers' Direct row is (2, 4).
BitAssignment uniform_assignment(const std::vector<LayerBits>& layers, int weight_bits, int activation_bits);

/// The text of bits.json.
std::string to_json(const BitAssignment& bits);
/// Throws Error naming `source` and the offending entry for anything that is not a bit assignment: unknown
/// widths, layers named twice.
BitAssignment bits_from_json(std::string_view text, const std::string& source);
void write_bits(const std::filesystem::path& path, const BitAssignment& bits);
BitAssignment read_bits(const std::filesystem::path& path);

}  // namespace goshawk
