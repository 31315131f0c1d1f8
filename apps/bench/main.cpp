#include <nlohmann/json.hpp>

#include "apps/bench/fma_limit.hpp"
#include "apps/bench/kernels.hpp"
#include "apps/bench/stages.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/program.hpp"
#include "core/parallel.hpp"
#include "models/registry.hpp"

namespace goshawk {
namespace {

nlohmann::ordered_json to_json(const BenchOptions& options, double limit,
                               const std::vector<StageResult>& results) {
  nlohmann::ordered_json json{{"model", options.model},
                              {"batch", options.batch},
                              {"threads", num_threads()},
                              {"fma_limit_gflops", limit}};
  for (const StageResult& r : results) {
    json[r.name] = {{"images_per_second", r.images_per_second},
                    {"milliseconds", r.seconds * 1e3},
                    {"gflops", r.gflops},
                    {"share_of_fma_limit", r.gflops / limit},
                    {"peak_rss_mb", r.peak_rss_mb},
                    {"peak_tensor_mb", r.peak_tensor_mb},
                    {"allocations", r.allocations},
                    {"system_allocations", r.system_allocations}};
  }
  return json;
}

void print_table(const BenchOptions& options, double limit, const std::vector<StageResult>& results) {
  print_result("{}, batch {}, {} threads, FMA limit {:.0f} GFLOP/s\n", options.model, options.batch,
               num_threads(), limit);
  print_result("{:<18}{:>10}{:>12}{:>10}{:>9}{:>10}{:>13}{:>14}\n", "stage", "ms", "images/s", "GFLOP/s",
               "of limit", "RSS, MB", "allocations", "of the system");
  for (const StageResult& r : results) {
    print_result("{:<18}{:>10.1f}{:>12.1f}{:>10.0f}{:>8.0f}%{:>10.0f}{:>13.0f}{:>14.0f}\n", r.name,
                 r.seconds * 1e3, r.images_per_second, r.gflops, 100 * r.gflops / limit, r.peak_rss_mb,
                 r.allocations, r.system_allocations);
  }
}

}  // namespace
}  // namespace goshawk

int main(int argc, char** argv) {
  using namespace goshawk;
  return run_program("bench", [&] {
    BenchOptions options;
    bool json = false;
    std::string stages;
    for (const StageKind& kind : stage_kinds()) stages += fmt::format("\n  {:<18}{}", kind.name, kind.what);
    CLI::App program(
        "Times a model end to end on random pictures; operations are counted as those the convolutions and "
        "linear\n"
        "layers need at least (a gradient is 3 forward passes, a Hessian-vector product 6).\n\nStages:" +
            stages + "\n\nExample: bench --model resnet20 --batch 128 --threads 2 --json\n",
        "bench");
    set_up_command_line(program);
    program.option_defaults()->always_capture_default();
    program.add_option("--model", options.model, "Name of the model")->check(CLI::IsMember(model_names()));
    program.add_option("--batch", options.batch, "Images at a time")->check(CLI::PositiveNumber);
    program
        .add_option("--microbatch", options.microbatch,
                    "Images of a microbatch where batch norm is in eval mode; 0: by the size of the pictures")
        ->check(CLI::NonNegativeNumber);
    program
        .add_option("--graph-memory", options.graph_megabytes,
                    "MiB for gradient graphs that are kept between products where batch norm is in eval "
                    "mode; those of "
                    "the other microbatches are built again for each product")
        ->check(CLI::NonNegativeNumber);
    program.add_option("--rounds", options.rounds, "Times that all stages are run in turn")
        ->check(CLI::PositiveNumber);
    program.add_option("--repetitions", options.repetitions, "Timed runs of each stage in a round")
        ->check(CLI::PositiveNumber);
    std::vector<std::string> names;
    for (const StageKind& kind : stage_kinds()) names.emplace_back(kind.name);
    program.add_option("--only", options.only, "Time only this stage (may be repeated)")
        ->delimiter(',')
        ->check(CLI::IsMember(names));
    std::string filter;
    CLI::Option* const kernels =
        program
            .add_option("--kernels", filter,
                        "Time kernels instead: all, or those that match this regular expression")
            ->expected(0, 1)
            ->type_name("REGEX")
            ->default_str("");
    program.add_flag("--json", json, "Print one JSON object");
    add_threads_option(program);
    std::string convolution = "winograd";
    add_convolution_option(program, convolution);
    program.callback([&] {
      choose_convolution(convolution);
      const double limit = fma_limit_gflops();
      if (kernels->count() > 0) {
        run_kernel_benchmarks(filter, json, limit);
        return;
      }
      const std::vector<StageResult> results = run_stages(options);
      if (json) {
        print_result("{}\n", to_json(options, limit, results).dump(2));
      } else {
        print_table(options, limit, results);
      }
    });
    run_command_line(program, argc, argv);
    return 0;
  });
}
