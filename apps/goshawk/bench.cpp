// goshawk bench: how fast a model's forward pass, training step and Hessian-vector product are here.
#include <memory>

#include "apps/bench/command.hpp"
#include "apps/goshawk/commands.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/config_file.hpp"
#include "apps/support/progress.hpp"

namespace goshawk {
namespace {

void run(BenchCommand bench) {
  Progress progress("timing", bench_steps(bench));
  bench.options.progress = [&](std::int64_t done, const std::string& stage) { progress.update(done, stage); };
  const BenchReport report = run_bench(bench);
  progress.clear();
  print_result(bench.json ? bench_json(bench, report).dump() + "\n" : bench_table(bench, report));
}

}  // namespace

void add_bench_command(CLI::App& program) {
  const auto bench = std::make_shared<BenchCommand>();
  CLI::App& command =
      *program.add_subcommand("bench", "Time training, Hessian-vector products and traces of a model");
  add_bench_options(command, *bench);
  add_quiet_option(command);
  add_config_option(command);
  command.footer(bench_help() +
                 "\n\nExample:\n  goshawk bench --model resnet20 --batch 128 --threads 2 --json");
  command.callback([bench] { run(*bench); });
}

}  // namespace goshawk
