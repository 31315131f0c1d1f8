#include "apps/support/text_table.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace goshawk {
namespace {

/// In characters of UTF-8; every one here takes one cell of a terminal.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

std::string text_table(const std::vector<std::vector<std::string>>& rows) {
  check(!rows.empty(), "[text_table] a table needs a head");
  std::vector<std::size_t> widths(rows.front().size(), 3);
  for (const auto& row : rows) {
    check(row.size() == widths.size(), "[text_table] a row has {} cells and the head {}", row.size(),
          widths.size());
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width(row[c]));
  }
  std::string text;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t c = 0; c < widths.size(); ++c) {
      const std::string space(widths[c] - width(rows[r][c]), ' ');
      text += c == 0 ? "| " + rows[r][c] + space + " |" : " " + space + rows[r][c] + " |";
    }
    text += "\n";
    if (r > 0) continue;
    for (std::size_t c = 0; c < widths.size(); ++c) {
      text += c == 0 ? "|" + std::string(widths[c] + 2, '-') + "|" : std::string(widths[c] + 1, '-') + ":|";
    }
    text += "\n";
  }
  return text;
}

}  // namespace goshawk
