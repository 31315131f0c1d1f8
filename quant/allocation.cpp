#include "quant/allocation.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "core/error.hpp"
#include "quant/knapsack.hpp"
#include "quant/quantizer.hpp"

namespace goshawk {
namespace {

// Above this the enumeration takes hundreds of megabytes and is no longer the right tool.
constexpr double kMaxCandidates = 1 << 22;

double score(const LayerSensitivity& layer, SensitivityMetric metric) {
  return metric == SensitivityMetric::hawq ? layer.hawq_score() : layer.mean_trace();
}

double cost(const LayerSensitivity& layer, SensitivityMetric metric, int bits) {
  return metric == SensitivityMetric::hawq ? layer.hawq_omega(bits) : layer.hawq_v2_omega(bits);
}

std::vector<int> sorted_widths(const std::vector<int>& candidates) {
  check(!candidates.empty(), "[allocate] there is no candidate bit width");
  std::vector<int> widths = candidates;
  for (int bits : widths) check_bits(bits, "allocate");
  std::sort(widths.begin(), widths.end(), std::greater<>());
  widths.erase(std::unique(widths.begin(), widths.end()), widths.end());
  return widths;
}

std::optional<int> lookup(const std::map<std::string, int>& pinned, const std::string& name) {
  const auto it = pinned.find(name);
  return it == pinned.end() ? std::nullopt : std::optional(it->second);
}

void check_options(const Sensitivity& sensitivity, SensitivityMetric metric,
                   const AllocationOptions& options) {
  check(!sensitivity.layers.empty(), "[allocate] the sensitivity lists no layers");
  check_bits(options.activation_bits, "allocate");
  for (const auto* pins : {&options.pinned, &options.pinned_activations}) {
    for (const auto& [name, bits] : *pins) {
      check_bits(bits, "allocate");
      sensitivity.layer(name);
    }
  }
  bool measured = false;
  for (const LayerSensitivity& layer : sensitivity.layers) {
    const double value = score(layer, metric);
    check(std::isfinite(value), "[allocate] the {} sensitivity of layer '{}' is {}; measure it again",
          sensitivity_metric_name(metric), layer.name, value);
    measured = measured || value != 0;
  }
  check(measured, "[allocate] every {} sensitivity is zero; measure the curvature first",
        sensitivity_metric_name(metric));
}

// The budget as bits, rounded down with slack for a budget that was computed from a size.
std::int64_t budget_bits(double bytes) {
  check(bytes >= 0 && bytes < 1e17, "[allocate] a budget of {} bytes makes no sense", bytes);
  return static_cast<std::int64_t>(std::floor(bytes * 8 + 1e-6));
}

[[noreturn]] void fail_budget(double budget, std::int64_t smallest, std::int64_t largest) {
  fail(
      "[allocate] no assignment fits {:.1f} bytes: the smallest possible size is {:.1f} bytes and the "
      "largest {:.1f}; "
      "raise the budget or add narrower candidates",
      budget, static_cast<double>(smallest) / 8, static_cast<double>(largest) / 8);
}

// What every allocator's result has in common; the weights' widths come from `width_of(layer index)`.
template <class F>
BitAssignment make_assignment(const Sensitivity& sensitivity, SensitivityMetric metric,
                              const AllocationOptions& options, std::string method, F width_of) {
  BitAssignment bits{.method = std::move(method)};
  for (std::size_t i = 0; i < sensitivity.layers.size(); ++i) {
    const LayerSensitivity& layer = sensitivity.layers[i];
    const std::optional<int> pinned = lookup(options.pinned, layer.name);
    const int width = pinned ? *pinned : width_of(i);
    bits.omega += cost(layer, metric, width);
    bits.layers.push_back(
        {.name = layer.name,
         .parameters = layer.parameters,
         .input_elements = layer.input_elements,
         .weight = width,
         .activation = lookup(options.pinned_activations, layer.name).value_or(options.activation_bits),
         .pinned = pinned.has_value()});
  }
  return bits;
}

}  // namespace

std::string_view sensitivity_metric_name(SensitivityMetric metric) {
  return metric == SensitivityMetric::hawq ? "hawq" : "hawq-v2";
}

MonotoneAllocator::MonotoneAllocator(const Sensitivity& sensitivity, SensitivityMetric metric,
                                     AllocationOptions options)
    : sensitivity_(sensitivity),
      metric_(metric),
      options_(std::move(options)),
      widths_(sorted_widths(options_.candidates)) {
  check_options(sensitivity_, metric_, options_);
  for (std::size_t i = 0; i < sensitivity_.layers.size(); ++i) {
    const LayerSensitivity& layer = sensitivity_.layers[i];
    if (const std::optional<int> bits = lookup(options_.pinned, layer.name)) {
      pinned_bits_ += layer.parameters * *bits;
      pinned_omega_ += cost(layer, metric_, *bits);
    } else {
      free_layers_.push_back(i);
    }
  }
  check(free_layers_.size() <= 65535, "[allocate] {} layers are too many", free_layers_.size());
  const double count = monotone_count(static_cast<std::int64_t>(free_layers_.size()),
                                      static_cast<std::int64_t>(widths_.size()));
  check(count <= kMaxCandidates,
        "[allocate] {} layers and {} candidate widths make {:.3g} monotone assignments, above the limit of "
        "{:.3g}; use "
        "fewer widths or the exact knapsack",
        free_layers_.size(), widths_.size(), count, kMaxCandidates);
  std::stable_sort(free_layers_.begin(), free_layers_.end(), [&](std::size_t a, std::size_t b) {
    return score(sensitivity_.layers[a], metric_) > score(sensitivity_.layers[b], metric_);
  });
  for (std::size_t i : free_layers_) order_.push_back(sensitivity_.layers[i].name);
  candidates_.reserve(static_cast<std::size_t>(count));
  enumerate();
}

void MonotoneAllocator::enumerate() {
  const std::size_t layers = free_layers_.size(), widths = widths_.size();
  // Sums over the first i layers of the order, for each width: a run of layers then costs two look-ups.
  std::vector<std::vector<double>> omega(widths, std::vector<double>(layers + 1, 0));
  std::vector<std::vector<std::int64_t>> size(widths, std::vector<std::int64_t>(layers + 1, 0));
  for (std::size_t w = 0; w < widths; ++w) {
    for (std::size_t i = 0; i < layers; ++i) {
      const LayerSensitivity& layer = sensitivity_.layers[free_layers_[i]];
      omega[w][i + 1] = omega[w][i] + cost(layer, metric_, widths_[w]);
      size[w][i + 1] = size[w][i] + layer.parameters * widths_[w];
    }
  }
  // Odometer over the counts of all but the narrowest width, which takes what is left.
  Candidate candidate;
  candidate.counts.resize(widths);
  const auto extend = [&](const auto& self, std::size_t w, std::size_t first, std::int64_t bits,
                          double total) -> void {
    const std::size_t least = w + 1 == widths ? layers - first : 0;
    for (std::size_t count = least; first + count <= layers; ++count) {
      candidate.counts[w] = static_cast<std::uint16_t>(count);
      const std::int64_t more_bits = bits + size[w][first + count] - size[w][first];
      const double more = total + (omega[w][first + count] - omega[w][first]);
      if (w + 1 == widths) {
        candidate.weight_bits = more_bits;
        candidate.omega = more;
        candidates_.push_back(candidate);
      } else {
        self(self, w + 1, first + count, more_bits, more);
      }
    }
  };
  extend(extend, 0, 0, pinned_bits_, pinned_omega_);
}

std::vector<Candidate> MonotoneAllocator::pareto_frontier() const {
  std::vector<Candidate> sorted = candidates_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Candidate& a, const Candidate& b) {
    return a.weight_bits != b.weight_bits ? a.weight_bits < b.weight_bits : a.omega < b.omega;
  });
  std::vector<Candidate> frontier;
  for (const Candidate& c : sorted) {
    if (frontier.empty() || c.omega < frontier.back().omega) frontier.push_back(c);
  }
  return frontier;
}

