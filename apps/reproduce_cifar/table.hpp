// The results of a run and how they are shown: table.json and table.md.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/reproduce_cifar/rows.hpp"
#include "quant/bits.hpp"
#include "quant/sensitivity.hpp"

namespace goshawk {

/// One finished row.
struct RowResult {
  std::string slug;
  std::string weight_bits;      ///< "2" or "2 MP": the smallest width, mixed with others
  std::string activation_bits;  ///< "4"
  std::int64_t correct = 0;     ///< of `images` test pictures
  std::int64_t images = 0;
  double weight_compression = 1;
  double activation_compression = 1;
  double total_compression = 1;

  double accuracy() const { return 100.0 * static_cast<double>(correct) / static_cast<double>(images); }
};

nlohmann::ordered_json to_json(const RowResult& result);
RowResult row_result_from_json(const nlohmann::json& value);

/// The main table beside the paper's numbers, the conventions, and the table of layers: markdown that reads
/// well as it is. `bits` are the assignments by slug; rows that are not finished are left out.
std::string table_markdown(const std::map<std::string, RowResult>& results, const Sensitivity* sensitivity,
                           const std::map<std::string, BitAssignment>& bits);

}  // namespace goshawk
