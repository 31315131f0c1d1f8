#include "autograd/curvature/hessian_operator.hpp"

#include <utility>

namespace goshawk {

HessianOperator::HessianOperator(std::vector<Variable> parameters, MicrobatchSizes sizes, Loss loss,
                                 MicrobatchOptions options, HvpRoad road)
    : parameters_(std::move(parameters)),
      shapes_(leaf_shapes(parameters_, "HessianOperator")),
      loss_(std::move(loss)),
      wanted_road_(road),
      graphs_(std::move(sizes), options, "HessianOperator"),
      losses_(graphs_.sizes().count()),
      weights_(parameters_) {
  check(loss_ != nullptr, "[HessianOperator] the loss function is empty");
}

std::vector<double> HessianOperator::subset_weights() const {
  return graphs_.sizes().weights();
}

HvpRoad HessianOperator::road() const {
  if (wanted_road_ != HvpRoad::automatic) return wanted_road_;
  if (!road_) road_ = build(0, HvpRoad::automatic).road();
  return *road_;
}

GradientGraph HessianOperator::build(std::size_t microbatch, HvpRoad road) const {
  // The caller, or a task that this thread was in the middle of, may have switched recording off.
  const RecordingGuard on(true);
  const MeasuringGuard measuring;
  const Variable loss = loss_(microbatch);
  refuse_batch_statistics(loss, graphs_.sizes().count(), "HessianOperator");
  GradientGraph graph(loss, parameters_, road);
  losses_.confirm(microbatch, graph.loss(), "HessianOperator");
  return graph;
}

Vector HessianOperator::apply(const Vector& v) const {
  return std::move(apply_many(std::span(&v, 1)).front());
}

std::vector<Vector> HessianOperator::apply_many(std::span<const Vector> vectors) const {
  if (vectors.empty()) return {};
  for (const Vector& v : vectors) check_blocks(*this, v, "HessianOperator");
  weights_.confirm("HessianOperator");
  const HvpRoad chosen = road();
  return MicrobatchMean<GradientGraph>::products(
      graphs_, [this, chosen](std::size_t b) { return build(b, chosen); }, multiply, *this, vectors);
}

std::vector<QuadraticForms> HessianOperator::quadratic_forms(std::span<const Vector> vectors) const {
  if (vectors.empty()) return {};
  for (const Vector& v : vectors) check_blocks(*this, v, "HessianOperator");
  weights_.confirm("HessianOperator");
  const HvpRoad chosen = road();
  return MicrobatchMean<GradientGraph>::forms(
      graphs_, [this, chosen](std::size_t b) { return build(b, chosen); }, multiply, *this, vectors);
}

HessianOperator HessianOperator::block(std::span<const std::size_t> indices) const {
  HessianOperator part(select_parameters(parameters_, indices, "HessianOperator"), graphs_.sizes(), loss_,
                       graphs_.options(), wanted_road_);
  part.losses_ = losses_;
  part.weights_ = weights_;  // the block depends on the others' values too
  return part;
}

std::vector<Vector> HessianOperator::multiply(std::size_t, const GradientGraph& graph,
                                              std::span<const Vector> vectors) {
  return graph.apply_many(vectors);
}

double HessianOperator::loss() const {
  const NoGrad no_grad;
  const MeasuringGuard measuring;
  double sum = 0;
  for (std::size_t b = 0; b < graphs_.sizes().count(); ++b) {
    sum += graphs_.sizes().weight(b) * (losses_[b] ? *losses_[b] : loss_(b).item());
  }
  return sum;
}

void HessianOperator::release_graphs() const {
  graphs_.release();
}

std::size_t HessianOperator::kept_graphs() const {
  return graphs_.kept();
}

}  // namespace goshawk
