#include "autograd/curvature/gauss_newton.hpp"

#include <utility>

#include "autograd/grad.hpp"
#include "autograd/jvp.hpp"

namespace goshawk {
namespace {

/// r_n (r_nᵀ u_n) for every sample.
Tensor residual_product(const Tensor& residual, const Tensor& u) {
  Tensor out = Tensor::empty_like(u);
  const std::int64_t samples = u.dim(0), classes = u.dim(1);
  dispatch_floating(u.dtype(), "GaussNewtonOperator", [&]<class T>() {
    for (std::int64_t n = 0; n < samples; ++n) {
      const double* const r = residual.data<double>() + n * classes;
      const T* const from = u.data<T>() + n * classes;
      double inner = 0;
      for (std::int64_t c = 0; c < classes; ++c) inner += r[c] * static_cast<double>(from[c]);
      for (std::int64_t c = 0; c < classes; ++c) {
        out.data<T>()[n * classes + c] = static_cast<T>(r[c] * inner);
      }
    }
  });
  return out;
}

}  // namespace

GaussNewtonOperator::GaussNewtonOperator(std::vector<Variable> parameters, MicrobatchSizes sizes,
                                         ClassifierPass pass, OutputMetric metric, MicrobatchOptions options)
    : parameters_(std::move(parameters)),
      shapes_(leaf_shapes(parameters_, "GaussNewtonOperator")),
      pass_(std::move(pass)),
      metric_(metric),
      graphs_(std::move(sizes), options, "GaussNewtonOperator"),
      fingerprints_(graphs_.sizes().count()),
      weights_(parameters_) {
  check(pass_ != nullptr, "[GaussNewtonOperator] the forward pass is empty");
}

GaussNewtonOperator::Graph GaussNewtonOperator::build(std::size_t microbatch) const {
  const RecordingGuard on(true);
  const MeasuringGuard measuring;
  const ClassifierGraph pass = pass_(microbatch);
  const std::int64_t size = graphs_.sizes()[microbatch];
  check(pass.logits.shape().size() == 2 && pass.logits.dim(0) == size,
        "[GaussNewtonOperator] the logits of microbatch {} are {} but it has {} samples", microbatch,
        pass.logits.shape(), size);
  refuse_batch_statistics(pass.logits, graphs_.sizes().count(), "GaussNewtonOperator");
  Graph graph{pass.logits, std::make_shared<SoftmaxOutput>(pass.logits.value()), {}};
  if (metric_ == OutputMetric::empirical_fisher) {
    graph.residual = graph.output->residual(pass.labels);
    fingerprints_.confirm(microbatch, graph.output->loss_sum(pass.labels), "GaussNewtonOperator");
  } else {
    const Tensor& z = pass.logits.value();
    fingerprints_.confirm(microbatch, block_dot(z, z), "GaussNewtonOperator", "sum of squared logits");
  }
  return graph;
}

std::vector<Vector> GaussNewtonOperator::multiply(const Graph& graph, std::span<const Vector> vectors) const {
  const NoGrad no_grad;
  std::vector<std::vector<Variable>> directions;
  for (const Vector& v : vectors) directions.emplace_back(v.begin(), v.end());
  std::vector<std::vector<Variable>> seeds;
  for (const std::vector<Variable>& tangent :
       jvp_many(std::span(&graph.logits, 1), parameters_, directions, {.allow_unused = true})) {
    const Tensor& u = tangent[0].value();
    const Tensor seed = metric_ == OutputMetric::softmax_cross_entropy ? graph.output->product(u)
                                                                       : residual_product(graph.residual, u);
    rescale({seed}, 1 / static_cast<double>(u.dim(0)));
    seeds.push_back({seed});
  }
  std::vector<Vector> products(vectors.size(), Vector(parameters_.size()));
  visit_gradients(std::span(&graph.logits, 1), parameters_, seeds,
                  [&](std::size_t l, std::span<const Variable> gradients) {
                    for (std::size_t k = 0; k < gradients.size(); ++k) products[k][l] = gradients[k].value();
                  });
  for (Vector& product : products) {
    for (std::size_t l = 0; l < product.size(); ++l) {
      if (!product[l].defined()) product[l] = Tensor::zeros(shapes_[l], dtype());
    }
  }
  return products;
}

Vector GaussNewtonOperator::apply(const Vector& v) const {
  return std::move(apply_many(std::span(&v, 1)).front());
}

std::vector<Vector> GaussNewtonOperator::apply_many(std::span<const Vector> vectors) const {
  for (const Vector& v : vectors) check_blocks(*this, v, "GaussNewtonOperator");
  weights_.confirm("GaussNewtonOperator");
  const auto compute = [this](std::size_t, const Graph& graph, std::span<const Vector> some) {
    return multiply(graph, some);
  };
  return MicrobatchMean<Graph>::products(
      graphs_, [this](std::size_t b) { return build(b); }, compute, *this, vectors);
}

std::vector<QuadraticForms> GaussNewtonOperator::quadratic_forms(std::span<const Vector> vectors) const {
  for (const Vector& v : vectors) check_blocks(*this, v, "GaussNewtonOperator");
  weights_.confirm("GaussNewtonOperator");
  const auto compute = [this](std::size_t, const Graph& graph, std::span<const Vector> some) {
    return multiply(graph, some);
  };
  return MicrobatchMean<Graph>::forms(
      graphs_, [this](std::size_t b) { return build(b); }, compute, *this, vectors);
}

GaussNewtonOperator GaussNewtonOperator::block(std::span<const std::size_t> indices) const {
  GaussNewtonOperator part(select_parameters(parameters_, indices, "GaussNewtonOperator"), graphs_.sizes(),
                           pass_, metric_, graphs_.options());
  part.weights_ = weights_;  // the block depends on the others' values too
  return part;
}

}  // namespace goshawk
