// Writes the report of a run: one page for people, and its figures.
#pragma once

#include <cstddef>
#include <string>

namespace goshawk {

/// What was written.
struct ReportFiles {
  std::string html;         ///< path of report.html, which needs nothing else
  std::size_t figures = 0;  ///< files figures/*.svg, which report.md shows
};

/// Reads the run directory `run` and writes report.html, report.md and figures/*.svg to `out`, which is made
/// where it is missing. Throws as read_report_run does, and Error when a file cannot be written.
ReportFiles write_report(const std::string& run, const std::string& out);

/// The last step of a run: writes its report to its own directory and says on standard error where it is.
void finish_with_report(const std::string& run);

}  // namespace goshawk
