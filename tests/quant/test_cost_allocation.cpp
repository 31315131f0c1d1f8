#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/random.hpp"
#include "hawq_v3_resnet18.hpp"
#include "quant/cost_allocation.hpp"
#include "tests/quant/processor_seconds.hpp"

using namespace goshawk;
using namespace goshawk::test;

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// Random layers with random allowed widths, some tied and some pinned.
Costs random_costs(std::uint64_t seed) {
  Random random(seed);
  Costs costs{.source = "costs.json"};
  for (int i = 0; i < 6; ++i) {
    LayerCosts layer{.name = "layer" + std::to_string(i), .choices = {}};
    layer.parameters = static_cast<std::int64_t>(8 * (1 + random.below(40)));
    layer.macs = layer.parameters * static_cast<std::int64_t>(1 + random.below(9));
    if (i == 1 || i == 4) layer.tied = "sum";
    double cost = std::exp(random.normal());
    for (int bits : {2, 3, 4, 8}) {
      // Four bits are always allowed, so that tied layers have a width in common.
      if (bits == 4 || random.below(4) > 0) {
        layer.choices.push_back({.bits = bits,
                                 .bytes = static_cast<double>(layer.parameters) * bits / 8,
                                 .cost = cost,
                                 .bops = static_cast<double>(layer.macs) * bits * bits,
                                 .latency_ms = 0.1 + random.uniform()});
      }
      cost *= 0.2 + 0.2 * random.uniform();
    }
    if (i == 0 && seed % 2 == 0) layer.pinned = 4;
    costs.layers.push_back(std::move(layer));
  }
  return costs;
}

struct Point {
  std::vector<int> bits;
  double bytes = 0, bops = 0, latency = 0, cost = 0;
};

// Every assignment that ties, pins and allowed widths admit.
std::vector<Point> brute_force(const Costs& costs) {
  std::vector<Point> points;
  std::vector<std::size_t> odometer(costs.layers.size(), 0);
  while (true) {
    Point p;
    bool valid = true;
    std::map<std::string, int> tied;
    for (std::size_t i = 0; i < costs.layers.size(); ++i) {
      const LayerCosts& layer = costs.layers[i];
      const CostChoice& c = layer.choices[odometer[i]];
      valid = valid && (!layer.pinned || *layer.pinned == c.bits);
      if (!layer.tied.empty()) valid = valid && tied.emplace(layer.tied, c.bits).first->second == c.bits;
      p.bits.push_back(c.bits);
      p.bytes += c.bytes;
      p.bops += *c.bops;
      p.latency += *c.latency_ms;
      p.cost += c.cost;
    }
    if (valid) points.push_back(p);
    std::size_t k = 0;
    while (k < odometer.size() && ++odometer[k] == costs.layers[k].choices.size()) odometer[k++] = 0;
    if (k == odometer.size()) return points;
  }
}

struct Limit {
  std::optional<double> AllocationBudgets::*budget;
  double Point::*amount;
};
constexpr Limit kLimits[] = {{&AllocationBudgets::bytes, &Point::bytes},
                             {&AllocationBudgets::bops, &Point::bops},
                             {&AllocationBudgets::latency_ms, &Point::latency}};

bool within(const Point& p, const AllocationBudgets& budgets) {
  const double slack = 1 + 1e-12;
  return p.bytes <= budgets.bytes.value_or(kNever) * slack &&
         p.bops <= budgets.bops.value_or(kNever) * slack &&
         p.latency <= budgets.latency_ms.value_or(kNever) * slack;
}

std::vector<int> bits_of(const CostAllocation& allocation) {
  std::vector<int> bits;
  for (const auto& layer : allocation.layers) bits.push_back(layer.bits);
  return bits;
}

std::string text_of(const CostAllocation& allocation) {
  std::string text;
  for (int bits : bits_of(allocation)) text += std::to_string(bits);
  return text;
}

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

