#include "apps/bench/command.hpp"

#include "apps/bench/fma_limit.hpp"
#include "apps/support/command_line.hpp"
#include "core/parallel.hpp"
#include "models/registry.hpp"

namespace goshawk {

void add_bench_options(CLI::App& command, BenchCommand& bench) {
  BenchOptions& options = bench.options;
  command.add_option("--model", options.model, "Name of the model; see goshawk models")
      ->check(CLI::IsMember(model_names()).description(""))  // a list too long for the help
      ->type_name("NAME")
      ->capture_default_str();
  command.add_option("--batch", options.batch, "Images at a time")
      ->check(positive_number())
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option("--microbatch", options.microbatch,
                  "Images of a microbatch where batch norm is in eval mode; 0: by the size of the pictures "
                  "and the number of vectors")
      ->check(non_negative_number())
      ->type_name("N")
      ->capture_default_str();
  command
      .add_option("--graph-memory", options.graph_megabytes,
                  "MiB for gradient graphs that are kept between products where batch norm is in eval mode; "
                  "those of the other microbatches are built again for each product")
      ->check(non_negative_number())
      ->type_name("MIB")
      ->capture_default_str();
  command.add_option("--rounds", options.rounds, "Times that all stages are run in turn")
      ->check(positive_number())
      ->type_name("N")
      ->capture_default_str();
  command.add_option("--repetitions", options.repetitions, "Timed runs of each stage in a round")
      ->check(positive_number())
      ->type_name("N")
      ->capture_default_str();
  std::vector<std::string> names;
  for (const StageKind& kind : stage_kinds()) names.emplace_back(kind.name);
  CLI::Option* const only =
      command.add_option("--only", options.only, "Time only this stage (may be repeated)")
          ->delimiter(',')
          ->check(CLI::IsMember(names))
          ->type_name("STAGE");
  command
      .add_option(
          "--compare", bench.compare,
          "Instead of --only: run these stages once each in turn, --rounds times --repetitions turns, and "
          "compare their rates with the first one's; @N: with microbatches of N images")
      ->excludes(only)
      ->delimiter(',')
      ->check([](const std::string& text) {
        try {
          compared_kind(text);
          return std::string();
        } catch (const Error& error) {
          return std::string(error.what());
        }
      })
      ->type_name("STAGE[@N]");
  command.add_flag("--json", bench.json, "Print one JSON object");
  add_threads_option(command);
  add_convolution_option(command, bench.convolution);
}

std::string bench_help() {
  std::string text =
      "Operations are counted as those the convolutions and linear layers need at least (a gradient is 3 "
      "forward passes, a Hessian-vector product 6).\n\nStages:";
  // The second column is that of the options' descriptions.
  for (const StageKind& kind : stage_kinds()) text += fmt::format("\n  {:<32}{}", kind.name, kind.what);
  return text;
}

BenchReport run_bench(const BenchCommand& bench) {
  choose_convolution(bench.convolution);
  BenchReport report;
  report.fma_limit = fma_limit_gflops();
  if (bench.compare.empty()) {
    report.stages = run_stages(bench.options);
    return report;
  }
  std::vector<ComparedKind> kinds;
  for (const std::string& text : bench.compare) kinds.push_back(compared_kind(text));
  report.compared = compare_stages(bench.options, kinds, bench.options.rounds * bench.options.repetitions);
  return report;
}

std::int64_t bench_steps(const BenchCommand& bench) {
  const BenchOptions& options = bench.options;
  if (!bench.compare.empty()) return std::int64_t{options.rounds} * options.repetitions + 1;
  const std::size_t stages = options.only.empty() ? stage_kinds().size() : options.only.size();
  return static_cast<std::int64_t>(stages) * options.rounds;
}

nlohmann::ordered_json bench_json(const BenchCommand& bench, const BenchReport& report) {
  nlohmann::ordered_json json{{"model", bench.options.model},
                              {"batch", bench.options.batch},
                              {"threads", num_threads()},
                              {"fma_limit_gflops", report.fma_limit}};
  for (const StageResult& r : report.stages) {
    json[r.name] = {{"images_per_second", r.images_per_second},
                    {"milliseconds", r.seconds * 1e3},
                    {"gflops", r.gflops},
                    {"share_of_fma_limit", r.gflops / report.fma_limit},
                    {"peak_rss_mb", r.peak_rss_mb},
                    {"peak_tensor_mb", r.peak_tensor_mb},
                    {"allocations", r.allocations},
                    {"system_allocations", r.system_allocations}};
  }
  for (const ComparedStage& c : report.compared) {
    json["compared"].push_back({{"stage", c.text},
                                {"images_per_second", c.images_per_second},
                                {"ratio", c.ratio},
                                {"ratio_quartiles", c.ratio_quartiles}});
  }
  return json;
}

std::string bench_table(const BenchCommand& bench, const BenchReport& report) {
  std::string text = fmt::format("{}, batch {}, {} threads, FMA limit {:.0f} GFLOP/s\n", bench.options.model,
                                 bench.options.batch, num_threads(), report.fma_limit);
  if (!report.compared.empty()) {
    text += fmt::format("{:<28}{:>10}{:>14}{:>18}\n", "stage", "images/s", "median ratio", "quartiles");
    for (const ComparedStage& c : report.compared) {
      text += fmt::format("{:<28}{:>10.1f}{:>14.3f}{:>10.3f}{:>8.3f}\n", c.text, c.images_per_second, c.ratio,
                          c.ratio_quartiles[0], c.ratio_quartiles[1]);
    }
    return text;
  }
  text += fmt::format("{:<20}{:>10}{:>12}{:>10}{:>9}{:>10}{:>13}{:>14}\n", "stage", "ms", "images/s",
                      "GFLOP/s", "of limit", "RSS, MB", "allocations", "of the system");
  for (const StageResult& r : report.stages) {
    text += fmt::format("{:<20}{:>10.1f}{:>12.1f}{:>10.0f}{:>8.0f}%{:>10.0f}{:>13.0f}{:>14.0f}\n", r.name,
                        r.seconds * 1e3, r.images_per_second, r.gflops, 100 * r.gflops / report.fma_limit,
                        r.peak_rss_mb, r.allocations, r.system_allocations);
  }
  return text;
}

}  // namespace goshawk