BitAssignment MonotoneAllocator::allocate(double budget_bytes) const {
  const std::int64_t budget = budget_bits(budget_bytes);
  const Candidate* best = nullptr;
  std::int64_t smallest = candidates_.front().weight_bits, largest = smallest;
  for (const Candidate& c : candidates_) {
    smallest = std::min(smallest, c.weight_bits);
    largest = std::max(largest, c.weight_bits);
    if (c.weight_bits > budget) continue;
    if (best == nullptr || c.omega < best->omega ||
        (c.omega == best->omega && c.weight_bits < best->weight_bits)) {
      best = &c;
    }
  }
  if (best == nullptr) fail_budget(budget_bytes, smallest, largest);
  BitAssignment bits = assignment(*best);
  bits.budget_bytes = budget_bytes;
  return bits;
}

BitAssignment MonotoneAllocator::assignment(const Candidate& candidate) const {
  std::vector<int> width(sensitivity_.layers.size(), 0);
  std::size_t next = 0;
  for (std::size_t w = 0; w < widths_.size(); ++w) {
    for (std::uint16_t k = 0; k < candidate.counts[w]; ++k) width[free_layers_[next++]] = widths_[w];
  }
  check(next == free_layers_.size(), "[allocate] the candidate covers {} layers where {} are free", next,
        free_layers_.size());
  return make_assignment(sensitivity_, metric_, options_, std::string(sensitivity_metric_name(metric_)),
                         [&](std::size_t i) { return width[i]; });
}

BitAssignment allocate_exact(const Sensitivity& sensitivity, SensitivityMetric metric, double budget_bytes,
                             const AllocationOptions& options) {
  const std::vector<int> widths = sorted_widths(options.candidates);
  check_options(sensitivity, metric, options);
  const std::int64_t budget = budget_bits(budget_bytes);
  std::vector<std::vector<KnapsackOption>> items;
  std::int64_t smallest = 0, largest = 0;
  for (const LayerSensitivity& layer : sensitivity.layers) {
    const std::optional<int> pinned = lookup(options.pinned, layer.name);
    std::vector<KnapsackOption> item;
    for (int bits : pinned ? std::vector{*pinned} : widths) {
      item.push_back({{static_cast<double>(layer.parameters * bits)}, cost(layer, metric, bits)});
    }
    smallest += layer.parameters * (pinned ? *pinned : widths.back());
    largest += layer.parameters * (pinned ? *pinned : widths.front());
    items.push_back(std::move(item));
  }
  if (smallest > budget) fail_budget(budget_bytes, smallest, largest);
  const KnapsackSolution solution = solve_knapsack(items, {static_cast<double>(budget), kNoBudget});
  BitAssignment bits = make_assignment(
      sensitivity, metric, options, fmt::format("knapsack-{}", sensitivity_metric_name(metric)),
      [&](std::size_t i) { return widths[static_cast<std::size_t>(solution.choice[i])]; });
  bits.budget_bytes = budget_bytes;
  return bits;
}

double budget_for_compression(const Sensitivity& sensitivity, double compression) {
  check(compression > 0, "[budget] a compression of {} makes no sense; it is 32-bit size over quantized size",
        compression);
  double elements = 0;
  for (const LayerSensitivity& layer : sensitivity.layers) elements += static_cast<double>(layer.parameters);
  return elements * 4 / compression;
}

}  // namespace goshawk
