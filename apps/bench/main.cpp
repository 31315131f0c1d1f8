#include "apps/bench/command.hpp"
#include "apps/bench/kernels.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/program.hpp"

int main(int argc, char** argv) {
  using namespace goshawk;
  return run_program("bench", [&] {
    BenchCommand bench;
    CLI::App program("Times a model end to end on random pictures, as goshawk bench does, or kernels alone",
                     "bench");
    set_up_command_line(program);
    add_bench_options(program, bench);
    std::string filter;
    CLI::Option* const kernels =
        program
            .add_option("--kernels", filter,
                        "Time kernels instead: all, or those that match this regular expression")
            ->expected(0, 1)
            ->type_name("REGEX")
            ->default_str("");
    program.footer(bench_help() + "\n\nExample:\n  bench --model resnet20 --batch 128 --threads 2 --json");
    program.callback([&] {
      if (kernels->count() > 0) {
        choose_convolution(bench.convolution);
        run_kernel_benchmarks(filter, bench.json);
        return;
      }
      const BenchReport report = run_bench(bench);
      print_result(bench.json ? bench_json(bench, report).dump(2) + "\n" : bench_table(bench, report));
    });
    run_command_line(program, argc, argv);
    return 0;
  });
}
