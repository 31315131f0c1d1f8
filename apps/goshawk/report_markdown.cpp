// A report as Markdown, with the figures in files beside it.
#include <fmt/format.h>

#include "apps/goshawk/report_page.hpp"
#include "apps/support/figure_text.hpp"
#include "apps/support/text_table.hpp"

namespace goshawk {
namespace {

// Text that Markdown leaves as it is, also names that look like markup. `cell`: within a table.
std::string plain(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (std::string_view("\\`*_[]|#").find(c) != std::string_view::npos) escaped += '\\';
    if (c == '<') {
      escaped += "&lt;";
    } else if (c == '&') {
      escaped += "&amp;";
    } else {
      escaped += c == '\n' ? ' ' : c;
    }
  }
  return escaped;
}

struct BlockWriter {
  std::string operator()(const ReportText& block) const { return plain(block.text) + "\n"; }

  std::string operator()(const ReportList& block) const {
    std::string text;
    for (const std::string& item : block.items) text += "- " + plain(item) + "\n";
    return text;
  }

  std::string operator()(const ReportCode& block) const {
    std::string text = "    ";
    for (const char c : block.code) text += c == '\n' ? std::string("\n    ") : std::string(1, c);
    return text + "\n";
  }

  std::string operator()(const ReportTable& block) const {
    std::vector<std::vector<std::string>> cells = block.rows;
    // Markdown has no groups of columns: the first column of each says which.
    std::size_t column = 0;
    for (const auto& [name, span] : block.groups) {
      if (column > 1 && !name.empty() && column < cells[0].size())
        cells[0][column] = name + ": " + cells[0][column];
      column += static_cast<std::size_t>(span);
    }
    for (auto& row : cells) {
      for (std::string& cell : row) cell = plain(cell);
    }
    return (block.folded ? plain(block.caption) + ":\n\n" : "") + text_table(cells) +
           (block.folded || block.caption.empty() ? "" : "\n" + plain(block.caption) + "\n");
  }

  std::string operator()(const ReportFigure& block) const {
    return fmt::format("![{}](figures/{}.svg)\n", plain(block.figure.title), block.name) +
           (block.caption.empty() ? "" : "\n" + plain(block.caption) + "\n");
  }
};

}  // namespace

std::string to_markdown(const ReportPage& page) {
  std::string text = "# " + plain(page.title) + "\n";
  if (!page.summary.empty()) text += "\n" + plain(page.summary) + "\n";
  if (!page.highlights.empty()) text += "\n";
  for (const auto& [what, value] : page.highlights)
    text += fmt::format("- {}: {}\n", plain(what), plain(value));
  for (const ReportSection& section : page.sections) {
    text += "\n## " + plain(section.title) + "\n";
    for (const ReportBlock& block : section.blocks) text += "\n" + std::visit(BlockWriter{}, block);
  }
  return text;
}

}  // namespace goshawk
