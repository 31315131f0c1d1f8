#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <set>

#include "core/error.hpp"
#include "core/random.hpp"
#include "hawq_v3_resnet18.hpp"
#include "quant/allocation.hpp"
#include "resnet20_layers.hpp"

using namespace goshawk;
using namespace goshawk::test;

namespace {

const std::vector<int> kAllWidths = {1, 2, 3, 4, 5, 6, 7, 8};

// Random curvature and perturbations that fall about fourfold a bit.
Sensitivity random_sensitivity(int layers, std::uint64_t seed) {
  Random random(seed);
  Sensitivity s;
  for (int i = 0; i < layers; ++i) {
    LayerSensitivity layer;
    layer.name = "layer" + std::to_string(i);
    layer.parameters = static_cast<std::int64_t>(10 + random.below(500));
    layer.lambda_max = std::exp(3 * random.normal());
    layer.trace.value = std::exp(3 * random.normal()) * static_cast<double>(layer.parameters);
    double norm = std::exp(random.normal()) * static_cast<double>(layer.parameters);
    for (int bits : kAllWidths) {
      layer.perturbation[bits] = norm;
      norm /= 3 + 2 * random.uniform();
    }
    s.layers.push_back(layer);
  }
  return s;
}

double score(const LayerSensitivity& layer, SensitivityMetric metric) {
  return metric == SensitivityMetric::hawq
             ? std::abs(layer.lambda_max) / static_cast<double>(layer.parameters)
             : layer.trace.value / static_cast<double>(layer.parameters);
}

double omega(const LayerSensitivity& layer, SensitivityMetric metric, int bits) {
  const double norm = bits == 32 ? 0 : layer.perturbation.at(bits);
  return metric == SensitivityMetric::hawq ? std::abs(layer.lambda_max) * norm
                                           : layer.trace.value / static_cast<double>(layer.parameters) * norm;
}

struct Point {
  std::vector<int> bits;
  std::int64_t size = 0;
  double omega = 0;
};

// Every assignment of widths to layers, and whether it is monotone in the sensitivity order.
std::vector<Point> brute_force(const Sensitivity& s, SensitivityMetric metric, const std::vector<int>& widths,
                               const std::map<std::string, int>& pinned, bool monotone_only) {
  std::vector<Point> points;
  std::vector<std::size_t> odometer(s.layers.size(), 0);
  while (true) {
    Point p;
    bool valid = true;
    for (std::size_t i = 0; i < s.layers.size(); ++i) {
      int bits = widths[odometer[i]];
      const auto pin = pinned.find(s.layers[i].name);
      if (pin != pinned.end()) {
        valid = valid && odometer[i] == 0;
        bits = pin->second;
      }
      p.bits.push_back(bits);
      p.size += s.layers[i].parameters * bits;
      p.omega += omega(s.layers[i], metric, bits);
    }
    for (std::size_t i = 0; i < s.layers.size() && monotone_only; ++i) {
      for (std::size_t j = 0; j < s.layers.size(); ++j) {
        const bool free = !pinned.contains(s.layers[i].name) && !pinned.contains(s.layers[j].name);
        if (free && score(s.layers[i], metric) > score(s.layers[j], metric) && p.bits[i] < p.bits[j])
          valid = false;
      }
    }
    if (valid) points.push_back(p);
    std::size_t k = 0;
    while (k < odometer.size() && ++odometer[k] == widths.size()) odometer[k++] = 0;
    if (k == odometer.size()) return points;
  }
}

std::vector<int> widths_of(const BitAssignment& bits) {
  std::vector<int> widths;
  for (const LayerBits& layer : bits.layers) widths.push_back(layer.weight);
  return widths;
}

// The cheapest point of at most `budget` bits.
const Point* cheapest(const std::vector<Point>& points, std::int64_t budget) {
  const Point* best = nullptr;
  for (const Point& p : points) {
    if (p.size <= budget && (best == nullptr || p.omega < best->omega)) best = &p;
  }
  return best;
}

}  // namespace

TEST_CASE("50 layers and 4 widths have 23,426 monotone assignments") {
  CHECK(monotone_count(50, 4) == 23426);
  CHECK(monotone_count(1, 1) == 1);
  CHECK(monotone_count(0, 3) == 1);
  const Sensitivity s = random_sensitivity(50, 1);
  const MonotoneAllocator allocator(s, SensitivityMetric::hawq_v2, {.candidates = {1, 2, 4, 8}});
  CHECK(allocator.candidates().size() == 23426);
  std::set<std::vector<std::uint16_t>> distinct;
  for (const Candidate& c : allocator.candidates()) distinct.insert({c.counts.begin(), c.counts.end()});
  CHECK(distinct.size() == 23426);
}

