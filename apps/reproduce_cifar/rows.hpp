// The rows that this program can make: where each one's bits come from, how it is quantized and fine-tuned,
// and the paper's numbers.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/cost_allocation.hpp"
#include "quant/quantized_model.hpp"

namespace goshawk {

/// Where the weights' bits come from.
enum class BitsFrom : std::uint8_t {
  nothing,  ///< full precision: the baseline
  uniform,  ///< Row::weight_bits everywhere
  costs,    ///< an allocator under the run's compression, from one sensitivity's costs
  dnas,     ///< the search of docs/dnas.md, of the size that Row::compression says
};

/// When the layers become quantized.
enum class Tuning : std::uint8_t {
  at_once,
  staged,    ///< in the order of Ω, HAWQ's
  reversed,  ///< in the order of Ω reversed, the ablation
};

/// What a row has a quantizer of its own for: the method it stands for.
struct RowQuantizer {
  WeightScheme weights;
  Granularity granularity;
  ActivationScheme activations;
};

/// What the paper printed.
struct PaperRow {
  const char* weight_bits;
  const char* activation_bits;
  double accuracy;  ///< percent
  double weight_compression;
  double activation_compression;
};

/// Which rows belong together, for --only.
enum class RowGroup : std::uint8_t {
  main,         ///< Baseline, Direct, HAWQ and HAWQ-V2
  comparators,  ///< the other rows of HAWQ's table
  methods,      ///< other ways to choose the bits, at equal size
  ablations,    ///< HAWQ with one thing undone, the last one quantization itself
};

struct Row {
  const char* name;  ///< as printed and as given to --only, which ignores case
  const char* slug;  ///< in file names, and for --only as well
  RowGroup group = RowGroup::main;
  BitsFrom bits = BitsFrom::nothing;
  int weight_bits = 32;    ///< of BitsFrom::uniform
  const char* costs = "";  ///< of BitsFrom::costs, and what orders the fine-tuning
  AllocationMethod method = AllocationMethod::exact;
  /// Activation bits by the exact method, from HAWQ-V2's costs of activations, with the run's number of bits
  /// as their mean.
  bool mixed_activations = false;
  bool reversed_bits = false;               ///< the most sensitive layers get the fewest bits
  double compression = 0;                   ///< of BitsFrom::dnas
  std::optional<int> activation_bits = {};  ///< of every layer, instead of the run's
  /// Weight and activation bits of the first and the last layer, but for activations at 32 bits. The papers
  /// of the comparators keep these layers at 8 bits (HAWQ-V2, section 3.2).
  std::optional<int> edge_bits = {};
  std::optional<RowQuantizer> quantizer = {};  ///< instead of the run's
  Tuning tuning = Tuning::at_once;
  /// Dong et al. 2019 (HAWQ), table 1: CIFAR-10, ResNet20. Absent for rows the paper does not have.
  std::optional<PaperRow> paper = {};
};

/// In the order of the table.
const std::vector<Row>& rows();
const Row& baseline_row();
/// The rows of a name, a slug or a group ("main", "comparators", "methods", "ablations", "all"), whatever the
/// case. Throws UsageError listing the rows there are.
std::vector<const Row*> find_rows(std::string_view name);
/// "Baseline, Direct, …"
std::string row_names();

}  // namespace goshawk
