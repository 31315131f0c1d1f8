#include "quant/cost_allocation.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "core/error.hpp"
#include "quant/json_file.hpp"
#include "quant/knapsack.hpp"
#include "quant/sensitivities/joint_search.hpp"

namespace goshawk {
namespace {

using Items = std::vector<std::vector<KnapsackOption>>;

// What a budget can be of, in the files and in words.
struct Resource {
  const char* field;
  const char* unit;
  std::optional<double> (*amount)(const CostChoice&);
  std::optional<double> AllocationBudgets::*budget;
};
const Resource kResources[] = {
    {"bytes", "bytes", [](const CostChoice& c) { return std::optional(c.bytes); }, &AllocationBudgets::bytes},
    {"bops", "BOPs", [](const CostChoice& c) { return c.bops; }, &AllocationBudgets::bops},
    {"latency_ms", "ms", [](const CostChoice& c) { return c.latency_ms; }, &AllocationBudgets::latency_ms},
};

const CostChoice* choice_at(const LayerCosts& layer, int bits) {
  for (const CostChoice& choice : layer.choices) {
    if (choice.bits == bits) return &choice;
  }
  return nullptr;
}

// Layers that take the same width: a tied group, or one layer.
struct Group {
  std::vector<std::size_t> members;
  std::vector<int> widths;  // common to all members, growing
};

std::vector<Group> make_groups(const Costs& costs) {
  std::vector<Group> groups;
  std::map<std::string, std::size_t> tied;
  for (std::size_t i = 0; i < costs.layers.size(); ++i) {
    const LayerCosts& layer = costs.layers[i];
    std::vector<int> widths;
    for (const CostChoice& choice : layer.choices) {
      if (!layer.pinned || choice.bits == *layer.pinned) widths.push_back(choice.bits);
    }
    const auto known = tied.find(layer.tied);
    if (layer.tied.empty() || known == tied.end()) {
      if (!layer.tied.empty()) tied.emplace(layer.tied, groups.size());
      groups.push_back({{i}, std::move(widths)});
      continue;
    }
    Group& group = groups[known->second];
    group.members.push_back(i);
    std::vector<int> common;
    std::set_intersection(group.widths.begin(), group.widths.end(), widths.begin(), widths.end(),
                          std::back_inserter(common));
    check(!common.empty(),
          "[allocate] {}: layer '{}': \"choices\" shares no \"bits\" with the other layers \"tied\" in group "
          "'{}'; give them a common width",
          costs.source, layer.name, layer.tied);
    group.widths = std::move(common);
  }
  return groups;
}

// The groups as knapsack items, with the budgets' resources as sizes.
class Problem {
 public:
  Problem(const Costs& costs, const AllocationBudgets& budgets) : costs_(costs), groups_(make_groups(costs)) {
    for (const Resource& resource : kResources) {
      if (const std::optional<double> limit = budgets.*resource.budget) {
        check(std::isfinite(*limit) && *limit >= 0, "[allocate] a budget of {} {} makes no sense", *limit,
              resource.unit);
        check(resources_.size() < kBudgets, "[allocate] {} budgets at once are too many; give one or two",
              resources_.size() + 1);
        budget_[resources_.size()] = *limit;
        resources_.push_back(&resource);
      }
    }
    for (const Group& group : groups_) {
      auto& item = items_.emplace_back();
      for (int bits : group.widths) item.push_back(option(group, bits));
    }
  }

  const Items& items() const { return items_; }
  const std::vector<Group>& groups() const { return groups_; }
  const Sizes& budget() const { return budget_; }

  // The least and the most that an assignment takes of resource k.
  std::pair<double, double> range(std::size_t k = 0) const {
    double least = 0, most = 0;
    for (const auto& item : items_) {
      const auto [low, high] = std::minmax_element(
          item.begin(), item.end(),
          [k](const KnapsackOption& a, const KnapsackOption& b) { return a.size[k] < b.size[k]; });
      least += low->size[k];
      most += high->size[k];
    }
    return {least, most};
  }