double number_after(const std::string& text, const std::string& words) {
  const std::size_t at = text.find(words);
  REQUIRE_MESSAGE(at != std::string::npos, text);
  return std::stod(text.substr(at + words.size()));
}

// Layers of equal choices {1, 2, 4, 8} with costs that follow their score.
Costs plain_costs(int layers, std::uint64_t seed) {
  Random random(seed);
  Costs costs{.source = "costs.json"};
  for (int i = 0; i < layers; ++i) {
    LayerCosts layer{.name = "layer" + std::to_string(i), .choices = {}};
    layer.parameters = static_cast<std::int64_t>(8 * (1 + random.below(90)));
    layer.score = std::exp(2 * random.normal());
    double norm = static_cast<double>(layer.parameters) * std::exp(random.normal());
    for (int bits : {1, 2, 4, 8}) {
      layer.choices.push_back({.bits = bits,
                               .bytes = static_cast<double>(layer.parameters) * bits / 8,
                               .cost = *layer.score * norm});
      norm *= 0.3 * random.uniform();
    }
    costs.layers.push_back(std::move(layer));
  }
  return costs;
}

}  // namespace

TEST_CASE(
    "every method against brute force, under any budget and under two, with ties, pins and allowed widths") {
  int solved = 0, impossible = 0, together = 0;
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    const Costs costs = random_costs(seed);
    const std::vector<Point> points = brute_force(costs);
    REQUIRE(!points.empty());
    Random random(seed, 1);
    const auto between = [&](double Point::*amount) {
      double low = kNever, high = 0;
      for (const Point& p : points) {
        low = std::min(low, p.*amount);
        high = std::max(high, p.*amount);
      }
      return low + (high - low) * (1.2 * random.uniform() - 0.1);
    };
    for (int kind = 1; kind < 7; ++kind) {  // bits of `kind`: which budgets there are
      AllocationBudgets budgets;
      if ((kind & 1) != 0) budgets.bytes = between(&Point::bytes);
      if ((kind & 2) != 0) budgets.bops = between(&Point::bops);
      if ((kind & 4) != 0) budgets.latency_ms = between(&Point::latency);
      const Point* best = nullptr;
      for (const Point& p : points) {
        if (within(p, budgets) && (best == nullptr || p.cost < best->cost)) best = &p;
      }
      if (best == nullptr) {
        ++impossible;
        const std::string message = message_of([&] { allocate(costs, AllocationMethod::exact, budgets); });
        CHECK_MESSAGE(contains(message, "smallest possible is"), message);
        if (contains(message, "fits both")) {
          // Of either, the least within the other one's budget.
          ++together;
          std::vector<double> least;
          for (const Limit& limit : kLimits) {
            if (!(budgets.*limit.budget)) continue;
            AllocationBudgets other = budgets;
            other.*limit.budget = std::nullopt;
            least.push_back(kNever);
            for (const Point& p : points) {
              if (within(p, other)) least.back() = std::min(least.back(), p.*limit.amount);
            }
          }
          REQUIRE(least.size() == 2);
          CHECK(number_after(message, "smallest possible is ") == doctest::Approx(least[0]).epsilon(1e-12));
          CHECK(number_after(message, "within the former ") == doctest::Approx(least[1]).epsilon(1e-12));
        }
        CHECK(message_of([&] { check_budgets(costs, budgets); }) == message);
        continue;
      }
      ++solved;
      CHECK(message_of([&] { check_budgets(costs, budgets); }).empty());
      const CostAllocation exact = allocate(costs, AllocationMethod::exact, budgets);
      CHECK(bits_of(exact) == best->bits);
      CHECK(exact.objective == doctest::Approx(best->cost).epsilon(1e-12));
      CHECK(exact.bytes == doctest::Approx(best->bytes));
      CHECK(exact.bops.value() == doctest::Approx(best->bops));
      CHECK(exact.latency_ms.value() == doctest::Approx(best->latency));
      CHECK(exact.bound <= exact.objective + 1e-9);
      if (budgets.bops || budgets.latency_ms) continue;
      for (const char* method : {"ratio", "pareto", "greedy"}) {
        const CostAllocation other = allocate(costs, allocation_method(method), budgets);
        const auto point = std::find_if(points.begin(), points.end(),
                                        [&](const Point& p) { return p.bits == bits_of(other); });
        REQUIRE(point != points.end());  // ties, pins and allowed widths hold
        CHECK(within(*point, budgets));
        CHECK(other.objective == doctest::Approx(point->cost));
        CHECK(other.exact_objective.value() == doctest::Approx(best->cost));
        CHECK(other.objective >= other.exact_objective.value() - 1e-12);
        CHECK(other.bound == exact.bound);
      }
    }
  }
  CHECK(solved > 90);
  CHECK(impossible > 10);
  CHECK(together > 0);
}

