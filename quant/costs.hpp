// costs.json: what each layer costs at each bit width it may take. The allocators' input, for people to edit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace goshawk {

/// One bit width that a layer may take.
struct CostChoice {
  int bits = 0;                           ///< 1 … 32
  double bytes = 0;                       ///< of the layer's weights
  double cost = 0;                        ///< what the width does to the loss; any additive measure
  std::optional<double> bops = {};        ///< bit operations
  std::optional<double> latency_ms = {};  ///< from a latency table
};

struct LayerCosts {
  std::string name;
  std::int64_t parameters = 0;
  std::int64_t macs = 0;             ///< 0 when unknown
  std::string tied = {};             ///< layers of one group get equal bits; empty: none
  std::optional<int> pinned = {};    ///< the one width that is allowed, among the choices
  std::optional<double> score = {};  ///< sensitivity that orders the layers: λ/n, or the mean trace
  std::vector<CostChoice> choices;   ///< by growing bits
};

struct Costs {
  std::string source;  ///< the file's name, for messages
  std::vector<LayerCosts> layers = {};
  /// What pairs of choices add to the sum of the costs (the joint cost), as PairwiseCost takes it: [K, K] row
  /// by row over the K choices of all layers in order; empty: the costs are separable.
  std::vector<double> pairs = {};

  /// Throws Error naming the layer, or the width, that there is not.
  const LayerCosts& layer(std::string_view name) const;
  const CostChoice& choice(std::string_view layer, int bits) const;
};

/// Σ of the layers' weights at 32 bits, in bytes: a W-comp of R leaves this over R.
double full_precision_bytes(const Costs& costs);

/// The same costs for the order of the sensitivities reversed: the layers that mattered most come last. The
/// ablation of HAWQ's precision order. Throws Error when a layer with a choice has no score.
Costs with_reversed_scores(Costs costs);

/// {"layers": [{"name", "parameters", "macs", "tied", "pinned", "score",
///              "choices": [{"bits", "bytes", "cost", "bops", "latency_ms"}]}], "pair_costs": [[], [x], …]};
/// macs, tied, pinned, score, bops and latency_ms may be absent. "pair_costs", where it is there, has a row
/// for every choice, with what it adds together with each choice before it. Throws Error naming `source`, the
/// layer and the field for anything else.
Costs costs_from_json(std::string_view text, const std::string& source);
Costs read_costs(const std::filesystem::path& path);
std::string to_json(const Costs& costs);

/// Gives the choices the "latency_ms" of their layers and widths in a file of which no other field of a cost
/// file needs to be there. Throws Error naming the file for a layer that there is not.
void add_latencies(Costs& costs, const std::filesystem::path& path);

}  // namespace goshawk
