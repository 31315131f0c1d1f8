// Random knapsack problems as large networks have them, of several kinds.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/random.hpp"
#include "quant/knapsack.hpp"

namespace goshawk::test {

enum class ProblemKind : std::uint8_t {
  squared_bops,   ///< bytes, and BOPs by the square of the bits: inputs have the weights' width
  linear_bops,    ///< inputs have one width
  latencies,      ///< bytes, and a latency that grows by random amounts
  uncorrelated,   ///< all sizes and costs are random by themselves
  alike_in_cost,  ///< costs nearly in proportion to the weights
  few_shapes,     ///< layers of 24 shapes
};
inline constexpr std::array kProblemKinds{ProblemKind::squared_bops,  ProblemKind::linear_bops,
                                          ProblemKind::latencies,     ProblemKind::uncorrelated,
                                          ProblemKind::alike_in_cost, ProblemKind::few_shapes};

/// Costs fall three- to fivefold a bit, but for those of ProblemKind::uncorrelated.
inline std::vector<std::vector<KnapsackOption>> large_problem(ProblemKind kind, std::size_t layers,
                                                              std::size_t widths, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::vector<KnapsackOption>> items(layers);
  for (auto& item : items) {
    const bool few = kind == ProblemKind::few_shapes, alike = kind == ProblemKind::alike_in_cost;
    const double parameters = few     ? 432.0 * static_cast<double>(1 << random.below(6))
                              : alike ? std::floor(1000 + 1e5 * random.uniform())
                                      : std::floor(std::exp(10 + 1.5 * random.normal())) + 8;
    const double macs = few     ? 1e5 * static_cast<double>(1 << random.below(4))
                        : alike ? std::floor(parameters * (50 + 1000 * random.uniform()))
                                : std::floor(std::exp(16 + random.normal())) + 64;
    double cost = alike ? parameters * (0.8 + 0.4 * random.uniform()) : std::exp(2 * random.normal());
    double latency = 0;
    for (std::size_t b = 1; b <= widths; ++b) {
      const auto bits = static_cast<double>(b);
      latency += random.uniform();
      KnapsackOption option{{parameters * bits / 8, macs * bits * bits}, cost};
      if (kind == ProblemKind::linear_bops) option.size[1] = macs * bits * 8;
      if (kind == ProblemKind::latencies) option.size[1] = latency;
      if (kind == ProblemKind::uncorrelated) {
        option = {{random.uniform(), random.uniform()}, random.uniform()};
      }
      item.push_back(option);
      cost /= 3 + 2 * random.uniform();
    }
  }
  return items;
}

/// Problems in which layers are alike in something, so that a great many assignments are as good as another.
enum class AlikeKind : std::uint8_t {
  all,                ///< layers differ in nothing
  three_kinds,        ///< of layer
  equal_sensitivity,  ///< costs are in proportion to the weights and fall fourfold a bit
  in_proportion,      ///< costs are in proportion to the bytes that are saved, and to nothing else
  residual_stages,    ///< shapes of a residual network's three stages, one sensitivity
  correlated,         ///< costs follow whole sizes exactly; no second size
};
inline constexpr std::array kAlikeKinds{
    AlikeKind::all,           AlikeKind::three_kinds,     AlikeKind::equal_sensitivity,
    AlikeKind::in_proportion, AlikeKind::residual_stages, AlikeKind::correlated};

/// {bytes, BOPs} in some unit.
inline std::vector<std::vector<KnapsackOption>> alike_problem(AlikeKind kind, std::size_t layers,
                                                              std::size_t widths, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::vector<KnapsackOption>> items(layers);
  for (std::size_t i = 0; i < layers; ++i) {
    const auto one_of_three = static_cast<double>(1 + i % 3);
    const std::uint64_t stage = random.below(3);
    const double weights = kind == AlikeKind::all           ? 1
                           : kind == AlikeKind::three_kinds ? one_of_three
                           : kind == AlikeKind::residual_stages
                               ? static_cast<double>(2304 << (2 * stage))
                               : static_cast<double>(1000 + random.below(100000));
    const double uses = kind == AlikeKind::three_kinds       ? (4 - one_of_three) / one_of_three
                        : kind == AlikeKind::residual_stages ? static_cast<double>(1024 >> (2 * stage))
                        : kind == AlikeKind::in_proportion   ? static_cast<double>(1 + random.below(1000))
                                                             : 1;
    double size = 0;
    for (std::size_t b = 1; b <= widths; ++b) {
      const auto bits = static_cast<double>(b);
      KnapsackOption option{{weights * bits, weights * uses * bits * bits}, weights * std::pow(4, -bits)};
      if (kind == AlikeKind::in_proportion) {
        option = {{weights * bits, weights * uses * bits}, weights * (8 - bits)};
      }
      if (kind == AlikeKind::correlated) {
        size += static_cast<double>(1 + random.below(1000));
        option = {{size, 0}, 20000 - size - 100 * bits};
      }
      items[i].push_back(option);
    }
  }
  return items;
}

/// Shares of the way from the least to the most that the problem can take; kNoBudget for none.
inline Sizes budget_at(const std::vector<std::vector<KnapsackOption>>& items, const Sizes& share) {
  Sizes budget{};
  for (std::size_t k = 0; k < kBudgets; ++k) {
    if (share[k] == kNoBudget) {
      budget[k] = kNoBudget;
      continue;
    }
    for (const auto& item : items) {
      const auto [low, high] = std::minmax_element(
          item.begin(), item.end(),
          [k](const KnapsackOption& a, const KnapsackOption& b) { return a.size[k] < b.size[k]; });
      budget[k] += low->size[k] + share[k] * (high->size[k] - low->size[k]);
    }
  }
  return budget;
}

}  // namespace goshawk::test