TEST_CASE("the exact frontier's points are the optima of their sizes, each once, with ties and pins") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const Costs costs = random_costs(seed);
    const std::vector<Point> points = brute_force(costs);
    const Point& some = points[points.size() / 3];
    const std::vector<FrontierPoint> frontier = exact_frontier(costs, 50, {some.bytes, 1e-3});
    REQUIRE(frontier.size() > 3);
    double least = kNever, cheapest = kNever, below = kNever;
    for (const Point& p : points) {
      least = std::min(least, p.bytes);
      cheapest = std::min(cheapest, p.cost);
      if (within(p, {.bytes = some.bytes})) below = std::min(below, p.cost);
    }
    CHECK(frontier.front().bytes == doctest::Approx(least));
    CHECK(frontier.back().objective == doctest::Approx(cheapest));
    bool found = false;
    for (std::size_t k = 0; k < frontier.size(); ++k) {
      const FrontierPoint& point = frontier[k];
      found = found || point.objective == doctest::Approx(below);
      if (k > 0) CHECK(point.bytes > frontier[k - 1].bytes);
      if (k > 0) CHECK(point.objective < frontier[k - 1].objective);
      for (const Point& p : points) {
        if (within(p, {.bytes = point.bytes})) CHECK(p.cost >= point.objective * (1 - 1e-12));
        if (p.bits == point.bits) CHECK(p.cost == doctest::Approx(point.objective));
      }
    }
    CHECK(found);
  }
}

TEST_CASE("pareto is the cheapest monotone assignment, and its frontier is that of all of them") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const Costs costs = plain_costs(5, seed);
    std::vector<std::pair<double, double>> monotone, frontier, found;
    double largest = 0;
    std::vector<Point> points;
    std::vector<std::size_t> odometer(5, 0);
    for (bool more = true; more;) {
      double bytes = 0, cost = 0;
      bool valid = true;
      for (std::size_t i = 0; i < 5; ++i) {
        bytes += costs.layers[i].choices[odometer[i]].bytes;
        cost += costs.layers[i].choices[odometer[i]].cost;
        for (std::size_t j = 0; j < 5; ++j) {
          valid = valid && !(*costs.layers[i].score > *costs.layers[j].score && odometer[i] < odometer[j]);
        }
      }
      largest = std::max(largest, bytes);
      if (valid) monotone.emplace_back(bytes, cost);
      std::size_t k = 0;
      while (k < 5 && ++odometer[k] == 4) odometer[k++] = 0;
      more = k < 5;
    }
    CHECK(monotone.size() == 56);  // C(5 + 3, 3)
    std::sort(monotone.begin(), monotone.end());
    for (const auto& p : monotone) {
      if (frontier.empty() || p.second < frontier.back().second) frontier.push_back(p);
    }
    for (const FrontierPoint& p : monotone_frontier(costs)) found.emplace_back(p.bytes, p.objective);
    REQUIRE(found.size() == frontier.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      CHECK(found[i].first == frontier[i].first);
      CHECK(found[i].second == doctest::Approx(frontier[i].second).epsilon(1e-12));
    }
    for (double share : {0.13, 0.3, 0.5, 0.8, 1.0}) {
      const auto after =
          std::upper_bound(frontier.begin(), frontier.end(), std::pair(share * largest, kNever));
      REQUIRE(after != frontier.begin());
      const CostAllocation pareto = allocate(costs, AllocationMethod::pareto, {.bytes = share * largest});
      CHECK(pareto.objective == doctest::Approx(std::prev(after)->second).epsilon(1e-12));
      CHECK(pareto.candidates == 56);
    }
  }
}

