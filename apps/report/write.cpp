#include "apps/report/write.hpp"

#include <filesystem>
#include <variant>

#include "apps/report/sections.hpp"
#include "apps/support/progress.hpp"
#include "core/file.hpp"

namespace goshawk {
namespace {

/// Of figures in files of their own.
constexpr double kFileWidth = 640, kSmallFileWidth = 420, kPanelsFileWidth = 960;

}  // namespace

ReportFiles write_report(const std::string& run, const std::string& out) {
  const ReportPage page = report_page(read_report_run(run));
  const std::filesystem::path directory = out;
  make_directories((directory / "figures").string());
  ReportFiles files{.html = (directory / "report.html").string()};
  for (const ReportSection& section : page.sections) {
    for (const ReportBlock& block : section.blocks) {
      const auto* figure = std::get_if<ReportFigure>(&block);
      if (figure == nullptr) continue;
      const double width = !figure->figure.panels.empty() ? kPanelsFileWidth
                           : figure->small                ? kSmallFileWidth
                                                          : kFileWidth;
      write_file_atomic((directory / "figures" / (figure->name + ".svg")).string(),
                        to_svg(figure->figure, {.width = width, .standalone = true}));
      ++files.figures;
    }
  }
  write_file_atomic((directory / "report.md").string(), to_markdown(page));
  write_file_atomic(files.html, to_html(page));
  return files;
}

void finish_with_report(const std::string& run) {
  say(fmt::format("the run as a page to open in a browser: {}", write_report(run, run).html));
}

}  // namespace goshawk
