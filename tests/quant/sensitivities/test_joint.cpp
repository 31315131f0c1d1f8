// The joint cost against the Gauss-Newton quadratic of the joined change, and its search against brute force.
#include <array>
#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <optional>

#include "autograd/curvature/gauss_newton.hpp"
#include "quant/sensitivities/joint_search.hpp"
#include "quant/sensitivities/quadratic.hpp"
#include "tests/quant/processor_seconds.hpp"
#include "tests/quant/sensitivities/small_model.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

/// Calls f for every choice of `options` options for each of `items` items.
template <class F>
void for_all_choices(std::size_t items, int options, const F& f) {
  std::vector<int> choice(items, 0);
  while (true) {
    f(choice);
    std::size_t i = 0;
    for (; i < items && ++choice[i] == options; ++i) choice[i] = 0;
    if (i == items) return;
  }
}

/// Random positive semidefinite pairs of a rank, own costs of half the diagonal plus a slope, and sizes.
struct RandomProblem {
  std::vector<std::vector<Sizes>> sizes;
  std::optional<PairwiseCost> cost;
  double least = 0, most = 0;

  RandomProblem(std::size_t items, std::size_t options, std::uint64_t seed) {
    Random random(seed, 0);
    const std::size_t k = items * options, rank = 6;
    std::vector<double> v(k * rank), own(k), pairs(k * k);
    for (std::size_t i = 0; i < items; ++i) {
      auto& size = sizes.emplace_back();
      const double n = std::floor(1 + 100 * random.uniform());
      least += 2 * n;
      most += 2 * n * static_cast<double>(options);
      for (std::size_t b = 0; b < options; ++b) {
        size.push_back({n * 2 * static_cast<double>(b + 1)});
        for (std::size_t r = 0; r < rank; ++r) {
          v[(i * options + b) * rank + r] = random.normal() / std::pow(2, b);
        }
      }
    }
    for (std::size_t a = 0; a < k; ++a) {
      for (std::size_t b = 0; b < k; ++b) {
        for (std::size_t r = 0; r < rank; ++r) pairs[a * k + b] += v[a * rank + r] * v[b * rank + r];
      }
      own[a] = pairs[a * k + a] / 2 + 0.2 * random.normal();
    }
    cost.emplace(std::vector<std::size_t>(items, options), own, pairs);
  }
};

}  // namespace

TEST_CASE("joint cost: the network's Gauss-Newton quadratic of the joined change plus the gradient's slope") {
  SmallModel model;
  const SensitivityData data = small_data(model, {3, 4});
  const WeightCandidates candidates = weight_candidates(data, {2, 3, 8}, {});
  const LogitChanges changes = candidate_changes(data, candidates);
  const PairwiseCost joint = joint_cost(candidates, changes);
  const GaussNewtonOperator gauss_newton(data.weights(), data.sizes(), data.pass());
  Vector gradient;
  for (const Variable& w : data.weights()) gradient.push_back(Tensor::zeros(w.shape(), DType::f64));
  for (std::size_t b = 0; b < 2; ++b) {
    const Variable loss = softmax_cross_entropy(model(data.images(b)), data.labels(b), Reduction::sum);
    const auto g = grad(loss, data.weights());
    for (std::size_t l = 0; l < g.size(); ++l) {
      for (std::int64_t i = 0; i < g[l].numel(); ++i) {
        gradient[l].data<double>()[i] += g[l].value().data<double>()[i] / 7;
      }
    }
  }
  double separable_differs = 0;
  for_all_choices(3, 3, [&](const std::vector<int>& choice) {
    Vector dw;
    std::vector<std::size_t> numbers;
    double separable = 0;
    for (std::size_t l = 0; l < 3; ++l) {
      dw.push_back(candidates.layers[l].changes[static_cast<std::size_t>(choice[l])]);
      numbers.push_back(joint.number(l, choice[l]));
      separable += changes.cost(numbers.back()).total();
    }
    const double expected = dot(gradient, dw) + dot(dw, gauss_newton.apply(dw)) / 2;
    CHECK(joint.cost(choice) == doctest::Approx(expected).epsilon(1e-9));
    CHECK(changes.cost(numbers).total() == doctest::Approx(expected).epsilon(1e-9));
    separable_differs = std::max(separable_differs, std::abs(separable - expected));
  });
  CHECK(separable_differs > 1e-3);
}

TEST_CASE("pairwise cost: groups choose together, pinned items have one option") {
  const RandomProblem problem(4, 3, 1);
  const std::vector<PairwiseCost::Group> groups{{.members = {0, 2}, .options = {{0, 0}, {1, 1}, {2, 2}}},
                                                {.members = {1}, .options = {{2}}},
                                                {.members = {3}, .options = {{0}, {2}}}};
  const PairwiseCost grouped = problem.cost->grouped(groups);
  CHECK(grouped.items() == 3);
  CHECK(grouped.size() == 6);
  for (int a = 0; a < 3; ++a) {
    for (int b = 0; b < 2; ++b) {
      CHECK(grouped.cost(std::vector{a, 0, b}) ==
            doctest::Approx(problem.cost->cost(std::vector{a, 2, a, 2 * b})).epsilon(1e-12));
    }
  }
  CHECK_THROWS_AS(problem.cost->grouped(std::vector{groups[0]}), Error);
  CHECK_THROWS_AS(problem.cost->cost(std::vector{0, 0, 0}), Error);
  CHECK_THROWS_AS(PairwiseCost({2}, {0, std::nan("")}, {0, 0, 0, 0}), Error);
}

