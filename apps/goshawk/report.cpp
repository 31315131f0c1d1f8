// goshawk report: a run directory as a page for people.
#include <memory>

#include "apps/goshawk/commands.hpp"
#include "apps/report/write.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/config_file.hpp"

namespace goshawk {
namespace {

struct Options {
  std::string run, out;
};

void run(const Options& options) {
  const ReportFiles files = write_report(options.run, options.out.empty() ? options.run : options.out);
  print_result("{}: {} figure{}, also as report.md and figures/*.svg\n", files.html, files.figures,
               files.figures == 1 ? "" : "s");
}

}  // namespace

void add_report_command(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App& command = *program.add_subcommand(
      "report", "A run directory as report.html, report.md and figures: tables, curvature, bits, curves");
  command
      .add_option("run", options->run,
                  "Directory that reproduce_cifar, predict_loss or goshawk train, finetune, quantize or "
                  "curvature wrote; what is not there yet is left out")
      ->required()
      ->type_name("RUN");
  command.add_option("--out", options->out, "Directory to write to; default: RUN")->type_name("DIR");
  add_quiet_option(command);
  add_config_option(command);
  command.footer(
      "With the results of goshawk curvature in RUN/curvature the report also has the spectral density and "
      "the "
      "loss landscape. Example:\n  goshawk report runs/synthetic-resnet20-seed0");
  command.callback([options] { run(*options); });
}

}  // namespace goshawk
