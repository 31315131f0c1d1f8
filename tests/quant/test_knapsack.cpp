#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/error.hpp"
#include "core/random.hpp"
#include "quant/knapsack.hpp"
#include "quant/knapsack_parts.hpp"
#include "tests/quant/large_problems.hpp"
#include "tests/quant/processor_seconds.hpp"

using namespace goshawk;
using namespace goshawk::test;

namespace {

using Items = std::vector<std::vector<KnapsackOption>>;

// Few distinct values, so that ties and dominated options abound; some costs below zero.
KnapsackOption coarse_option(Random& random) {
  return {{static_cast<double>(random.below(8)), static_cast<double>(random.below(8))},
          static_cast<double>(random.below(12)) * 0.25 - 0.5};
}

Items coarse_items(Random& random, std::size_t options = 0) {
  Items items(1 + random.below(6));
  for (auto& item : items) {
    item.resize(options > 0 ? options : 1 + random.below(4));
    for (KnapsackOption& option : item) option = coarse_option(random);
  }
  return items;
}

void for_each_assignment(const Items& items, Assignments assignments,
                         const std::function<void(const KnapsackSolution&)>& visit) {
  std::vector<int> choice(items.size(), 0);
  while (true) {
    if (assignments == Assignments::all || std::is_sorted(choice.rbegin(), choice.rend())) {
      visit(knapsack_solution(items, choice));
    }
    std::size_t k = 0;
    while (k < choice.size() && ++choice[k] == static_cast<int>(items[k].size())) choice[k++] = 0;
    if (k == choice.size()) return;
  }
}

// For whole sizes: the least cost for every pair of amounts, one item after the other.
double least_cost_by_table(const Items& items, const Sizes& budget) {
  const auto rows = static_cast<std::size_t>(budget[0]) + 1,
             columns = static_cast<std::size_t>(budget[1]) + 1;
  std::vector<double> least(rows * columns, 0), next(rows * columns);
  for (const auto& item : items) {
    std::fill(next.begin(), next.end(), kNoBudget);
    for (const KnapsackOption& option : item) {
      const auto a = static_cast<std::size_t>(option.size[0]), b = static_cast<std::size_t>(option.size[1]);
      for (std::size_t r = a; r < rows; ++r) {
        for (std::size_t c = b; c < columns; ++c) {
          double& cost = next[r * columns + c];
          cost = std::min(cost, least[(r - a) * columns + c - b] + option.cost);
        }
      }
    }
    least.swap(next);
  }
  return least.back();
}

}  // namespace

TEST_CASE("exact, greedy and bound against brute force, with one budget, two and none, monotone or not") {
  Random random(3);
  int feasible = 0, impossible = 0, greedy_misses = 0;
  for (int trial = 0; trial < 600; ++trial) {
    const Assignments assignments = trial % 2 == 0 ? Assignments::all : Assignments::monotone;
    const Items items = coarse_items(random, assignments == Assignments::all ? 0 : 1 + random.below(4));
    Sizes budget = {static_cast<double>(random.below(30)), static_cast<double>(random.below(30))};
    if (trial % 3 == 0) budget[1] = kNoBudget;
    if (trial % 17 == 0) budget[0] = kNoBudget;
    double best_cost = kNoBudget;
    for_each_assignment(items, assignments, [&](const KnapsackSolution& s) {
      if (fits(s.size, budget)) best_cost = std::min(best_cost, s.cost);
    });
    if (best_cost == kNoBudget) {
      ++impossible;
      CHECK_THROWS_AS(solve_knapsack(items, budget, assignments), Error);
      continue;
    }
    ++feasible;
    const KnapsackSolution solution = solve_knapsack(items, budget, assignments);
    CHECK(solution.cost == best_cost);
    CHECK(fits(solution.size, budget));
    const KnapsackSolution again = knapsack_solution(items, solution.choice);
    CHECK(again.cost == solution.cost);
    CHECK(again.size == solution.size);
    if (assignments == Assignments::monotone) {
      CHECK(std::is_sorted(solution.choice.rbegin(), solution.choice.rend()));
    }
    CHECK(knapsack_bound(items, budget, assignments) <= best_cost + 1e-9);
    if (assignments == Assignments::all && budget[0] != kNoBudget && budget[1] == kNoBudget) {
      // Of equal costs the smaller; and the greedy always has a start.
      for_each_assignment(items, assignments, [&](const KnapsackSolution& s) {
        if (s.cost == best_cost) CHECK(s.size[0] >= solution.size[0]);
      });
      const KnapsackSolution greedy = greedy_knapsack(items, budget).value();
      CHECK(fits(greedy.size, budget));
      CHECK(greedy.cost >= best_cost);
      if (greedy.cost > best_cost) ++greedy_misses;
    }
  }
  CHECK(feasible > 200);
  CHECK(impossible > 50);
  CHECK(greedy_misses > 0);
  CHECK_THROWS_AS(solve_knapsack({{}}, {1, 1}), Error);
  CHECK_THROWS_AS(solve_knapsack({{{{-1, 0}, 1}}}, {1, 1}), Error);
  CHECK_THROWS_AS(solve_knapsack({{{{1, 0}, NAN}}}, {1, 1}), Error);
  CHECK_THROWS_WITH_AS(solve_knapsack({{{{1, 0}, 1}}}, {NAN, 1}), "[solve_knapsack] a budget is not a number",
                       Error);
  CHECK(solve_knapsack({}, {0, 0}).cost == 0);
}

