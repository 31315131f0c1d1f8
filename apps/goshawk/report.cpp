// goshawk report: a run directory as a page for people.
#include <filesystem>
#include <memory>

#include "apps/goshawk/commands.hpp"
#include "apps/goshawk/report_sections.hpp"
#include "apps/support/command_line.hpp"
#include "core/file.hpp"

namespace goshawk {
namespace {

/// Of figures in files of their own.
constexpr double kFileWidth = 640, kSmallFileWidth = 420;

struct Options {
  std::string run, out;
};

void run(const Options& options) {
  const ReportPage page = report_page(read_report_run(options.run));
  const std::filesystem::path out = options.out.empty() ? options.run : options.out;
  make_directories((out / "figures").string());
  std::size_t figures = 0;
  for (const ReportSection& section : page.sections) {
    for (const ReportBlock& block : section.blocks) {
      const auto* figure = std::get_if<ReportFigure>(&block);
      if (figure == nullptr) continue;
      write_file_atomic((out / "figures" / (figure->name + ".svg")).string(),
                        to_svg(figure->figure,
                               {.width = figure->small ? kSmallFileWidth : kFileWidth, .standalone = true}));
      ++figures;
    }
  }
  write_file_atomic((out / "report.md").string(), to_markdown(page));
  write_file_atomic((out / "report.html").string(), to_html(page));
  print_result("{}: {} figure{}, also as report.md and figures/*.svg\n", (out / "report.html").string(),
               figures, figures == 1 ? "" : "s");
}

}  // namespace

void add_report_command(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App& command = *program.add_subcommand(
      "report", "A run directory as report.html, report.md and figures: tables, curvature, bits, curves");
  command
      .add_option(
          "run", options->run,
          "Directory that reproduce_cifar or goshawk curvature wrote; what is not there yet is left out")
      ->required()
      ->type_name("RUN");
  command.add_option("--out", options->out, "Directory to write to; default: RUN")->type_name("DIR");
  command.footer(
      "With the results of goshawk curvature in RUN/curvature the report also has the spectral density and "
      "the "
      "loss landscape. Example:\n  goshawk report runs/synthetic-resnet20-seed0");
  command.callback([options] { run(*options); });
}

}  // namespace goshawk