TEST_CASE(
    "the enumeration is all monotone assignments and no other, and the best under every budget is found") {
  for (SensitivityMetric metric : {SensitivityMetric::hawq, SensitivityMetric::hawq_v2}) {
    for (std::uint64_t seed = 1; seed <= 4; ++seed) {
      const Sensitivity s = random_sensitivity(6, seed);
      const std::map<std::string, int> pinned = seed % 2 == 0
                                                    ? std::map<std::string, int>{{"layer0", 8}, {"layer3", 5}}
                                                    : std::map<std::string, int>{};
      const std::vector<int> widths = {4, 2, 8};
      const MonotoneAllocator allocator(s, metric, {.candidates = widths, .pinned = pinned});
      const std::vector<Point> points = brute_force(s, metric, widths, pinned, true);

      // The same set of (bits, size, Ω).
      REQUIRE(allocator.candidates().size() == points.size());
      std::set<std::vector<int>> expected, found;
      for (const Point& p : points) expected.insert(p.bits);
      for (const Candidate& c : allocator.candidates()) {
        const BitAssignment bits = allocator.assignment(c);
        found.insert(widths_of(bits));
        CHECK(c.weight_bits == size_report(bits).weight_bits);
        CHECK(c.omega == doctest::Approx(bits.omega).epsilon(1e-12));
      }
      CHECK(found == expected);

      // The frontier: a point is on it exactly when no other is at least as good in both and better in one.
      std::set<std::int64_t> frontier;
      for (const Candidate& c : allocator.pareto_frontier()) frontier.insert(c.weight_bits);
      std::set<std::int64_t> undominated;
      for (const Point& p : points) {
        const bool dominated = std::any_of(points.begin(), points.end(), [&](const Point& q) {
          return q.size <= p.size && q.omega <= p.omega && (q.size < p.size || q.omega < p.omega);
        });
        if (!dominated) undominated.insert(p.size);
      }
      CHECK(frontier == undominated);

      for (std::int64_t size : undominated) {
        for (std::int64_t budget : {size, size + 3}) {
          const Point* best = cheapest(points, budget);
          const BitAssignment bits = allocator.allocate(static_cast<double>(budget) / 8);
          CHECK(widths_of(bits) == best->bits);
          CHECK(bits.omega == doctest::Approx(best->omega).epsilon(1e-12));
          CHECK(size_report(bits).weight_bits <= budget);
        }
      }
    }
  }
}

TEST_CASE("allocations are monotone, respect the budget and keep pinned layers") {
  const Sensitivity s = random_sensitivity(20, 7);
  for (SensitivityMetric metric : {SensitivityMetric::hawq, SensitivityMetric::hawq_v2}) {
    const AllocationOptions options{
        .candidates = {2, 3, 4, 8},
        .pinned = {{"layer0", 8}, {"layer19", 8}},
        .activation_bits = 4,
        .pinned_activations = {{"layer19", 8}},
    };
    const MonotoneAllocator allocator(s, metric, options);
    CHECK(allocator.order().size() == 18);
    for (double compression : {13.0, 10.0, 8.0, 5.0}) {
      const double budget = budget_for_compression(s, compression);
      const BitAssignment bits = allocator.allocate(budget);
      CHECK(size_report(bits).weight_bytes() <= budget);
      CHECK(size_report(bits).weight_compression() >= compression);
      CHECK(bits.budget_bytes == budget);
      CHECK(bits.layers[0].weight == 8);
      CHECK(bits.layers[0].pinned);
      CHECK(!bits.layers[1].pinned);
      CHECK(bits.layers[0].activation == 4);
      CHECK(bits.layers[19].activation == 8);
      for (std::size_t i = 1; i < allocator.order().size(); ++i) {
        const std::string &more = allocator.order()[i - 1], &less = allocator.order()[i];
        CHECK(score(s.layer(more), metric) >= score(s.layer(less), metric));
        CHECK(bits.layer(more).weight >= bits.layer(less).weight);
      }
      // The exact knapsack knows no order: it is never worse.
      const BitAssignment exact = allocate_exact(s, metric, budget, options);
      CHECK(exact.omega <= bits.omega * (1 + 1e-12));
      CHECK(size_report(exact).weight_bytes() <= budget);
      CHECK(exact.layers[0].weight == 8);
      CHECK(exact.layers[19].activation == 8);
    }
  }
}

TEST_CASE("an impossible budget is an error that names what is possible") {
  Sensitivity s = random_sensitivity(2, 1);
  s.layers[0].parameters = 100;
  s.layers[1].parameters = 300;
  const AllocationOptions options{.candidates = {2, 8}};
  const std::string expected =
      "[allocate] no assignment fits 99.0 bytes: the smallest possible size is 100.0 bytes and the largest "
      "400.0; "
      "raise the budget or add narrower candidates";
  CHECK_THROWS_WITH_AS(MonotoneAllocator(s, SensitivityMetric::hawq, options).allocate(99), expected.c_str(),
                       Error);
  CHECK_THROWS_WITH_AS(allocate_exact(s, SensitivityMetric::hawq, 99, options), expected.c_str(), Error);
  CHECK(widths_of(allocate_exact(s, SensitivityMetric::hawq, 100, options)) == std::vector{2, 2});
  CHECK(widths_of(MonotoneAllocator(s, SensitivityMetric::hawq, options).allocate(400)) == std::vector{8, 8});
}

