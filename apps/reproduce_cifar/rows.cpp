#include "apps/reproduce_cifar/rows.hpp"

#include <algorithm>
#include <cctype>

#include "core/error.hpp"

namespace goshawk {

const std::vector<Row>& rows() {
  static const std::vector<Row> all{
      {RowKind::baseline, "Baseline", "baseline", "32", PaperRow{"32", "32", 92.37, 1, 1}},
      {RowKind::direct, "Direct", "direct", "2", PaperRow{"2 MP", "4", 90.34, 16, 8}},
      {RowKind::hawq, "HAWQ", "hawq", "2 MP", PaperRow{"2 MP", "4", 92.22, 13.11, 8}},
      {RowKind::hawq_v2, "HAWQ-V2", "hawq-v2", "2 MP", std::nullopt},
  };
  return all;
}

const Row& find_row(std::string_view name) {
  const auto same = [&](const char* candidate) {
    return std::equal(name.begin(), name.end(), candidate, candidate + std::string_view(candidate).size(),
                      [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); });
  };
  for (const Row& row : rows()) {
    if (same(row.name)) return row;
  }
  throw UsageError(fmt::format("there is no row '{}'; the rows are {}", name, row_names()));
}

std::string row_names() {
  std::vector<std::string> names;
  for (const Row& row : rows()) names.emplace_back(row.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace goshawk