TEST_CASE(
    "50 layers and 4 widths have 23,426 monotone assignments, and the frontier is that of all of them") {
  CHECK(monotone_count(50, 4) == 23426);
  CHECK(monotone_count(1, 1) == 1);
  CHECK(monotone_count(0, 3) == 1);
  const Costs costs = plain_costs(50, 1);
  std::vector<std::size_t> order(50);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return *costs.layers[a].score > *costs.layers[b].score; });
  // Three cuts of the order into runs of one width each, the widest first.
  std::vector<std::pair<double, double>> all;
  for (std::size_t a = 0; a <= 50; ++a) {
    for (std::size_t b = a; b <= 50; ++b) {
      for (std::size_t c = b; c <= 50; ++c) {
        double bytes = 0, cost = 0;
        for (std::size_t i = 0; i < 50; ++i) {
          const CostChoice& choice = costs.layers[order[i]].choices[i < a ? 3 : i < b ? 2 : i < c ? 1 : 0];
          bytes += choice.bytes;
          cost += choice.cost;
        }
        all.emplace_back(bytes, cost);
      }
    }
  }
  CHECK(all.size() == 23426);
  CHECK(allocate(costs, AllocationMethod::pareto, {.bytes = 1e9}).candidates == 23426);
  std::sort(all.begin(), all.end());
  std::vector<std::pair<double, double>> frontier;
  for (const auto& p : all) {
    if (frontier.empty() || p.second < frontier.back().second * (1 - 1e-12)) frontier.push_back(p);
  }
  const std::vector<FrontierPoint> found = monotone_frontier(costs);
  REQUIRE(found.size() == frontier.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    CHECK(found[i].bytes == frontier[i].first);
    CHECK(found[i].objective == doctest::Approx(frontier[i].second).epsilon(1e-12));
    // A point's bits have its size and its cost, and follow the order.
    double bytes = 0, cost = 0;
    for (std::size_t l = 0; l < 50; ++l) {
      const CostChoice& choice = costs.choice(costs.layers[l].name, found[i].bits[l]);
      bytes += choice.bytes;
      cost += choice.cost;
    }
    CHECK(bytes == found[i].bytes);
    CHECK(cost == doctest::Approx(found[i].objective).epsilon(1e-12));
    for (std::size_t k = 1; k < 50; ++k) CHECK(found[i].bits[order[k]] <= found[i].bits[order[k - 1]]);
  }
}

TEST_CASE("a thousand layers of eight widths: a second is enough for every method") {
  Costs costs{.source = "costs.json"};
  Random random(9);
  for (int l = 0; l < 1000; ++l) {
    LayerCosts& layer = costs.layers.emplace_back();
    layer.name = "layer" + std::to_string(l);
    layer.parameters = static_cast<std::int64_t>(64 * (1 + random.below(900)));
    layer.score = std::exp(2 * random.normal());
    for (int bits = 1; bits <= 8; ++bits) {
      layer.choices.push_back({.bits = bits,
                               .bytes = static_cast<double>(layer.parameters) * bits / 8,
                               .cost = *layer.score * std::pow(0.3, bits) * (0.8 + 0.4 * random.uniform())});
    }
  }
  const AllocationBudgets budgets{.bytes = full_precision_bytes(costs) / 9};
  for (const AllocationMethod method : {AllocationMethod::ratio, AllocationMethod::pareto,
                                        AllocationMethod::greedy, AllocationMethod::exact}) {
    CostAllocation allocation;
    CHECK(processor_seconds([&] { allocation = allocate(costs, method, budgets); }) < kOneSecond);
    CAPTURE(allocation.method);
    CHECK(allocation.bytes <= *budgets.bytes);
    CHECK(allocation.objective >= allocation.exact_objective.value());
  }
}

