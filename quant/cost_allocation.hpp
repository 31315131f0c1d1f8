// From costs.json and budgets to bits: HAWQ's ratio rule, HAWQ-V2's monotone frontier, MPQCO's greedy and the
// exact optimum, on equal terms.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/costs.hpp"

namespace goshawk {

enum class AllocationMethod : std::uint8_t {
  /// HAWQ's rule: only the order of the sensitivities S = λ/n counts, a larger S gets no fewer bits. The
  /// paper
  /// leaves the widths open. Here they grow in waves: from the narrowest widths, each wave lifts the layers
  /// by
  /// falling S to the next width, until a layer does not fit. No cost enters.
  ratio,
  pareto,  ///< HAWQ-V2: the least cost among the assignments that are monotone in the sensitivities
  greedy,  ///< MPQCO; see greedy_knapsack
  exact,   ///< the least cost among all assignments
  /// The least joint cost that a local search finds, for costs with `pairs`; see minimize_joint_cost.
  joint,
};
/// Throws Error for an unknown name.
AllocationMethod allocation_method(std::string_view name);

/// At least one and at most two of them are set.
struct AllocationBudgets {
  std::optional<double> bytes = {}, bops = {}, latency_ms = {};
};

struct CostAllocation {
  std::string method;
  AllocationBudgets budgets;
  double objective = 0;             ///< Σ cost, of `joint` with what pairs add
  double bytes = 0;                 ///< Σ bytes
  std::optional<double> bops = {};  ///< Σ bops, when all layers list them
  std::optional<double> latency_ms = {};
  /// Σ cost of the exact optimum under the same budgets; nothing when it is too many to enumerate (see
  /// solve_knapsack).
  std::optional<double> exact_objective = {};
  double bound = 0;  ///< of the linear programme: below every Σ cost
  /// Of pareto: from how many monotone assignments it is chosen, C(L + m − 1, m − 1) for L layers (a tied
  /// group is one; those with one choice do not count) of m widths; nothing when their widths differ.
  std::optional<double> candidates = {};
  /// With what pairs add, for costs that have pairs: of this assignment, and of the separable optimum that
  /// the search started from.
  std::optional<double> joint_objective = {}, separable_joint_objective = {};
  struct Layer {
    std::string name;
    int bits = 0;
  };
  std::vector<Layer> layers = {};  ///< in the order of the costs
};

/// Ratio and pareto order the layers by `score`; when no layer has one, by the cost per weight at the
/// narrowest width that all layers with a choice share. For a tied group it is the mean over its weights.
/// Layers with one choice stay out of the order. A layer that lacks a width of the others takes its next
/// narrower one, or its narrowest. Throws Error naming the smallest and largest possible when a budget is
/// impossible, a tied group without a common width, and a field that a budget or the order needs and a layer
/// lacks.
CostAllocation allocate(const Costs& costs, AllocationMethod method, const AllocationBudgets& budgets);

/// Throws what allocate would when the budgets are impossible, or a layer lacks what they need. That depends
/// on sizes alone, so it can be asked before the costs are known. Of two budgets in rare cases only allocate
/// can say.
void check_budgets(const Costs& costs, const AllocationBudgets& budgets);

/// An assignment that no other one of its kind beats in both bytes and Σ cost.
struct FrontierPoint {
  double bytes = 0;
  double objective = 0;
  std::vector<int> bits = {};  ///< in the order of the costs
};
/// HAWQ-V2's frontier, that of the monotone assignments, by growing bytes.
std::vector<FrontierPoint> monotone_frontier(const Costs& costs);

/// Of the frontier of all assignments, which may have very many, those that are the exact optimum of a
/// budget: `count` ≥ 2 budgets of bytes evenly from the least to the most possible, and those of `more`. By
/// growing bytes and falling cost, each once. Budgets that nothing fits have none.
std::vector<FrontierPoint> exact_frontier(const Costs& costs, int count,
                                          const std::vector<double>& more = {});

/// How many assignments of `widths` to `layers` are monotone in a given order: C(layers + widths − 1,
/// widths − 1) (HAWQ-V2, section 3.2), as a double so that it cannot overflow.
double monotone_count(std::int64_t layers, std::int64_t widths);

/// Whether the objective is the joint cost, which has neither an exact optimum to compare with nor a bound.
bool is_joint(const CostAllocation& allocation);

/// The text of bits.json: {"method", "objective", "bytes", …, "layers": [{"name", "bits"}]}.
std::string to_json(const CostAllocation& allocation);

}  // namespace goshawk