TEST_CASE("the linear programme's bound by hand") {
  // Steps (size, gain): item 0 (1, 6), (2, 4); item 1 (2, 8); the option at size 2 of item 1 is above the
  // hull.
  const Items items = {{{{0, 0}, 10}, {{1, 0}, 4}, {{3, 0}, 0}}, {{{1, 0}, 9}, {{2, 0}, 8}, {{3, 0}, 1}}};
  CHECK(knapsack_bound(items, {1, kNoBudget}) == doctest::Approx(19));
  CHECK(knapsack_bound(items, {3, kNoBudget}) == doctest::Approx(13 - 4));
  CHECK(knapsack_bound(items, {5, kNoBudget}) == doctest::Approx(5 - 2));
  CHECK(knapsack_bound(items, {9, kNoBudget}) == doctest::Approx(1));
  const KnapsackSolution greedy = greedy_knapsack(items, {3, kNoBudget}).value();
  CHECK(greedy.choice == std::vector<int>{1, 0});
  CHECK(greedy.cost == 13);
  // The exact solution keeps item 0 small, which the greedy cannot: its most efficient step comes first.
  CHECK(solve_knapsack(items, {3, kNoBudget}).cost == 11);
}

TEST_CASE("a budget that only rounding keeps from the least sizes still has a bound") {
  Random random(11);
  for (int trial = 0; trial < 200; ++trial) {
    Items items(4 + random.below(20));
    double least = 0, cost = 0;
    for (auto& item : items) {
      const double size = random.uniform();
      item = {{{size, 0}, 1 + random.uniform()}, {{2 * size, 0}, random.uniform()}};
      least += size;
      cost += item[0].cost;
    }
    for (const Assignments assignments : {Assignments::all, Assignments::monotone}) {
      for (const double budget : {least, std::nextafter(least, 0.0)}) {
        CHECK(solve_knapsack(items, {budget, kNoBudget}, assignments).cost == doctest::Approx(cost));
        const double bound = knapsack_bound(items, {budget, kNoBudget}, assignments);
        CHECK(bound <= cost * (1 + 1e-12));
        CHECK(bound > cost - 1e-6);
      }
    }
  }
}

TEST_CASE("greedy under two budgets takes the steps that fit both, or has no start") {
  // By hand. Of item 0 the second option needs too much of the second budget; item 1's steps fit.
  const Items items = {{{{1, 1}, 9}, {{2, 9}, 1}}, {{{1, 1}, 5}, {{2, 2}, 2}, {{4, 3}, 1}}};
  const KnapsackSolution greedy = greedy_knapsack(items, {6, 5}).value();
  CHECK(greedy.choice == std::vector<int>{0, 2});
  CHECK(greedy.cost == 10);
  CHECK(greedy.size == Sizes{5, 4});
  CHECK_FALSE(greedy_knapsack(items, {6, 1}).has_value());
  CHECK_FALSE(greedy_knapsack(items, {1, 6}).has_value());
}

