// The middle of a measured table, once more: from its eigenvalues and traces to its bits.
#include <algorithm>
#include <fmt/core.h>
#include <fmt/ranges.h>

#include "quant/cost_allocation.hpp"
#include "quant/sensitivity.hpp"

using namespace goshawk;

namespace {

// What reproduce_cifar gives to the allocator: for every layer and width a cost, and a score that orders the
// layers.
Costs costs_of(const Sensitivity& measured, bool by_trace) {
  Costs costs;
  for (const LayerSensitivity& layer : measured.layers) {
    const auto n = static_cast<double>(layer.parameters);
    LayerCosts& c = costs.layers.emplace_back();
    c.name = layer.name;
    c.parameters = layer.parameters;
    c.score = by_trace ? layer.mean_trace() : layer.lambda_max / n;
    const double weight = by_trace ? layer.mean_trace() : layer.lambda_max;
    for (const auto& [bits, perturbation] : layer.perturbation) {
      c.choices.push_back({.bits = bits, .bytes = n * bits / 8, .cost = weight * perturbation});
    }
  }
  return costs;
}

}  // namespace

int main(int argc, char** argv) {
  const Sensitivity measured =
      read_sensitivity(argc > 1 ? argv[1] : "docs/results/cifar10-resnet20/sensitivity.json");
  for (const bool by_trace : {false, true}) {
    const Costs costs = costs_of(measured, by_trace);
    const double full = full_precision_bytes(costs);
    for (const AllocationMethod method : {AllocationMethod::pareto, AllocationMethod::exact}) {
      const CostAllocation found = allocate(costs, method, {.bytes = full / 13.11});
      std::vector<int> bits;
      for (const CostAllocation::Layer& layer : found.layers) bits.push_back(layer.bits);
      fmt::print("{:<7} {:<6} {:.2f}x, Ω {:7.4g}: {}\n", by_trace ? "HAWQ-V2" : "HAWQ",
                 method == AllocationMethod::pareto ? "pareto" : "exact", full / found.bytes, found.objective,
                 fmt::join(bits, " "));
    }
  }
}
