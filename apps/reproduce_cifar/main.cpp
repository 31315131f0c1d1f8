#include "apps/reproduce_cifar/options.hpp"
#include "apps/reproduce_cifar/pipeline.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/interrupt.hpp"
#include "apps/support/program.hpp"
#include "apps/support/progress.hpp"

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
      const InterruptHandler on_interrupt("reproduce_cifar", resume_hint("reproduce_cifar", options.out));
      reproduce(options);
    });
    run_command_line(program, argc, argv);
    return 0;
  });
}