TEST_CASE("the frontier is that of brute force") {
  Random random(8);
  for (int trial = 0; trial < 100; ++trial) {
    const Assignments assignments = trial % 2 == 0 ? Assignments::all : Assignments::monotone;
    const Items items = coarse_items(random, 3);
    std::vector<std::pair<double, double>> points, expected;
    for_each_assignment(items, assignments,
                        [&](const KnapsackSolution& s) { points.emplace_back(s.size[0], s.cost); });
    std::sort(points.begin(), points.end());
    for (const auto& p : points) {
      if (expected.empty() || p.second < expected.back().second) expected.push_back(p);
    }
    std::vector<std::pair<double, double>> found;
    for (const KnapsackSolution& s : knapsack_frontier(items, assignments)) {
      found.emplace_back(s.size[0], s.cost);
    }
    CHECK(found == expected);
  }
}

TEST_CASE("the frontier of many items is that of a dynamic programme over whole sizes") {
  // Enough partial solutions that a search for one optimum would have pruned.
  Random random(31);
  Items items(40);
  for (auto& item : items) {
    for (int option = 0; option < 4; ++option) {
      item.push_back({{static_cast<double>(random.below(60)), 0}, static_cast<double>(random.below(1000))});
    }
  }
  constexpr double kNone = std::numeric_limits<double>::infinity();
  std::vector<double> best(std::size_t{40} * 60, kNone);  // least cost of each size
  best[0] = 0;
  for (const auto& item : items) {
    std::vector<double> next(best.size(), kNone);
    for (std::size_t size = 0; size < best.size(); ++size) {
      for (const KnapsackOption& option : item) {
        const std::size_t sum = size + static_cast<std::size_t>(option.size[0]);
        if (best[size] < kNone && sum < next.size())
          next[sum] = std::min(next[sum], best[size] + option.cost);
      }
    }
    best = next;
  }
  std::vector<std::pair<double, double>> found, expected;
  for (std::size_t size = 0; size < best.size(); ++size) {
    if (best[size] < kNone && (expected.empty() || best[size] < expected.back().second)) {
      expected.emplace_back(static_cast<double>(size), best[size]);
    }
  }
  for (const KnapsackSolution& s : knapsack_frontier(items)) found.emplace_back(s.size[0], s.cost);
  CHECK(expected.size() > 100);
  CHECK(found == expected);
}

TEST_CASE("divided at every turn, the search finds what brute force finds, of equal costs the smallest") {
  Random random(19);
  int ties = 0;
  for (int trial = 0; trial < 1500; ++trial) {
    CAPTURE(trial);
    Items items = coarse_items(random);
    if (trial % 3 == 0) {  // one item as large as all others together
      for (KnapsackOption& option : items[random.below(items.size())]) {
        option.size = {option.size[0] * 6, option.size[1] * 5};
        option.cost *= 6;
      }
    }
    if (trial % 5 == 0) {
      for (auto& item : items) {
        for (KnapsackOption& option : item) option.cost = 1;
      }
    }
    Sizes budget = {static_cast<double>(random.below(45)), static_cast<double>(random.below(45))};
    if (trial % 4 == 0) budget[1] = kNoBudget;
    std::optional<KnapsackSolution> best;
    int equal = 0;
    for_each_assignment(items, Assignments::all, [&](const KnapsackSolution& s) {
      if (!fits(s.size, budget)) return;
      equal = best && s.cost == best->cost ? equal + 1 : 1;
      if (!best || std::tie(s.cost, s.size) < std::tie(best->cost, best->size)) best = s;
    });
    const auto choice = detail::cheapest_choice(items, budget, {.easy = 2});
    REQUIRE(choice.has_value() == best.has_value());
    if (!best) continue;
    const KnapsackSolution solution = knapsack_solution(items, *choice);
    CHECK(solution.cost == best->cost);
    CHECK(solution.size[0] == best->size[0]);
    if (budget[1] != kNoBudget) CHECK(solution.size[1] == best->size[1]);
    ties += equal > 1 ? 1 : 0;
  }
  CHECK(ties > 100);
}