TEST_CASE("reversed scores reverse the order, and nothing else") {
  const Costs costs = plain_costs(6, 3), reversed = with_reversed_scores(costs);
  const AllocationBudgets budgets{.bytes = full_precision_bytes(costs) / 10};
  const CostAllocation there = allocate(costs, AllocationMethod::pareto, budgets);
  const CostAllocation back = allocate(with_reversed_scores(reversed), AllocationMethod::pareto, budgets);
  const CostAllocation away = allocate(reversed, AllocationMethod::pareto, budgets);
  CHECK(text_of(there) == text_of(back));
  CHECK(text_of(there) != text_of(away));
  for (std::size_t i = 0; i < 6; ++i) {
    for (std::size_t j = 0; j < 6; ++j) {
      if (*costs.layers[i].score > *costs.layers[j].score) CHECK(away.layers[i].bits <= away.layers[j].bits);
    }
  }
  Costs unordered = costs;
  unordered.layers[2].score.reset();
  CHECK_THROWS_WITH_AS(with_reversed_scores(unordered), doctest::Contains("score"), Error);
}

TEST_CASE("the ratio rule by hand: waves by falling score, until one does not fit") {
  Costs costs{.source = "costs.json"};
  const auto add = [&](const char* name, std::int64_t parameters, double score) {
    LayerCosts layer{.name = name, .parameters = parameters, .score = score, .choices = {}};
    for (int bits : {2, 4, 8}) {
      layer.choices.push_back(
          {.bits = bits, .bytes = static_cast<double>(parameters * bits) / 8, .cost = 1.0 / bits});
    }
    costs.layers.push_back(layer);
  };
  add("a", 80, 1);   // 20, 40, 80 bytes
  add("b", 8, 3);    // 2, 4, 8
  add("c", 160, 2);  // 40, 80, 160
  const auto ratio = [&](double bytes) {
    return text_of(allocate(costs, AllocationMethod::ratio, {.bytes = bytes}));
  };
  CHECK(ratio(62) == "222");
  CHECK(ratio(63) == "222");
  CHECK(ratio(64) == "242");
  CHECK(ratio(103) == "242");  // c does not fit, so a does not follow although it would
  CHECK(ratio(104) == "244");
  CHECK(ratio(124) == "444");
  CHECK(ratio(128) == "484");
  CHECK(ratio(248) == "888");
  // The same order from the costs alone: cost per weight at two bits.
  for (LayerCosts& layer : costs.layers) layer.score.reset();
  CHECK(ratio(64) == "242");
  CHECK(ratio(100) == "442");
}

TEST_CASE("golden: HAWQ-V3's integer programme on ResNet-18, and what the greedy misses") {
  Costs costs{.source = "resnet18"};
  double size4 = 0, size8 = 0;
  for (std::size_t i = 0; i < 19; ++i) {
    const auto n = static_cast<double>(kParameters[i]);
    LayerCosts layer{.name = "conv" + std::to_string(i), .parameters = kParameters[i], .choices = {}};
    layer.choices = {{.bits = 4, .bytes = n / 2, .cost = kMeanTrace[i] * kNorm4[i]},
                     {.bits = 8, .bytes = n, .cost = kMeanTrace[i] * kNorm8[i]}};
    costs.layers.push_back(layer);
    size4 += n / 2;
    size8 += n;
  }
  for (const Answer& answer : kAnswers) {
    const AllocationBudgets budgets{.bytes = size4 + answer.alpha * (size8 - size4)};
    const CostAllocation exact = allocate(costs, AllocationMethod::exact, budgets);
    CHECK(text_of(exact) == answer.bits);
    CHECK(exact.objective == doctest::Approx(answer.objective).epsilon(1e-6));
    const CostAllocation greedy = allocate(costs, AllocationMethod::greedy, budgets);
    CHECK(greedy.bytes <= *budgets.bytes);
    CHECK(exact.bound <= exact.objective);
    CHECK(greedy.objective >= exact.objective);
    // What the greedy misses, by its own arithmetic: 35 %, nothing and 2 %.
    CHECK(greedy.objective / exact.objective - 1 == doctest::Approx(answer.greedy_gap).epsilon(1e-3));
  }
}

