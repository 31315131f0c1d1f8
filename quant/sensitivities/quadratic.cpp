#include "quant/sensitivities/quadratic.hpp"

namespace goshawk {
namespace {

void check_count(const WeightCandidates& candidates, const LogitChanges& changes) {
  check(changes.size() == candidates.layers.size() * candidates.bits.size(),
        "[quadratic_costs] there are {} changes for {} layers of {} widths; make them with candidate_changes",
        changes.size(), candidates.layers.size(), candidates.bits.size());
}

}  // namespace

LogitChanges candidate_changes(const SensitivityData& data, const WeightCandidates& candidates,
                               const LogitChangeOptions& options) {
  return logit_changes(data.pass(), data.sizes(), candidates.all_changes(), options);
}

CostTable QuadraticCosts::total() const {
  CostTable sum = first_order;
  for (std::size_t l = 0; l < sum.size(); ++l) {
    for (std::size_t b = 0; b < sum[l].size(); ++b) sum[l][b] += second_order[l][b];
  }
  return sum;
}

QuadraticCosts quadratic_costs(const WeightCandidates& candidates, const LogitChanges& changes) {
  check_count(candidates, changes);
  QuadraticCosts result;
  std::size_t k = 0;
  for (std::size_t l = 0; l < candidates.layers.size(); ++l) {
    for (CostTable* table :
         {&result.second_order, &result.first_order, &result.second_order_error, &result.first_order_error}) {
      table->emplace_back();
    }
    for (std::size_t b = 0; b < candidates.bits.size(); ++b, ++k) {
      const QuadraticCost cost = changes.cost(k);
      result.second_order[l].push_back(cost.second_order);
      result.first_order[l].push_back(cost.first_order);
      result.second_order_error[l].push_back(cost.second_order_error);
      result.first_order_error[l].push_back(cost.first_order_error);
    }
  }
  return result;
}

PairwiseCost joint_cost(const WeightCandidates& candidates, const LogitChanges& changes) {
  check_count(candidates, changes);
  const Tensor pairs = changes.pairs();
  const std::size_t count = changes.size();
  const double* const p = pairs.data<double>();
  std::vector<double> own(count);
  for (std::size_t k = 0; k < count; ++k) own[k] = changes.cost(k).first_order + p[k * count + k] / 2;
  return {std::vector<std::size_t>(candidates.layers.size(), candidates.bits.size()), std::move(own),
          std::vector<double>(p, p + count * count)};
}

}  // namespace goshawk