TEST_CASE("where all costs are equal, or as good as nothing, there is an answer") {
  Random random(29);
  Items items(60);
  for (auto& item : items) {
    item.resize(8);
    for (KnapsackOption& option : item) {
      option.size = {static_cast<double>(random.below(1000)), static_cast<double>(random.below(1000))};
    }
  }
  const Sizes budget = budget_at(items, {0.5, 0.5});
  CHECK(fits(solve_knapsack(items, budget).size, budget));
  const Items tiny(2, {{{2e-174, 1e-174}, 0}});
  CHECK_THROWS_AS(solve_knapsack(tiny, {3e-174, kNoBudget}), Error);
  CHECK_THROWS_AS(solve_knapsack(tiny, {3e-174, kNoBudget}, Assignments::monotone), Error);
}

TEST_CASE("what fits only by the rounding of a budget, and options a billion times as large") {
  const KnapsackSolution least =
      solve_knapsack({{{{1, 0}, 1}, {{2, 0}, 0.5}}}, {1 - 0.9 * kBudgetRounding, kNoBudget});
  CHECK(least.choice == std::vector{0});
  // As a difference from the first option, the second item's would be rounded to the budget's tenth digit.
  Random random(23);
  for (int trial = 0; trial < 300; ++trial) {
    CAPTURE(trial);
    Items items(6);
    for (auto& item : items) {
      double cost = 2 * random.uniform();
      const double size = random.uniform();
      for (int b = 3; b > 0; --b, cost *= 4) item.push_back({{size * b, 0}, cost});
    }
    items[2] = {{{1e9 * (0.5 + random.uniform()), 0}, 0}, {{0.1, 0}, 10}};
    double budget = 0.1;
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i != 2) budget += items[i][random.below(3)].size[0];
    }
    double best = kNoBudget;
    for_each_assignment(items, Assignments::all, [&](const KnapsackSolution& s) {
      if (fits(s.size, {budget, kNoBudget})) best = std::min(best, s.cost);
    });
    const KnapsackSolution solution = solve_knapsack(items, {budget, kNoBudget});
    CHECK(fits(solution.size, {budget, kNoBudget}));
    CHECK(solution.cost == doctest::Approx(best).epsilon(1e-12));
  }
}

TEST_CASE("two budgets of whole numbers, where near-optimal choices abound, against a table of all sizes") {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    Items items(60);
    for (auto& item : items) {
      item.resize(6);
      Sizes size{};
      for (KnapsackOption& option : item) {
        for (double& s : size) s += static_cast<double>(random.below(5));
        option = {size, 5 - 0.6 * size[0] - 0.4 * size[1] + 0.05 * random.uniform()};
      }
    }
    items[30] = {{{0, 0}, 0}, {{150, 160}, -160}, {{300, 200}, -290}, {{320, 330}, -360}};
    const Sizes budget = {static_cast<double>(300 + 40 * seed), static_cast<double>(300 + 35 * seed)};
    CHECK(solve_knapsack(items, budget).cost ==
          doctest::Approx(least_cost_by_table(items, budget)).epsilon(1e-12));
  }
}

TEST_CASE("one budget of whole numbers, in either place, against a table of all sizes") {
  for (int trial = 0; trial < 60; ++trial) {
    CAPTURE(trial);
    Random random(static_cast<std::uint64_t>(trial));
    const std::size_t k = trial % 2, most = trial % 5 == 0 ? 1000 : 20;
    Items items(trial % 4 == 0 ? 40 : 150);
    for (auto& item : items) {
      Sizes size{};
      for (int b = 1; b <= 6; ++b) {
        size[k] += static_cast<double>(1 + random.below(most));
        double cost = 200 - size[k] - 2 * b;                                 // whole,
        if (trial % 3 == 1) cost += 0.1 * random.uniform();                  // nearly,
        if (trial % 3 == 2) cost = -size[k] * (1 + 0.1 * random.uniform());  // and not at all
        item.push_back({size, cost});
      }
    }
    Sizes budget = budget_at(items, {0.3, 0.3});
    budget[k] = std::floor(budget[k]);
    budget[1 - k] = kNoBudget;
    Sizes table = budget;
    table[1 - k] = 0;
    const double cost = solve_knapsack(items, budget).cost;
    CHECK(cost == doctest::Approx(least_cost_by_table(items, table)).epsilon(1e-12));
    // Little patience: a known solution is no reason to stop before it is proved.
    const auto choice = detail::cheapest_choice(items, budget, {.easy = 50});
    REQUIRE(choice.has_value());
    CHECK(knapsack_solution(items, *choice).cost == doctest::Approx(cost).epsilon(1e-12));
  }
}