  void check_possible() const {
    for (std::size_t k = 0; k < resources_.size(); ++k) {
      const auto [least, most] = range(k);
      check(least <= budget_[k] * (1 + 1e-12),
            "[allocate] {}: no assignment fits {} {}: the smallest possible is {} and the largest {}; raise "
            "the "
            "budget or list narrower choices",
            costs_.source, budget_[k], resources_[k]->unit, least, most);
    }
    if (resources_.size() < 2) return;
    const std::optional<double> first = least_within(0);
    // Where it takes too much to know, the method says what it finds, which need not be the least.
    if (!first || *first <= budget_[0] * (1 + 1e-12)) return;
    const std::optional<double> second = least_within(1);
    fail(
        "[allocate] {}: no assignment fits both {} {} and {} {}: within the latter the smallest possible is "
        "{} {}{}; raise a budget",
        costs_.source, budget_[0], resources_[0]->unit, budget_[1], resources_[1]->unit, *first,
        resources_[0]->unit,
        second ? fmt::format(", within the former {} {}", *second, resources_[1]->unit) : "");
  }

 private:
  // The least of resource k that an assignment takes within the other one's budget; nothing where that takes
  // too much memory to find.
  std::optional<double> least_within(std::size_t k) const {
    Items items = items_;
    for (auto& item : items) {
      for (KnapsackOption& option : item) option.cost = option.size[k];
    }
    Sizes budget = budget_;
    budget[k] = kNoBudget;
    try {
      return solve_knapsack(items, budget).size[k];
    } catch (const TooManyPartialSolutions&) {
      return std::nullopt;
    }
  }

  KnapsackOption option(const Group& group, int bits) const {
    KnapsackOption sum;
    for (std::size_t i : group.members) {
      const LayerCosts& layer = costs_.layers[i];
      const CostChoice& choice = *choice_at(layer, bits);
      sum.cost += choice.cost;
      for (std::size_t k = 0; k < resources_.size(); ++k) {
        const std::optional<double> amount = resources_[k]->amount(choice);
        check(amount.has_value(),
              "[allocate] {}: layer '{}' lacks \"{}\" at {} bits, which the budget needs; add it",
              costs_.source, layer.name, resources_[k]->field, bits);
        sum.size[k] += *amount;
      }
    }
    return sum;
  }

