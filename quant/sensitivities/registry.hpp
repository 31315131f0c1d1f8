// All sensitivities under their names, measured one by one on equal terms.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "autograd/curvature/microbatches.hpp"
#include "quant/costs.hpp"
#include "quant/sensitivities/curvature_costs.hpp"
#include "quant/sensitivities/quadratic.hpp"

namespace goshawk {

/// What a name stands for. docs/sensitivity.md says more.
struct SensitivityMethod {
  std::string_view name;     ///< "fisher"
  std::string_view formula;  ///< of the cost of layer l at width b
  std::string_view source;
};
/// In the order of the tables: naive ones, the papers', ours.
const std::vector<SensitivityMethod>& sensitivity_methods();
/// Throws UsageError, with the names there are, for one that is none.
const SensitivityMethod& sensitivity_method(std::string_view name);

struct MeasuredCosts {
  std::string name;
  CostTable costs;
  CostTable errors;           ///< standard errors from the choice of pictures; empty where not known
  std::vector<double> score;  ///< of each layer: what `ratio` and `pareto` order by; empty: by the costs
  std::optional<PairwiseCost> pairs;  ///< of `joint`, whose `costs` are those of each layer alone
  /// What else was found out about each layer, such as ("lambda", one number a layer).
  std::vector<std::pair<std::string, std::vector<double>>> details;
  std::string road;  ///< and why, where one had to be chosen
  /// Everything it took from the weights' changes on, as if nothing else had been measured.
  double seconds = 0;
  /// What it would have taken to the wanted error; equal to `seconds` where that was reached.
  double projected_seconds = 0;
};

struct MeasureOptions {
  Road road = Road::automatic;  ///< of hawq and hawq-v2
  double trace_error = 0.02;    ///< relative, of hawq-v2 by double backward and of hawq-v2-hutchinson
  int max_probes = 1000;        ///< for each layer's trace
  std::uint64_t seed = 0;
  MicrobatchOptions microbatches = {};
};

/// Measures sensitivities of one model. The data and candidates must outlive it.
class SensitivityMeasurement {
 public:
  SensitivityMeasurement(const SensitivityData& data, const WeightCandidates& candidates,
                         const MeasureOptions& options = {});

  /// Throws UsageError for an unknown name. What several names need is measured once, and its seconds count
  /// for each of them.
  MeasuredCosts measure(std::string_view name);

 private:
  struct Changes {
    LogitChanges changes;
    double seconds = 0;
  };
  struct Eigenvalues {
    EigenvalueCosts costs;
    double seconds = 0;
  };
  const Changes& changes();
  const Eigenvalues& eigenvalues();

  const SensitivityData& data_;
  const WeightCandidates& candidates_;
  MeasureOptions options_;
  std::optional<Changes> changes_;
  std::optional<Eigenvalues> eigenvalues_;
};

struct CostFileOptions {
  std::vector<std::pair<std::string, int>> pinned = {};  ///< layers that keep one width
  /// Of every layer, for BOPs = MACs · weight bits · activation bits; 0: the weight's. The first layer, whose
  /// input is the picture, has kPictureBits unless this is 32.
  int activation_bits = 0;
  /// Layers that get equal widths, as residual_groups finds them. A pinned layer is in no group: it keeps its
  /// width, which is nobody else's.
  std::vector<std::vector<std::string>> tied = {};
};

/// The measured costs as the allocators take them. Throws Error for a pinned or tied layer that does not
/// exist or a width that is no candidate.
Costs to_costs(const WeightCandidates& candidates, const MeasuredCosts& measured,
               const CostFileOptions& options = {});

}  // namespace goshawk
