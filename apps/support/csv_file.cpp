#include "apps/support/csv_file.hpp"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "core/error.hpp"
#include "core/file.hpp"

namespace goshawk {

std::vector<std::vector<double>> read_csv(const std::string& path, const std::string& head) {
  std::istringstream lines(read_file(path));
  std::string line;
  check(std::getline(lines, line) && line == head, "[csv] {}: the first line must be \"{}\"", path, head);
  const auto width = static_cast<std::size_t>(std::count(head.begin(), head.end(), ',')) + 1;
  std::vector<std::vector<double>> rows;
  while (std::getline(lines, line)) {
    std::vector<double>& row = rows.emplace_back();
    const char* at = line.data();
    const char* const end = at + line.size();
    bool good = true;
    while (good) {
      const auto [next, status] = std::from_chars(at, end, row.emplace_back());
      good = status == std::errc() && row.size() <= width;
      at = next;
      if (at == end) break;
      good = good && *at == ',';
      ++at;
    }
    check(good && row.size() == width, "[csv] {}: line {} is not {} numbers", path, rows.size() + 1, width);
  }
  return rows;
}

}  // namespace goshawk