  const Costs& costs_;
  std::vector<Group> groups_;
  std::vector<const Resource*> resources_;
  Sizes budget_ = {kNoBudget, kNoBudget};
  Items items_;
};

Problem possible_problem(const Costs& costs, const AllocationBudgets& budgets) {
  check(budgets.bytes || budgets.bops || budgets.latency_ms,
        "[allocate] there is no budget; give one or two");
  Problem problem(costs, budgets);
  problem.check_possible();
  return problem;
}

// The sensitivity that orders the groups.
std::vector<double> scores(const Costs& costs, const std::vector<Group>& groups) {
  const auto scored = [](const LayerCosts& layer) { return layer.score.has_value(); };
  const bool given = std::any_of(costs.layers.begin(), costs.layers.end(), scored);
  int width = 0;
  if (!given) {
    std::vector<int> shared;
    bool first = true;
    for (const Group& group : groups) {
      if (group.widths.size() < 2) continue;
      std::vector<int> common;
      std::set_intersection(group.widths.begin(), group.widths.end(), shared.begin(), shared.end(),
                            std::back_inserter(common));
      shared = first ? group.widths : common;
      first = false;
    }
    check(first || !shared.empty(),
          "[allocate] {}: the layers share no bit width at which their costs could be compared; give each a "
          "\"score\"",
          costs.source);
    if (!first) width = shared.front();
  }
  std::vector<double> scores;
  for (const Group& group : groups) {
    double sum = 0, parameters = 0;
    for (std::size_t i : group.members) {
      const LayerCosts& layer = costs.layers[i];
      const auto n = static_cast<double>(layer.parameters);
      parameters += n;
      if (group.widths.size() < 2) continue;
      check(!given || layer.score,
            "[allocate] {}: layer '{}' lacks \"score\", which other layers have; add it", costs.source,
            layer.name);
      sum += given ? *layer.score * n : choice_at(layer, width)->cost;
    }
    scores.push_back(sum / parameters);
  }
  return scores;
}

// The groups as monotone items: by falling score, with an option for every width that occurs. A group with
// one width has that at every level and stands first, where it limits no other.
struct MonotoneProblem {
  Items items;
  std::vector<std::size_t> group;         // of each item
  std::vector<std::vector<int>> options;  // of the group, at each level
};

MonotoneProblem make_monotone(const Costs& costs, const Problem& problem) {
  const std::vector<Group>& groups = problem.groups();
  const std::vector<double> score = scores(costs, groups);
  std::set<int> levels;
  for (const Group& group : groups) {
    if (group.widths.size() > 1) levels.insert(group.widths.begin(), group.widths.end());
  }
  if (levels.empty()) levels.insert(0);
  MonotoneProblem monotone;
  monotone.group.resize(groups.size());
  std::iota(monotone.group.begin(), monotone.group.end(), std::size_t{0});
  std::stable_sort(monotone.group.begin(), monotone.group.end(), [&](std::size_t a, std::size_t b) {
    const bool free_a = groups[a].widths.size() > 1, free_b = groups[b].widths.size() > 1;
    return free_a != free_b ? free_b : free_a && score[a] > score[b];
  });
  for (std::size_t g : monotone.group) {
    auto& item = monotone.items.emplace_back();
    auto& options = monotone.options.emplace_back();
    for (int level : levels) {
      const auto& widths = groups[g].widths;
      const auto wider = std::upper_bound(widths.begin(), widths.end(), level);
      options.push_back(wider == widths.begin() ? 0 : static_cast<int>(wider - widths.begin()) - 1);
      item.push_back(problem.items()[g][static_cast<std::size_t>(options.back())]);
    }
  }
  return monotone;
}

// How many assignments are monotone; nothing where the groups have different widths to choose from.
std::optional<double> monotone_candidates(const std::vector<Group>& groups) {
  const std::vector<int>* widths = nullptr;
  std::int64_t free = 0;
  for (const Group& group : groups) {
    if (group.widths.size() < 2) continue;
    if (widths != nullptr && *widths != group.widths) return std::nullopt;
    widths = &group.widths;
    ++free;
  }
  return monotone_count(free, widths == nullptr ? 1 : static_cast<std::int64_t>(widths->size()));
}

// The choice of each group from the levels of the monotone items.
std::vector<int> group_choices(const MonotoneProblem& monotone, const std::vector<int>& levels) {
  std::vector<int> choice(monotone.group.size());
  for (std::size_t i = 0; i < choice.size(); ++i) {
    choice[monotone.group[i]] = monotone.options[i][static_cast<std::size_t>(levels[i])];
  }
  return choice;
}

// HAWQ's order, in waves; see AllocationMethod::ratio.
KnapsackSolution ratio_rule(const Items& items, const Sizes& budget) {
  std::vector<int> choice(items.size(), 0);
  KnapsackSolution now = knapsack_solution(items, choice);
  check(fits(now.size, budget),
        "[allocate] the narrowest widths do not fit the budget; use the exact method");
  for (std::size_t level = 1; !items.empty() && level < items.front().size(); ++level) {
    for (std::size_t i = 0; i < items.size(); ++i) {
      choice[i] = static_cast<int>(level);
      KnapsackSolution more = knapsack_solution(items, choice);
      if (!fits(more.size, budget)) return now;
      now = std::move(more);
    }
  }
  return now;
}

// The joint cost as a function of the groups' widths.
PairwiseCost joint_cost_of_groups(const Costs& costs, const Problem& problem) {
  check(
      !costs.pairs.empty(),
      "[allocate] {}: there are no \"pair_costs\", which the joint method needs; make the file with goshawk "
      "sensitivity --cost joint",
      costs.source);
  std::vector<std::size_t> options;
  std::vector<double> own;
  for (const LayerCosts& layer : costs.layers) {
    options.push_back(layer.choices.size());
    for (const CostChoice& choice : layer.choices) own.push_back(choice.cost);
  }
  std::vector<PairwiseCost::Group> groups;
  for (const Group& group : problem.groups()) {
    PairwiseCost::Group& joined = groups.emplace_back();
    joined.members = group.members;
    for (int bits : group.widths) {
      auto& option = joined.options.emplace_back();
      for (std::size_t i : group.members) {
        const std::vector<CostChoice>& choices = costs.layers[i].choices;
        option.push_back(static_cast<int>(choice_at(costs.layers[i], bits) - choices.data()));
      }
    }
  }
  return PairwiseCost(std::move(options), std::move(own), costs.pairs).grouped(groups);
}

std::vector<int> search_jointly(const PairwiseCost& cost, const Problem& problem) {
  std::vector<std::vector<Sizes>> sizes;
  std::vector<std::vector<double>> separable;  // the own costs of groups have the pairs within them
  for (const auto& item : problem.items()) {
    auto& item_sizes = sizes.emplace_back();
    auto& item_costs = separable.emplace_back();
    for (const KnapsackOption& option : item) {
      item_sizes.push_back(option.size);
      item_costs.push_back(option.cost);
    }
  }
  return minimize_joint_cost(cost, sizes, problem.budget(), {separable}).choice;
}

std::vector<int> solve(const Costs& costs, const Problem& problem, AllocationMethod method,
                       const std::optional<KnapsackSolution>& exact) {
  if (method == AllocationMethod::exact) return exact.value().choice;
  if (method == AllocationMethod::greedy) {
    const std::optional<KnapsackSolution> greedy = greedy_knapsack(problem.items(), problem.budget());
    check(
        greedy.has_value(),
        "[allocate] {}: the greedy method's start, the smallest choices, does not fit both budgets; use the "
        "exact method",
        costs.source);
    return greedy->choice;
  }
  const MonotoneProblem monotone = make_monotone(costs, problem);
  const KnapsackSolution solution =
      method == AllocationMethod::ratio
          ? ratio_rule(monotone.items, problem.budget())
          : solve_knapsack(monotone.items, problem.budget(), Assignments::monotone);
  return group_choices(monotone, solution.choice);
}

// `choice`: the option of each group.
FrontierPoint frontier_point(const Costs& costs, const Problem& problem, const KnapsackSolution& solution,
                             const std::vector<int>& choice) {
  FrontierPoint point{.bytes = solution.size[0], .objective = solution.cost};
  point.bits.resize(costs.layers.size());
  for (std::size_t g = 0; g < choice.size(); ++g) {
    const Group& group = problem.groups()[g];
    for (std::size_t i : group.members) point.bits[i] = group.widths[static_cast<std::size_t>(choice[g])];
  }
  return point;
}

const std::pair<const char*, AllocationMethod> kMethods[] = {{"ratio", AllocationMethod::ratio},
                                                             {"pareto", AllocationMethod::pareto},
                                                             {"greedy", AllocationMethod::greedy},
                                                             {"exact", AllocationMethod::exact},
                                                             {"joint", AllocationMethod::joint}};

}  // namespace

AllocationMethod allocation_method(std::string_view name) {
  for (const auto& [known, method] : kMethods) {
    if (name == known) return method;
  }
  fail("[allocate] there is no method '{}'; use ratio, pareto, greedy, exact or joint", name);
}

void check_budgets(const Costs& costs, const AllocationBudgets& budgets) {
  possible_problem(costs, budgets);
}

CostAllocation allocate(const Costs& costs, AllocationMethod method, const AllocationBudgets& budgets) {
  const Problem problem = possible_problem(costs, budgets);
  std::optional<KnapsackSolution> exact;
  try {
    exact = solve_knapsack(problem.items(), problem.budget());
  } catch (const TooManyPartialSolutions&) {
    // To the other methods it is only something to be compared with.
    if (method == AllocationMethod::exact || method == AllocationMethod::joint) throw;
  }
  std::optional<PairwiseCost> joint;
  if (method == AllocationMethod::joint || !costs.pairs.empty()) joint = joint_cost_of_groups(costs, problem);
  const std::vector<int> choice = method == AllocationMethod::joint ? search_jointly(*joint, problem)
                                                                    : solve(costs, problem, method, exact);

  CostAllocation allocation;
  allocation.budgets = budgets;
  allocation.objective = knapsack_solution(problem.items(), choice).cost;
  if (joint) {
    allocation.joint_objective = joint->cost(choice);
    if (exact) allocation.separable_joint_objective = joint->cost(exact->choice);
    if (method == AllocationMethod::joint) allocation.objective = *allocation.joint_objective;
  }
  if (exact) allocation.exact_objective = exact->cost;
  allocation.bound = knapsack_bound(problem.items(), problem.budget());
  if (method == AllocationMethod::pareto) allocation.candidates = monotone_candidates(problem.groups());
  allocation.bops = allocation.latency_ms = 0;
  for (const auto& [name, known] : kMethods) {
    if (known == method) allocation.method = name;
  }
  allocation.layers.resize(costs.layers.size());
  const auto add = [](std::optional<double>& sum, const std::optional<double>& amount) {
    sum = sum && amount ? std::optional(*sum + *amount) : std::nullopt;
  };
  for (std::size_t g = 0; g < choice.size(); ++g) {
    const Group& group = problem.groups()[g];
    const int bits = group.widths[static_cast<std::size_t>(choice[g])];
    for (std::size_t i : group.members) {
      const CostChoice& chosen = *choice_at(costs.layers[i], bits);
      allocation.layers[i] = {costs.layers[i].name, bits};
      allocation.bytes += chosen.bytes;
      add(allocation.bops, chosen.bops);
      add(allocation.latency_ms, chosen.latency_ms);
    }
  }
  return allocation;
}

std::vector<FrontierPoint> monotone_frontier(const Costs& costs) {
  // An unlimited budget of bytes makes them the size.
  const Problem problem(costs, {.bytes = std::numeric_limits<double>::max()});
  const MonotoneProblem monotone = make_monotone(costs, problem);
  std::vector<FrontierPoint> frontier;
  for (const KnapsackSolution& s : knapsack_frontier(monotone.items, Assignments::monotone)) {
    frontier.push_back(frontier_point(costs, problem, s, group_choices(monotone, s.choice)));
  }
  return frontier;
}

std::vector<FrontierPoint> exact_frontier(const Costs& costs, int count, const std::vector<double>& more) {
  check(count >= 2, "[exact_frontier] count is {} and must be at least 2", count);
  const Problem problem(costs, {.bytes = std::numeric_limits<double>::max()});
  const auto [least, most] = problem.range();
  std::vector<double> budgets = more;
  for (int k = 0; k < count; ++k) budgets.push_back(least + (most - least) * k / (count - 1));
  std::sort(budgets.begin(), budgets.end());
  std::vector<FrontierPoint> frontier;
  for (const double bytes : budgets) {
    if (!fits({least, 0}, {bytes, 0})) continue;
    const KnapsackSolution best = solve_knapsack(problem.items(), {bytes, kNoBudget});
    if (!frontier.empty() && best.cost >= frontier.back().objective) continue;
    frontier.push_back(frontier_point(costs, problem, best, best.choice));
  }
  return frontier;
}

double monotone_count(std::int64_t layers, std::int64_t widths) {
  double count = 1;
  for (std::int64_t k = 1; k < widths; ++k) {
    count = count * static_cast<double>(layers + k) / static_cast<double>(k);
  }
  return std::round(count);
}

bool is_joint(const CostAllocation& allocation) {
  return allocation.method == "joint";
}

std::string to_json(const CostAllocation& allocation) {
  nlohmann::ordered_json json;
  json["method"] = allocation.method;
  json["objective"] = allocation.objective;
  json["bytes"] = allocation.bytes;
  if (allocation.bops) json["bops"] = *allocation.bops;
  if (allocation.latency_ms) json["latency_ms"] = *allocation.latency_ms;
  json["budget"] = nlohmann::ordered_json::object();
  for (const Resource& resource : kResources) {
    if (const std::optional<double> limit = allocation.budgets.*resource.budget) {
      json["budget"][resource.field] = *limit;
    }
  }
  if (allocation.joint_objective) {
    json["joint_objective"] = *allocation.joint_objective;
    if (allocation.separable_joint_objective) {
      json["separable_joint_objective"] = *allocation.separable_joint_objective;
    }
  }
  if (allocation.candidates) json["candidates"] = *allocation.candidates;
  if (!is_joint(allocation)) {
    if (allocation.exact_objective) {
      json["exact_objective"] = *allocation.exact_objective;
      json["gap_to_exact"] = allocation.objective - *allocation.exact_objective;
    }
    json["lp_bound"] = allocation.bound;
    json["gap_to_lp"] = allocation.objective - allocation.bound;
  }
  json["layers"] = nlohmann::ordered_json::array();
  for (const CostAllocation::Layer& layer : allocation.layers) {
    json["layers"].push_back({{"name", layer.name}, {"bits", layer.bits}});
  }
  return json_text(json);
}

}  // namespace goshawk