TEST_CASE("bad options are errors") {
  const Sensitivity s = random_sensitivity(5, 1);
  using A = MonotoneAllocator;
  constexpr auto v2 = SensitivityMetric::hawq_v2;
  CHECK_THROWS_AS(A(s, v2, {.candidates = {}}), Error);
  CHECK_THROWS_AS(A(s, v2, {.candidates = {2, 9}}), Error);
  CHECK_THROWS_AS(A(s, v2, {.pinned = {{"nobody", 8}}}), Error);
  CHECK_THROWS_AS(A(s, v2, {.pinned = {{"layer0", 0}}}), Error);
  CHECK_THROWS_AS(A(s, v2, {.activation_bits = 0}), Error);
  CHECK_THROWS_AS(A(Sensitivity{}, v2), Error);
  Sensitivity unmeasured = s;
  for (LayerSensitivity& layer : unmeasured.layers) layer.lambda_max = 0;
  CHECK_THROWS_AS(A(unmeasured, SensitivityMetric::hawq), Error);
  Sensitivity nan = s;
  nan.layers[2].trace.value = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(A(nan, v2), Error);
  Sensitivity missing = s;
  missing.layers[1].perturbation.erase(3);
  CHECK_THROWS_AS(A(missing, v2), Error);
  CHECK_THROWS_AS(A(random_sensitivity(200, 1), v2, {.candidates = kAllWidths}), Error);
  CHECK_THROWS_AS(budget_for_compression(s, 0), Error);
}

TEST_CASE("a budget from a compression admits the assignment that has it") {
  Sensitivity s;
  for (const LayerBits& layer : resnet20_layers()) {
    LayerSensitivity entry;
    entry.name = layer.name;
    entry.parameters = layer.parameters;
    entry.trace.value = 1;
    for (int bits : kAllWidths) entry.perturbation[bits] = std::pow(0.25, bits);
    s.layers.push_back(entry);
  }
  CHECK(budget_for_compression(s, 16) == 67084);
  CHECK(widths_of(MonotoneAllocator(s, SensitivityMetric::hawq_v2).allocate(budget_for_compression(s, 16))) ==
        std::vector<int>(20, 2));
  const BitAssignment hawq =
      MonotoneAllocator(s, SensitivityMetric::hawq_v2).allocate(budget_for_compression(s, 13.11));
  CHECK(size_report(hawq).weight_compression() >= 13.11);
}

TEST_CASE("the knapsack is exact on a large network in little time") {
  // 54 layers and 8 widths: 8^54 assignments. The monotone optimum is an upper bound; the LP bound is not
  // known here, but the exact one must fall with the budget and beat the monotone one somewhere.
  const Sensitivity s = random_sensitivity(54, 11);
  double last = std::numeric_limits<double>::infinity();
  bool beaten = false;
  const MonotoneAllocator monotone(s, SensitivityMetric::hawq_v2, {.candidates = {2, 4, 8}});
  for (double compression : {15.0, 12.0, 9.0, 6.0}) {
    const double budget = budget_for_compression(s, compression);
    const BitAssignment exact =
        allocate_exact(s, SensitivityMetric::hawq_v2, budget, {.candidates = {2, 4, 8}});
    CHECK(exact.omega < last);
    last = exact.omega;
    beaten = beaten || exact.omega < monotone.allocate(budget).omega * (1 - 1e-9);
  }
  CHECK(beaten);
  CHECK(
      allocate_exact(s, SensitivityMetric::hawq_v2, budget_for_compression(s, 10), {.candidates = kAllWidths})
          .omega > 0);
}

TEST_CASE("golden: HAWQ-V3's integer programme on ResNet-18") {
  Sensitivity s;
  double size4 = 0, size8 = 0;
  for (std::size_t i = 0; i < 19; ++i) {
    LayerSensitivity layer;
    layer.name = "conv" + std::to_string(i);
    layer.parameters = kParameters[i];
    layer.trace.value = kMeanTrace[i] * static_cast<double>(kParameters[i]);
    layer.perturbation = {{4, kNorm4[i]}, {8, kNorm8[i]}};
    s.layers.push_back(layer);
    size4 += static_cast<double>(kParameters[i]) / 2;
    size8 += static_cast<double>(kParameters[i]);
  }
  const auto solved = [&](double alpha) {
    const BitAssignment bits = allocate_exact(s, SensitivityMetric::hawq_v2, size4 + alpha * (size8 - size4),
                                              {.candidates = {4, 8}});
    std::string widths;
    for (int width : widths_of(bits)) widths += std::to_string(width);
    return std::pair(widths, bits.omega);
  };
  for (const Answer& answer : kAnswers) {
    CHECK(solved(answer.alpha).first == answer.bits);
    CHECK(solved(answer.alpha).second == doctest::Approx(answer.objective).epsilon(1e-6));
  }
}