TEST_CASE("one budget, and a room that only the item that is taken up can fill") {
  Items items(3);
  for (int j = 0; j < 260; ++j) items[0].push_back({{4.0 * j, 0}, -4.0 * j});
  items[1] = {{{0, 0}, 0}, {{811, 0}, -811}};
  for (int j = 0; j < 260; ++j) items[2].push_back({{2.0 * j, 0}, -2.0 * j});
  CHECK(solve_knapsack(items, {1333, kNoBudget}).cost == -1333);
}

TEST_CASE("costs of nothing, and budgets that are just met") {
  const Items equal(3, {{{0.5, 0.6}, 0}, {{0.4, 0.6}, 0}});
  const Sizes budget = {1.3650000000000002, 1.7999999999999998};
  CHECK(fits(solve_knapsack(equal, budget).size, budget));
  const Items six(6, {{{2.974856085556151, 0.080000000000000016}, 0}, {{12, 0.05}, 0}});
  for (const Sizes& b :
       {Sizes{64, 0.34420234013262863}, Sizes{62.974856085556155 * (1 + 1e-9), 0.33 * (1 + 1e-9)}}) {
    CHECK(fits(solve_knapsack(six, b).size, b));
  }
}

TEST_CASE("a budget of a few tenths, and many that could be taken") {
  for (double size : {0.1, 0.7, 1.0 / 3}) {
    const Items items(2000, {{{size, 0}, -1}, {{0, 0}, 0}});
    CHECK(solve_knapsack(items, {size * 3, kNoBudget}).cost == -3);
  }
}

TEST_CASE("without a budget the smaller of two equally good options, and of a limited size the smaller") {
  const Items items = {{{{2, 1}, 1}, {{1, 1}, 1}, {{1, 2}, 1}}, {{{3, 3}, 0}, {{3, 2}, 0}}};
  CHECK(solve_knapsack(items, {kNoBudget, kNoBudget}).choice == std::vector{1, 1});
  CHECK(solve_knapsack(items, {kNoBudget, 5}).choice == std::vector{1, 1});
  CHECK(solve_knapsack(items, {5, kNoBudget}).choice == std::vector{1, 1});
}

TEST_CASE("a cost that stands for never, or that cannot be avoided, does not make all others equal") {
  for (const ProblemKind kind : {ProblemKind::squared_bops, ProblemKind::latencies}) {
    for (const double room : {0.3, kNoBudget}) {
      const Items layers = large_problem(kind, 54, 8, 3);
      const Sizes budget = budget_at(layers, {0.35, room});
      const KnapsackSolution optimum = solve_knapsack(layers, budget);
      Items never = layers;
      for (const std::size_t end : {std::size_t{0}, layers.size() - 1}) {
        const auto index = static_cast<std::size_t>(optimum.choice[end]);
        for (std::size_t j = 0; j < never[end].size(); ++j) {
          if (j != index) never[end][j].cost = 1e12;
        }
      }
      CHECK(solve_knapsack(never, budget).choice == optimum.choice);
      Items pinned = layers;
      pinned[5] = {pinned[5][static_cast<std::size_t>(optimum.choice[5])]};
      pinned[5][0].cost = 1e12;
      std::vector<int> choice = optimum.choice;
      choice[5] = 0;
      CHECK(solve_knapsack(pinned, budget).choice == choice);
    }
  }
}

TEST_CASE("a cost that stands for never, where greedy has no start under two budgets") {
  Items items = large_problem(ProblemKind::squared_bops, 30, 4, 3);
  const Sizes budget = budget_at(items, {0.4, 0.4});
  // The first layer's option that is small by the sum of both shares is too large for one of the budgets.
  items.insert(items.begin(), {{{0.45 * budget[0], 0}, 1}, {{0, 0.7 * budget[1]}, 1e12}});
  items.insert(items.begin(), {{{0, 0.45 * budget[1]}, 1}, {{0.7 * budget[0], 0}, 1e12}});
  REQUIRE(!greedy_knapsack(items, budget));
  Items possible = items;
  for (std::size_t i : {0, 1}) possible[i].pop_back();
  CHECK(solve_knapsack(items, budget).choice == solve_knapsack(possible, budget).choice);
}