TEST_CASE("what cannot be solved is said in one line with the numbers") {
  Costs costs = plain_costs(3, 5);
  double smallest = 0, largest = 0;
  for (const LayerCosts& layer : costs.layers) {
    smallest += layer.choices.front().bytes;
    largest += layer.choices.back().bytes;
  }
  const auto fails = [&](const AllocationBudgets& budgets, const std::string& part,
                         AllocationMethod method = AllocationMethod::greedy) {
    const std::string message = message_of([&] { allocate(costs, method, budgets); });
    CHECK_MESSAGE(contains(message, part), message);
    CHECK(!contains(message, "\n"));
  };
  fails({.bytes = smallest - 1},
        fmt::format("smallest possible is {} and the largest {}", smallest, largest));
  CHECK(allocate(costs, AllocationMethod::exact, {.bytes = smallest}).bytes == smallest);
  CHECK(allocate(costs, AllocationMethod::exact, {.bytes = largest + 1}).bytes == largest);
  fails({}, "no budget");
  fails({.bytes = NAN}, "makes no sense");
  fails({.bytes = largest, .bops = 1, .latency_ms = 1}, "too many");
  fails({.bops = 1}, "layer 'layer0' lacks \"bops\"");
  fails({.latency_ms = 1}, "layer 'layer0' lacks \"latency_ms\"");
  costs.layers[1].score.reset();
  fails({.bytes = largest}, "layer 'layer1' lacks \"score\"", AllocationMethod::pareto);
  costs.layers[0].tied = costs.layers[2].tied = "t";
  costs.layers[0].choices.resize(1);
  costs.layers[2].choices.erase(costs.layers[2].choices.begin());
  fails({.bytes = largest}, "layer 'layer2': \"choices\" shares no");
  CHECK_THROWS_AS(allocation_method("magic"), Error);
}

TEST_CASE("costs.json: read back as written; errors name file, layer and field") {
  const std::string good = to_json(random_costs(2));
  CHECK(to_json(costs_from_json(good, "run/costs.json")) == good);
  const auto fails = [&](const std::string& from, const std::string& to, const std::string& part) {
    std::string text = good;
    const std::size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    text.replace(at, from.size(), to);
    const std::string message = message_of([&] { costs_from_json(text, "run/costs.json"); });
    CHECK_MESSAGE(contains(message, "run/costs.json"), message);
    CHECK_MESSAGE(contains(message, part), message);
    CHECK(!contains(message, "\n"));
  };
  fails("{", "[", "valid JSON");
  fails("\"name\": \"layer0\"", "\"nama\": \"layer0\"", "layers[0] lacks \"name\"");
  fails("layer1", "layer0", "\"layer0\" is listed twice");
  fails("\"pinned\": 4", "\"pinned\": 7", "\"layer0\": \"pinned\" is 7");
  fails("\"tied\": \"sum\"", "\"tied\": 3", "\"layer1\": \"tied\" must be a string");
  fails("\"parameters\"", "\"params\"", "\"layer0\" lacks \"parameters\"");
  fails("\"bits\": 4", "\"bits\": 0", "\"layer0\": choices");
  fails("\"bytes\": ", "\"bytes\": -", "\"bytes\"");
  fails("\"cost\": ", "\"cost\": null, \"was\": ", "\"cost\" must be a finite number");
  fails("\"cost\": ", "\"price\": ", "lacks \"cost\"");
  fails("\"layers\"", "\"layer\"", "lacks \"layers\"");
  CHECK(contains(message_of([] { costs_from_json("{\"layers\": []}", "c.json"); }), "\"layers\" is empty"));
}
