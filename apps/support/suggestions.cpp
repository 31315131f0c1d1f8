#include "apps/support/suggestions.hpp"

#include <algorithm>
#include <fmt/ranges.h>
#include <numeric>
#include <vector>

namespace goshawk {

// A row of the table at a time.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t k = 0; k < b.size(); ++k) {
      const std::size_t replaced = diagonal + (a[i] == b[k] ? 0 : 1);
      diagonal = row[k + 1];
      row[k + 1] = std::min({replaced, row[k] + 1, row[k + 1] + 1});
    }
  }
  return row.back();
}

std::string nearest_names(std::string_view wrong, std::span<const std::string> names, std::size_t count) {
  std::vector<std::string> sorted(names.begin(), names.end());
  std::stable_sort(sorted.begin(), sorted.end(), [&](const std::string& a, const std::string& b) {
    return edit_distance(wrong, a) < edit_distance(wrong, b);
  });
  sorted.resize(std::min(count, sorted.size()));
  for (std::string& name : sorted) name = fmt::format("'{}'", name);
  return fmt::format("{}", fmt::join(sorted, ", "));
}

}  // namespace goshawk