TEST_CASE("a search that takes too much says how far it came, and keeps an optimum it knows") {
  const Items items = large_problem(ProblemKind::squared_bops, 60, 8, 1);
  const Sizes budget = budget_at(items, {0.3, 0.25});
  const auto limited = [&](std::size_t in_all) {
    return detail::cheapest_choice(items, budget, {.easy = 20, .ties = 0, .in_all = in_all});
  };
  try {
    limited(10);
    FAIL("there is no answer after ten partial solutions");
  } catch (const TooManyPartialSolutions& e) {
    CHECK_MESSAGE(
        std::string(e.what()).find("only show that the optimum costs at least") != std::string::npos,
        e.what());
  }
  const auto choice = limited(std::size_t{1} << 25);
  REQUIRE(choice.has_value());
  CHECK(knapsack_solution(items, *choice).cost == doctest::Approx(solve_knapsack(items, budget).cost));

  Items equal = items;  // the first solution is an optimum, and no other one is looked for
  for (auto& item : equal) {
    for (KnapsackOption& option : item) option.cost = 1;
  }
  const auto any = detail::cheapest_choice(equal, budget, {.easy = 20, .ties = 0});
  REQUIRE(any.has_value());
  CHECK(fits(knapsack_solution(equal, *any).size, budget));
}

namespace {

// Seconds for the optimum of a problem of a thousand layers; nothing when there is none.
std::optional<double> seconds_to_solve(const Items& layers, const Sizes& budget, Assignments assignments,
                                       double gap) {
  std::optional<KnapsackSolution> solution;
  const double seconds = processor_seconds([&] {
    try {
      solution = solve_knapsack(layers, budget, assignments);
    } catch (const TooManyPartialSolutions&) {
      throw;
    } catch (const Error&) {
    }
  });
  if (!solution) return std::nullopt;
  CHECK(fits(solution->size, budget));
  const double bound = knapsack_bound(layers, budget, assignments);
  CHECK(solution->cost >= bound * (1 - 1e-9));
  CHECK(solution->cost <= bound * (1 + gap));
  return seconds;
}

}  // namespace

TEST_CASE("a thousand layers of eight widths: a second is enough") {
  const auto solves = [](const Items& layers, const Sizes& budget, Assignments assignments, double gap) {
    const auto seconds = seconds_to_solve(layers, budget, assignments, gap);
    REQUIRE(seconds.has_value());
    CHECK(*seconds < kOneSecond);
  };
  const Items items = large_problem(ProblemKind::squared_bops, 1000, 8, 4);
  for (double share : {0.05, 0.3, 0.7}) {
    const Sizes budget = budget_at(items, {share, share * 0.6});
    solves(items, {budget[0], kNoBudget}, Assignments::all, 1e-4);
    solves(items, {kNoBudget, budget[1]}, Assignments::all, 1e-4);
  }
  // With two budgets nearly all: a few of a thousand problems take up to some seconds.
  int problems = 0, quick = 0;
  for (const ProblemKind kind :
       {ProblemKind::squared_bops, ProblemKind::linear_bops, ProblemKind::few_shapes}) {
    const Items layers = large_problem(kind, 1000, 8, 1);
    for (double share : {0.15, 0.3, 0.5, 0.7}) {
      for (double ratio : {0.6, 0.8, 1.0, 1.3}) {
        const Sizes budget = budget_at(layers, {share, share * ratio});
        const auto seconds = seconds_to_solve(layers, budget, Assignments::all, 2e-3);
        REQUIRE(seconds.has_value());
        ++problems;
        quick += *seconds < kOneSecond ? 1 : 0;
      }
    }
  }
  CHECK(quick >= 0.9 * problems);
  // An assignment that is monotone in the order of the costs per byte.
  Items ordered = items;
  std::sort(ordered.begin(), ordered.end(),
            [](const auto& a, const auto& b) { return a[0].cost / a[0].size[0] > b[0].cost / b[0].size[0]; });
  solves(ordered, {budget_at(ordered, {0.7, 0})[0], kNoBudget}, Assignments::monotone, 1e-2);
}

