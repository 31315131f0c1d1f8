// The order in which layers are quantized and fine-tuned, and the stages it is cut into.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "quant/bits.hpp"
#include "quant/costs.hpp"

namespace goshawk {

/// One stage of fine-tuning: these layers become quantized (those of earlier stages stay so), then `epochs`
/// epochs.
struct Stage {
  std::vector<std::string> layers = {};
  int epochs = 0;
};

struct StageOptions {
  int stages = 3;  ///< at most the number of blocks; 1 quantizes everything at once
  int epochs_per_stage = 1;
  int final_epochs = 0;   ///< added to the last stage, when everything is quantized
  bool by_block = true;   ///< layers of one residual block move together (HAWQ's blocks), else layer by layer
  bool reversed = false;  ///< ascending Ω: the ablation
};

/// The block of a layer, by the names that state dicts use: the first component of its name, with the second
/// if that is an index or a numbered unit; "features.", which holds nearly all of some networks, does not
/// count. "layer1.0" for "layer1.0.conv1" and for "layer1.0.shortcut.0", "features.3" for
/// "features.3.squeeze", "features.stage1.unit2" for "features.stage1.unit2.conv1.conv", "fire2" for
/// "fire2.squeeze", "conv1" for "conv1".
std::string_view block_of(std::string_view layer);

struct OrderedBlock {
  std::string name;
  double omega = 0;                      ///< Σ over its layers
  std::vector<std::string> layers = {};  ///< network order
};
/// Blocks (or single layers) by descending Ω, the cost of a layer at its assigned bits; HAWQ's is
/// |λ| ‖Q(W) − W‖² (arXiv 1905.03696, equation 6, number from memory). Equal ones in network order; what
/// stays at 32 bits comes last, also behind negative Ω. Throws Error for a layer or a width that the costs do
/// not have.
std::vector<OrderedBlock> finetune_order(const Costs& costs, const BitAssignment& bits, bool by_block = true);

/// The order cut into stages of nearly equal numbers of blocks; the first stages get the extra ones.
std::vector<Stage> stage_plan(const Costs& costs, const BitAssignment& bits,
                              const StageOptions& options = {});
/// Everything in one stage: what Direct does.
std::vector<Stage> single_stage(const BitAssignment& bits, int epochs);

/// order.json.
std::string to_json(const std::vector<Stage>& stages);
std::vector<Stage> stages_from_json(std::string_view text, const std::string& source);
void write_stages(const std::filesystem::path& path, const std::vector<Stage>& stages);
std::vector<Stage> read_stages(const std::filesystem::path& path);

}  // namespace goshawk
