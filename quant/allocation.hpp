// Bit allocation: from sensitivities and a budget in bytes to a bit width for every layer's weights.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "quant/bits.hpp"
#include "quant/cost_allocation.hpp"
#include "quant/sensitivity.hpp"

namespace goshawk {

/// Which numbers rank the layers and price an assignment.
enum class SensitivityMetric : std::uint8_t {
  hawq,     ///< order S = |λ|/n, cost Σ |λ| ‖Q(W) − W‖² (HAWQ, equations 3 and 6)
  hawq_v2,  ///< order Tr(H)/n, cost Σ Tr(H)/n ‖Q(W) − W‖² (HAWQ-V2, equation 11)
};
std::string_view sensitivity_metric_name(SensitivityMetric metric);

struct AllocationOptions {
  std::vector<int> candidates = {2, 3, 4, 8};  ///< weight bits to choose from, each 1 … 8 or 32, any order
  /// Layers that keep a given width; they count in the size and the cost, and stay out of the order. Empty:
  /// none.
  std::map<std::string, int> pinned = {};
  int activation_bits = 4;  ///< of every layer
  std::map<std::string, int> pinned_activations = {};
};

/// One point of (size, Ω): how many layers, taken from the most sensitive down, get each width.
struct Candidate {
  std::int64_t weight_bits = 0;  ///< Σ n_i b_i, pinned layers included
  double omega = 0;
  std::vector<std::uint16_t>
      counts;  ///< one per candidate width, the widest first; they sum to the free layers
};

/// All assignments that are monotone in a sensitivity order (a more sensitive layer never gets fewer bits):
/// C(L + m − 1, m − 1) of them for L free layers and m widths (HAWQ-V2, section 3.2).
class MonotoneAllocator {
 public:
  /// Throws Error for unknown pinned layers, bad widths, perturbations that were not measured, a metric whose
  /// values are all zero, and for more than 2²² assignments (take fewer widths).
  MonotoneAllocator(const Sensitivity& sensitivity, SensitivityMetric metric, AllocationOptions options = {});

  /// Names of the free layers, the most sensitive first; equal ones in network order.
  const std::vector<std::string>& order() const { return order_; }
  /// Distinct candidate widths, the widest first: what Candidate::counts refers to.
  const std::vector<int>& widths() const { return widths_; }
  /// Every monotone assignment, in the order of enumeration.
  const std::vector<Candidate>& candidates() const { return candidates_; }
  /// The non-dominated ones by growing size: each costs less than every smaller one.
  std::vector<Candidate> pareto_frontier() const;
  /// The candidate with the smallest Ω among those of at most `budget_bytes` weight bytes; of equal ones the
  /// smaller. HAWQ gives only a relative order and leaves the sizes open; choosing them by Σ |λ| ‖Q(W) − W‖²,
  /// the quantity it orders the fine-tuning by, is our completion of it. For HAWQ-V2 this is the published
  /// rule. Throws Error naming the smallest and the largest possible size when nothing fits.
  BitAssignment allocate(double budget_bytes) const;
  /// The bits of a candidate, layer by layer in network order.
  BitAssignment assignment(const Candidate& candidate) const;

 private:
  void enumerate();

  Sensitivity sensitivity_;
  SensitivityMetric metric_;
  AllocationOptions options_;
  std::vector<int> widths_;               ///< distinct candidate widths, the widest first
  std::vector<std::size_t> free_layers_;  ///< indices into sensitivity_.layers, the most sensitive first
  std::vector<std::string> order_;
  std::int64_t pinned_bits_ = 0;
  double pinned_omega_ = 0;
  std::vector<Candidate> candidates_;
};

/// The exact optimum over all assignments, monotone or not: never a larger Ω than MonotoneAllocator's. Same
/// options, same errors. See solve_knapsack.
BitAssignment allocate_exact(const Sensitivity& sensitivity, SensitivityMetric metric, double budget_bytes,
                             const AllocationOptions& options = {});

/// The weight budget that `compression` (W-comp, for example 13.11) allows: Σ n_i · 4 / compression bytes.
double budget_for_compression(const Sensitivity& sensitivity, double compression);

}  // namespace goshawk
