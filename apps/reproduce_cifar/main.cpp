#include "apps/reproduce_cifar/options.hpp"
#include "apps/reproduce_cifar/pipeline.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/interrupt.hpp"
#include "apps/support/program.hpp"
#include "apps/support/progress.hpp"

namespace goshawk {
namespace {

/// What goes on with the same rows: config.json does not say which they are.
std::string hint(const CLI::App& program, const ReproduceOptions& options) {
  std::string text = resume_hint("reproduce_cifar", options.out);
  if (program.get_option("--only")->count() > 0)
    text += " --only " + shell_quoted(fmt::format("{}", fmt::join(options.only, ",")));
  if (program.get_option("--finetune-seeds")->count() > 0)
    text += fmt::format(" --finetune-seeds {}", options.finetune_seeds);
  return text;
}

}  // namespace
}  // namespace goshawk

int main(int argc, char** argv) {
  using namespace goshawk;
  return run_program("reproduce_cifar", [&] {
    ReproduceOptions options;
    CLI::App program(
        "Reproduces HAWQ's CIFAR-10 table: trains (or loads) the fp32 baseline, measures curvature, "
        "allocates bits,\n"
        "fine-tunes in order, and prints each row beside the paper's numbers.\n\n"
        "Example: reproduce_cifar --data cifar-10 --out runs/cifar-10 --seed 1\n",
        "reproduce_cifar");
    set_up_command_line(program);
    add_reproduce_options(program, options);
    program.callback([&] {
      complete_options(program, options);
      if (options.quiet) Progress::silence();
      const InterruptHandler on_interrupt("reproduce_cifar", hint(program, options));
      reproduce(options);
    });
    run_command_line(program, argc, argv);
    return 0;
  });
}
