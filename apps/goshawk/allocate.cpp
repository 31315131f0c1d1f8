// goshawk allocate: from the costs of every layer's choices and a budget to bits.
#include <memory>

#include "apps/goshawk/budgets.hpp"
#include "apps/goshawk/commands.hpp"
#include "apps/support/config_file.hpp"
#include "apps/support/figure_text.hpp"
#include "core/file.hpp"
#include "quant/json_file.hpp"

namespace goshawk {
namespace {

struct Options {
  std::string costs, method, out, frontier;
  BudgetOptions budgets;
  bool json = false;
};

std::string frontier_json(const std::vector<FrontierPoint>& frontier) {
  nlohmann::ordered_json json;
  json["frontier"] = nlohmann::ordered_json::array();
  for (const FrontierPoint& point : frontier) {
    json["frontier"].push_back(
        {{"bytes", point.bytes}, {"objective", point.objective}, {"bits", point.bits}});
  }
  return json_text(json);
}

void run(const Options& options) {
  options.budgets.check();
  check_apart({"--out", options.out}, {{"--costs", options.costs}, {"--frontier", options.frontier}});
  check_apart({"--frontier", options.frontier}, {{"--costs", options.costs}});
  const Costs costs = read_costs(options.costs);
  const CostAllocation allocation =
      allocate(costs, allocation_method(options.method), options.budgets.of(costs));
  if (!options.frontier.empty()) write_file_atomic(options.frontier, frontier_json(monotone_frontier(costs)));
  const std::string bits = to_json(allocation);
  write_file_atomic(options.out, bits);
  if (options.json) {
    print_result("{}\n", nlohmann::ordered_json::parse(bits).dump());
    return;
  }
  if (is_joint(allocation)) {
    print_result("joint: objective {:.6g}, {:.6g} bytes; of the separable optimum {:.6g}\n",
                 allocation.objective, allocation.bytes, *allocation.separable_joint_objective);
    return;
  }
  const std::string exact =
      allocation.exact_objective
          ? fmt::format("exact optimum {:.6g} (gap {:.3g})", *allocation.exact_objective,
                        allocation.objective - *allocation.exact_objective)
          : "the exact optimum takes too much memory to find";
  const std::string candidates = allocation.candidates
                                     ? fmt::format(", the cheapest of {} monotone assignments that fits",
                                                   with_thousands(*allocation.candidates))
                                     : "";
  print_result("{}: objective {:.6g}, {:.6g} bytes{}; {}, LP bound {:.6g} (gap {:.3g})\n", allocation.method,
               allocation.objective, allocation.bytes, candidates, exact, allocation.bound,
               allocation.objective - allocation.bound);
}

}  // namespace

void add_allocate_command(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App& command = *program.add_subcommand(
      "allocate", "Bits for every layer from the costs of its choices, under a budget");
  command.add_option("--costs", options->costs, "costs.json: for every layer what each bit width costs")
      ->required()
      ->type_name("FILE");
  command
      .add_option(
          "--method", options->method,
          "ratio (HAWQ: by the order of the sensitivities alone), pareto (HAWQ-V2: the cheapest that is "
          "monotone in them), greedy (MPQCO), exact, or joint (a search, for costs with pairs)")
      ->required()
      ->check(CLI::IsMember({"ratio", "pareto", "greedy", "exact", "joint"}))
      ->type_name("NAME");
  options->budgets.add_to([&](const char* name, std::optional<double>& budget, const char* help,
                              const char* type_name) -> CLI::Option& {
    return *command.add_option(fmt::format("--{}", name), budget, help)->type_name(type_name);
  });
  command.add_option("--out", options->out, "bits.json to write")->required()->type_name("FILE");
  command
      .add_option(
          "--frontier", options->frontier,
          "File for all points (bytes, objective, bits of the layers) of HAWQ-V2's frontier; for small "
          "networks")
      ->type_name("FILE");
  command.add_flag("--json", options->json, "Print one JSON object: that of the file of --out");
  add_config_option(command);
  command.footer(
      "Example:\n  goshawk allocate --costs costs.json --method exact --budget-ratio 10 --out bits.json");
  command.callback([options] { run(*options); });
}

}  // namespace goshawk