TEST_CASE("the joint search finds what brute force finds, from a separable start that is worse") {
  int starts_were_worse = 0, found = 0, without_restarts = 0;
  constexpr int kProblems = 60;
  for (std::uint64_t seed = 0; seed < kProblems; ++seed) {
    const RandomProblem problem(7, 4, seed);
    const double budget =
        problem.least + (0.15 + 0.01 * static_cast<double>(seed)) * (problem.most - problem.least);
    double best = std::numeric_limits<double>::infinity();
    for_all_choices(7, 4, [&](const std::vector<int>& choice) {
      double size = 0;
      for (std::size_t i = 0; i < 7; ++i) size += problem.sizes[i][static_cast<std::size_t>(choice[i])][0];
      if (size <= budget) best = std::min(best, problem.cost->cost(choice));
    });
    const Sizes limit{budget, kNoBudget};
    const JointSolution solution = minimize_joint_cost(*problem.cost, problem.sizes, limit);
    const JointSolution descent =
        minimize_joint_cost(*problem.cost, problem.sizes, limit, {}, {.restarts = 0});
    CHECK(solution.cost == doctest::Approx(problem.cost->cost(solution.choice)));
    CHECK(solution.size[0] <= budget);
    CHECK(solution.cost <= descent.cost);
    CHECK(descent.cost <= descent.separable_cost);
    CHECK(solution.cost >= best - 1e-9);
    found += solution.cost < best + 1e-9;
    without_restarts += descent.cost < best + 1e-9;
    starts_were_worse += solution.separable_cost > best + 1e-9;
  }
  MESSAGE("optimum found in ", found, " of ", kProblems, " problems, by descent alone in ", without_restarts,
          "; the separable optimum was worse in ", starts_were_worse);
  CHECK(starts_were_worse > kProblems / 2);
  CHECK(found == kProblems);
}

TEST_CASE("the joint search repeats itself bit by bit and says when nothing fits") {
  const RandomProblem problem(9, 3, 3);
  const Sizes limit{(problem.least + problem.most) / 2, kNoBudget};
  const JointSolution a = minimize_joint_cost(*problem.cost, problem.sizes, limit, {}, {.seed = 4});
  const JointSolution b = minimize_joint_cost(*problem.cost, problem.sizes, limit, {}, {.seed = 4});
  CHECK(a.choice == b.choice);
  CHECK(a.cost == b.cost);
  CHECK(a.starts > 100);
  CHECK_THROWS_AS(minimize_joint_cost(*problem.cost, problem.sizes, {problem.least / 2, kNoBudget}), Error);
}

TEST_CASE("the joint search of a thousand layers of eight widths takes a second and gains") {
  // Changes of the layers along random directions of a space of three, as a quadratic: H = D Dᵀ.
  constexpr std::size_t kLayers = 1000, kWidths = 8, kSpace = 3;
  Random random(1);
  std::vector<std::array<double, kSpace>> change;
  std::vector<double> own;
  std::vector<std::vector<Sizes>> sizes(kLayers);
  double least = 0, most = 0;
  for (auto& layer : sizes) {
    const double parameters = std::floor(std::exp(10 + random.normal())) + 8;
    double error = std::exp(random.normal()), squares = 0;
    for (std::size_t b = 1; b <= kWidths; ++b, error /= 2) {
      auto& d = change.emplace_back();
      for (double& x : d) x = error * random.normal();
      squares = 0;
      for (double x : d) squares += x * x;
      own.push_back(0.5 * squares);
      layer.push_back({parameters * static_cast<double>(b), 0});
    }
    least += parameters;
    most += parameters * static_cast<double>(kWidths);
  }
  std::vector<double> pairs(change.size() * change.size());
  for (std::size_t k = 0; k < change.size(); ++k) {
    for (std::size_t other = 0; other < change.size(); ++other) {
      double product = 0;
      for (std::size_t x = 0; x < kSpace; ++x) product += change[k][x] * change[other][x];
      pairs[k * change.size() + other] = product;
    }
  }
  const PairwiseCost cost(std::vector<std::size_t>(kLayers, kWidths), std::move(own), std::move(pairs));
  const Sizes budget{0.5 * (least + most), kNoBudget};
  JointSolution solution;
  const double time = test::processor_seconds([&] { solution = minimize_joint_cost(cost, sizes, budget); });
  CHECK(time < test::kOneSecond);
  CHECK(fits(solution.size, budget));
  CHECK(solution.cost == doctest::Approx(cost.cost(solution.choice)).scale(0));
  MESSAGE(time, " s, joint cost of the separable optimum ", solution.separable_cost, ", found ",
          solution.cost);
  CHECK(solution.cost < 0.5 * solution.separable_cost);
}
