// What the program bench and the subcommand goshawk bench share: options, the run, the report.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "apps/bench/compare.hpp"
#include "apps/bench/stages.hpp"
#include "apps/support/cli11.hpp"

namespace goshawk {

struct BenchCommand {
  BenchOptions options;
  std::vector<std::string>
      compare;  ///< not empty: compare these (see compared_kind) instead of timing stages
  std::string convolution = "winograd";
  bool json = false;
};

/// Adds the options; `bench` holds the defaults and must outlive the command.
void add_bench_options(CLI::App& command, BenchCommand& bench);

/// What is counted and a line for each stage, for the help.
std::string bench_help();

/// What was measured on this machine.
struct BenchReport {
  double fma_limit = 0;  ///< fma_limit_gflops()
  std::vector<StageResult> stages;
  std::vector<ComparedStage> compared;
};

/// How often the run tells its progress.
std::int64_t bench_steps(const BenchCommand& bench);

/// Measures the limit, then the stages, with `options` as the command line has them.
BenchReport run_bench(const BenchCommand& bench);

/// {"model", "batch", "threads", "fma_limit_gflops", STAGE: {"images_per_second", …}, …}, or of a comparison
/// {…, "compared": [{"stage", "images_per_second", "ratio", "ratio_quartiles"}, …]}.
nlohmann::ordered_json bench_json(const BenchCommand& bench, const BenchReport& report);
/// The same as a table for people.
std::string bench_table(const BenchCommand& bench, const BenchReport& report);

}  // namespace goshawk
