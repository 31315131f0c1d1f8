#include "apps/goshawk/commands.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/program.hpp"

int main(int argc, char** argv) {
  return goshawk::run_program("goshawk", [&] {
    CLI::App program("Exact curvature and low-bit quantization of convolutional networks", "goshawk");
    goshawk::set_up_command_line(program);
    program.require_subcommand(1);
    program.footer(
        "goshawk SUBCOMMAND --help has its options and an example. Exit status: 0 success, 1 failure, 2 "
        "wrong "
        "usage, 130 interrupted (what there was is saved).");
    goshawk::add_models_command(program);
    goshawk::add_data_command(program);
    goshawk::add_train_command(program);
    goshawk::add_quantize_command(program);
    goshawk::add_evaluate_command(program);
    goshawk::add_sensitivity_command(program);
    goshawk::add_allocate_command(program);
    goshawk::add_finetune_command(program);
    goshawk::add_report_command(program);
    goshawk::add_curvature_command(program);
    goshawk::add_hvp_command(program);
    goshawk::add_bench_command(program);
    goshawk::add_completion_command(program);
    goshawk::run_command_line(program, argc, argv);
    return 0;
  });
}