TEST_CASE("a thousand layers that are all alike in something: a second is enough") {
  for (const AlikeKind kind : kAlikeKinds) {
    CAPTURE(static_cast<int>(kind));
    const Items layers = alike_problem(kind, 1000, 8, 1);
    for (const Sizes& share : {Sizes{0.3, kNoBudget}, Sizes{0.5, 0.3}, Sizes{0.15, 0.12}}) {
      CAPTURE(share[0]);
      if (kind == AlikeKind::correlated && share[1] != kNoBudget) continue;
      const auto seconds = seconds_to_solve(layers, budget_at(layers, share), Assignments::all, 1e-2);
      REQUIRE(seconds.has_value());
      CHECK(*seconds < (kind == AlikeKind::correlated ? 3 : 1) * kOneSecond);
    }
  }
}

namespace {

// All problems at shares of what they can take: 5 of the first size, with these multiples of it for the
// second.
class Stopwatch {
 public:
  void solve(const Items& layers, const std::vector<double>& ratios) {
    for (double share : {0.05, 0.15, 0.3, 0.5, 0.7}) {
      for (double ratio : ratios) solve(layers, budget_at(layers, {share, share * ratio}));
    }
  }

  std::string summary() {
    std::sort(all_.begin(), all_.end());
    const auto below = [&](double limit) {
      return std::lower_bound(all_.begin(), all_.end(), limit) - all_.begin();
    };
    return fmt::format(
        "{} solved, {} impossible, {} given up; {} in a tenth of a second, {} in a second, the longest in "
        "{:.2f}",
        all_.size(), impossible_, given_up_, below(0.1), below(1), all_.empty() ? 0 : all_.back());
  }

 private:
  void solve(const Items& layers, const Sizes& budget) {
    try {
      if (const auto seconds = seconds_to_solve(layers, budget, Assignments::all, 1e-1))
        all_.push_back(*seconds);
      else
        ++impossible_;
    } catch (const TooManyPartialSolutions&) {
      ++given_up_;
    }
  }

  std::vector<double> all_;
  int impossible_ = 0, given_up_ = 0;
};

const std::vector<double> kOneBudget = {kNoBudget}, kTwoBudgets = {0.3, 0.6, 0.8, 1.0, 1.3};

}  // namespace

TEST_CASE("monotone, where a great many assignments are as cheap as any can be") {
  const Items layers = alike_problem(AlikeKind::in_proportion, 1000, 8, 3);
  const Sizes budget = budget_at(layers, {0.3, kNoBudget});
  const KnapsackSolution solution = solve_knapsack(layers, budget, Assignments::monotone);
  CHECK(fits(solution.size, budget));
  CHECK(std::is_sorted(solution.choice.rbegin(), solution.choice.rend()));
  // All costs are whole numbers: none is nearer to the bound.
  CHECK(solution.cost == std::ceil(knapsack_bound(layers, budget, Assignments::monotone) - 1e-3));
}

// Six minutes. test_quant_knapsack --no-skip --test-case='thousands of problems*' says what
// docs/allocation.md has.
TEST_CASE("thousands of problems of a thousand layers" * doctest::skip()) {
  Stopwatch one, two, alike_one, alike_two, correlated;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    for (const ProblemKind kind : kProblemKinds) {
      const Items layers = large_problem(kind, 1000, 8, seed);
      one.solve(layers, kOneBudget);
      two.solve(layers, kTwoBudgets);
    }
    for (const AlikeKind kind : kAlikeKinds) {
      const Items layers = alike_problem(kind, 1000, 8, seed);
      if (kind == AlikeKind::correlated) {
        correlated.solve(layers, kOneBudget);
      } else {
        alike_one.solve(layers, kOneBudget);
        alike_two.solve(layers, kTwoBudgets);
      }
    }
  }
  MESSAGE("one budget: ", one.summary());
  MESSAGE("two budgets: ", two.summary());
  MESSAGE("alike in something, one budget: ", alike_one.summary());
  MESSAGE("alike in something, two budgets: ", alike_two.summary());
  MESSAGE("costs that follow whole sizes, one budget: ", correlated.summary());
}
