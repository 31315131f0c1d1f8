// The rows of the table that this program makes, and the paper's numbers beside them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace goshawk {

enum class RowKind : std::uint8_t { baseline, direct, hawq, hawq_v2 };

struct PaperRow {
  const char* weight_bits;
  const char* activation_bits;
  double accuracy;  ///< percent
  double weight_compression;
  double activation_compression;
};

struct Row {
  RowKind kind;
  const char* name;  ///< as printed and as given to --only, which ignores case
  const char* slug;  ///< in file names
  const char* weight_bits;
  /// Dong et al. 2019 (HAWQ), table 1: CIFAR-10, ResNet20. Absent for rows the paper does not have.
  std::optional<PaperRow> paper;
};

const std::vector<Row>& rows();
/// Throws UsageError listing the rows there are.
const Row& find_row(std::string_view name);
/// "Baseline, Direct, …"
std::string row_names();

}  // namespace goshawk
