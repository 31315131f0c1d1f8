// The exact road against dense Hessians of small classifiers, whose columns are double-backward products.
#include <cmath>
#include <doctest/doctest.h>
#include <functional>
#include <string>

#include "autograd/curvature/activation_hessian.hpp"
#include "autograd/curvature/classifier_traces.hpp"
#include "autograd/curvature/gauss_newton.hpp"
#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/logit_changes.hpp"
#include "autograd/curvature/power_iteration.hpp"
#include "autograd/curvature/road.hpp"
#include "core/parallel.hpp"
#include "tests/autograd/curvature/classifier_nets.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

double largest_element(const Matrix& m) {
  double largest = 0;
  for (double v : m.a) largest = std::max(largest, std::abs(v));
  return largest;
}

// Per-sample gradients of the loss, one row a sample, by one grad each.
std::vector<std::vector<double>> sample_gradients(const ClassifierNet& net) {
  std::vector<std::vector<double>> gradients;
  for (std::size_t b = 0; b < net.sizes.size(); ++b) {
    const ClassifierGraph g = net.graph(b);
    const Variable losses = softmax_cross_entropy(g.logits, g.labels, Reduction::none);
    for (std::int64_t n = 0; n < net.sizes[b]; ++n) {
      const Tensor seed = Tensor::zeros(losses.shape(), DType::f64);
      seed.data<double>()[n] = 1;
      Vector gradient;
      for (const Variable& v : grad(losses, net.weights, {.grad_outputs = {seed}}))
        gradient.push_back(v.value());
      gradients.push_back(flatten(gradient));
    }
  }
  return gradients;
}

}  // namespace

TEST_CASE("Gauss-Newton blocks of one layer are the Hessian's, and their top eigenvalues too") {
  for (Architecture a : kPiecewiseLinear) {
    const ClassifierNet net(a, {3, 2});
    const HessianOperator hessian = net.hessian();
    const GaussNewtonOperator gauss_newton(net.weights, net.sizes, net.pass());
    for (std::size_t l = 0; l < net.weights.size(); ++l) {
      const Matrix h = dense(hessian.block(l)), g = dense(gauss_newton.block(l));
      INFO("architecture ", static_cast<int>(a), " layer ", l);
      CHECK(largest_element(h) > 1e-4);
      CHECK(largest_difference(h, g) < 1e-9 * largest_element(h));
      const double top = jacobi(h).values[0];
      const Eigenpair found =
          power_iteration(gauss_newton.block(l), {.tolerance = 1e-10, .max_iterations = 500})[0];
      CHECK(found.value == doctest::Approx(top).epsilon(1e-6));
      CHECK(found.value > 0);
    }
    // Across layers they are not the same.
    CHECK(largest_difference(dense(hessian), dense(gauss_newton)) > 1e-3 * largest_element(dense(hessian)));
  }
}

TEST_CASE(
    "the Gauss-Newton matrix is Jᵀ S J from a dense Jacobian, and for tanh it is not the Hessian block") {
  const ClassifierNet net(Architecture::tanh, {2, 1});
  const GaussNewtonOperator gauss_newton(net.weights, net.sizes, net.pass());
  Matrix expected(static_cast<std::size_t>(gauss_newton.size()));
  for (std::size_t b = 0; b < 2; ++b) {
    const ClassifierGraph g = net.graph(b);
    for (std::int64_t n = 0; n < net.sizes[b]; ++n) {
      std::vector<std::vector<double>> jacobian;
      std::vector<double> p;
      double total = 0;
      for (std::int64_t c = 0; c < net.kClasses; ++c) {
        const Tensor seed = Tensor::zeros(g.logits.shape(), DType::f64);
        seed.data<double>()[n * net.kClasses + c] = 1;
        Vector row;
        for (const Variable& v : grad(g.logits, net.weights, {.grad_outputs = {seed}}))
          row.push_back(v.value());
        jacobian.push_back(flatten(row));
        p.push_back(std::exp(g.logits.value().data<double>()[n * net.kClasses + c]));
        total += p.back();
      }
      for (double& v : p) v /= total;
      for (std::size_t i = 0; i < expected.n; ++i) {
        for (std::size_t j = 0; j < expected.n; ++j) {
          double mean_i = 0, mean_j = 0, mean_ij = 0;
          for (std::size_t c = 0; c < p.size(); ++c) {
            mean_i += p[c] * jacobian[c][i];
            mean_j += p[c] * jacobian[c][j];
            mean_ij += p[c] * jacobian[c][i] * jacobian[c][j];
          }
          expected(i, j) += (mean_ij - mean_i * mean_j) / 3;
        }
      }
    }
  }
  CHECK(largest_difference(dense(gauss_newton), expected) < 1e-12);
  const Matrix h = dense(net.hessian().block(0)), g = dense(gauss_newton.block(0));
  CHECK(largest_difference(h, g) > 1e-2 * largest_element(h));
}

TEST_CASE("the empirical Fisher matrix is the mean of per-sample gradient products") {
  const ClassifierNet net(Architecture::residual, {3, 2});
  const GaussNewtonOperator fisher(net.weights, net.sizes, net.pass(), OutputMetric::empirical_fisher);
  const auto gradients = sample_gradients(net);
  Matrix expected(static_cast<std::size_t>(fisher.size()));
  for (const std::vector<double>& g : gradients) {
    for (std::size_t i = 0; i < expected.n; ++i) {
      for (std::size_t j = 0; j < expected.n; ++j) {
        expected(i, j) += g[i] * g[j] / static_cast<double>(gradients.size());
      }
    }
  }
  CHECK(largest_difference(dense(fisher), expected) < 1e-12);

  // And its traces, layer by layer, are the mean squared norms of those gradients.
  const ExactTraces traces =
      exact_traces(net.pass(), net.sizes, {.metric = OutputMetric::empirical_fisher, .activations = false});
  CHECK(traces.directions == 1);
  std::size_t begin = 0;
  REQUIRE(traces.layers.size() == net.weights.size());
  for (const LayerTraces& layer : traces.layers) {
    const std::size_t end = begin + static_cast<std::size_t>(layer.weight_elements);
    CHECK(std::abs(layer.weight.value - trace_of(expected, begin, end)) < 1e-12);
    CHECK(layer.weight.standard_error == 0);
    begin = end;
  }
  CHECK(contains(message_of([&] {
                   exact_traces(net.pass(), net.sizes,
                                {.samples = 4, .metric = OutputMetric::empirical_fisher});
                 }),
                 "leave samples at 0"));
}

TEST_CASE("several products share a graph and have the bits of single ones; forms add up over microbatches") {
  const ClassifierNet net(Architecture::residual, {3, 2, 1});
  const GaussNewtonOperator a(net.weights, net.sizes, net.pass());
  const GaussNewtonOperator unkept(net.weights, net.sizes, net.pass(), OutputMetric::softmax_cross_entropy,
                                   {.graph_bytes = 0});
  std::vector<Vector> vectors;
  for (std::uint64_t k = 0; k < 10; ++k) {
    Random random(k);
    vectors.push_back(normal_vector(a.shapes(), DType::f64, random));
  }
  vectors[1][2] = Tensor();
  const std::vector<Vector> products = a.apply_many(vectors);
  const std::vector<QuadraticForms> forms = unkept.quadratic_forms(vectors);
  for (std::size_t k = 0; k < vectors.size(); ++k) {
    CHECK(same_bits(unkept.apply(vectors[k]), products[k]));
    for (std::size_t l = 0; l < net.weights.size(); ++l) {
      const double direct = vectors[k][l].defined() ? block_dot(vectors[k][l], products[k][l]) : 0;
      CHECK(std::abs(forms[k].blocks[l] - direct) < 1e-12);
    }
  }
  CHECK_NOTHROW(check_deterministic(unkept));
}

TEST_CASE("exact traces of weights and activations equal those of dense Hessians") {
  for (Architecture a : kPiecewiseLinear) {
    const ClassifierNet net(a, {3, 2, 1});
    const ExactTraces traces = exact_traces(net.pass(), net.sizes);
    REQUIRE(traces.layers.size() == net.weights.size());
    CHECK(traces.directions == net.kClasses - 1);
    CHECK(traces.images == 6);
    const HessianOperator hessian = net.hessian();
    CHECK(traces.loss == doctest::Approx(hessian.loss()).epsilon(1e-13));
    for (std::size_t l = 0; l < net.weights.size(); ++l) {
      INFO("architecture ", static_cast<int>(a), " layer ", l);
      const LayerTraces& layer = traces.layers[l];
      CHECK(layer.name == net.names[l]);
      CHECK(layer.weight_elements == net.weights[l].numel());
      const Matrix h = dense(hessian.block(l));
      CHECK(std::abs(layer.weight.value - trace_of(h, 0, h.n)) < 1e-9 * trace_of(h, 0, h.n));
      CHECK(layer.weight.standard_error == 0);

      const ActivationHessian activation(net.names[l], net.sizes, net.pass());
      const Matrix ha = dense(activation);
      CHECK(std::abs(layer.activation.value - trace_of(ha, 0, ha.n)) < 1e-9 * trace_of(ha, 0, ha.n));
      // Image by image: the images' elements follow each other in the joint vector.
      std::size_t offset = 0;
      const auto elements = static_cast<std::size_t>(layer.activation_elements);
      for (std::size_t n = 0; n < 6; ++n, offset += elements) {
        CHECK(std::abs(layer.activation_per_image[n] - 6 * trace_of(ha, offset, offset + elements)) <
              1e-9 * (1 + layer.activation_per_image[n]));
      }
      CHECK(offset == ha.n);
      CHECK(*layer.weight.subset_error == estimate_mean(layer.weight_per_image).standard_error);
    }
  }
}

TEST_CASE("weights that changed since the first product are refused, although the graphs are kept") {
  const ClassifierNet net(Architecture::plain, {3, 2});
  const GaussNewtonOperator gauss_newton(net.weights, net.sizes, net.pass());
  const GaussNewtonOperator block = gauss_newton.block(0);
  const ActivationHessian activation("layer1", net.sizes, net.pass());
  Random random(6);
  const Vector v = normal_vector(gauss_newton.shapes(), DType::f64, random), w{v[0]};
  const Vector a = normal_vector(activation.shapes(), DType::f64, random);
  gauss_newton.apply(v);
  block.apply(w);
  const Vector expected = activation.apply(a);
  const Tensor weight = net.weights[2].value();
  rescale({weight}, -1);
  CHECK(
      contains(message_of([&] { gauss_newton.apply(v); }), "[GaussNewtonOperator] parameter 2 has changed"));
  CHECK(contains(message_of([&] { block.apply(w); }), "[GaussNewtonOperator] parameter 2 has changed"));
  const std::string message = "[ActivationHessian] parameter 2 has changed";
  CHECK(contains(message_of([&] { activation.apply(a); }), message));
  CHECK(contains(message_of([&] { activation.quadratic_forms(std::span(&a, 1)); }), message));
  CHECK(contains(message_of([&] { activation.per_sample_forms(a); }), message));
  CHECK(contains(message_of([&] { activation.per_sample_gradients(); }), message));
  rescale({weight}, -1);
  CHECK(same_bits(activation.apply(a), expected));
}

TEST_CASE("activation Hessians: block-diagonal over images, per-sample forms, Hutchinson's mean") {
  for (Architecture a : {Architecture::residual, Architecture::tanh}) {
    const ClassifierNet net(a, {2, 3});
    const ActivationHessian h("layer1", net.sizes, net.pass());
    Random random(4);
    const Vector v = normal_vector(h.shapes(), DType::f64, random);
    const std::vector<double> forms = h.per_sample_forms(v);
    REQUIRE(forms.size() == 5);
    // An image's form from a vector that is zero elsewhere.
    double sum = 0;
    for (std::size_t n = 0; n < 5; ++n) {
      const std::size_t b = n < 2 ? 0 : 1;
      const auto row = static_cast<std::int64_t>(n < 2 ? n : n - 2);
      const Vector alone = zero_vector(h.shapes(), DType::f64);
      const std::int64_t size = v[b].numel() / v[b].dim(0);
      std::copy_n(v[b].data<double>() + row * size, size, alone[b].data<double>() + row * size);
      CHECK(std::abs(5 * dot(alone, h.apply(alone)) - forms[n]) < 1e-12 * (1 + std::abs(forms[n])));
      sum += forms[n] / 5;
    }
    CHECK(std::abs(dot(v, h.apply(v)) - sum) < 1e-12);
    const Matrix m = dense(h);
    const Estimate trace = hutchinson(h, {.relative_error = 0.05, .max_samples = 400});
    CHECK(std::abs(trace.value - trace_of(m, 0, m.n)) < 4 * trace.standard_error);
    CHECK(trace.standard_error < 0.2 * std::abs(trace.value));
    CHECK(trace.subset_error.has_value());
    const Vector gradients = h.per_sample_gradients();
    CHECK(gradients[1].shape() == Shape{3, 6, 6, 3});
  }
}

TEST_CASE("quadratic costs equal ½ Δwᵀ H Δw and the gradient's inner product, forward and backward") {
  for (Architecture a : kPiecewiseLinear) {
    const ClassifierNet net(a, {3, 2, 1});
    const HessianOperator hessian = net.hessian();
    std::vector<WeightChange> changes;
    Random random(9);
    for (int repeat = 0; repeat < 2; ++repeat) {
      for (std::size_t l = 0; l < net.weights.size(); ++l) {
        changes.push_back({net.names[l], random_normal(net.weights[l].shape(), DType::f64, random)});
      }
    }
    const auto gradients = sample_gradients(net);
    for (JacobianWay way : {JacobianWay::forward, JacobianWay::backward, JacobianWay::automatic}) {
      const LogitChanges u = logit_changes(net.pass(), net.sizes, changes, {.way = way});
      REQUIRE(u.size() == changes.size());
      CHECK(u.images() == 6);
      CHECK(u.loss() == doctest::Approx(hessian.loss()).epsilon(1e-13));
      for (std::size_t k = 0; k < changes.size(); ++k) {
        const std::size_t l = k % net.weights.size();
        const Vector v{changes[k].change};
        const double form = dot(v, hessian.block(l).apply(v)) / 2;
        const Vector whole = zero_vector(hessian.shapes(), DType::f64);
        whole[l].copy_from(changes[k].change);
        const std::vector<double> flat = flatten(whole);
        double slope = 0;
        for (const std::vector<double>& g : gradients) {
          for (std::size_t i = 0; i < g.size(); ++i) slope += g[i] * flat[i] / 6;
        }
        const QuadraticCost cost = u.cost(k);
        INFO("architecture ", static_cast<int>(a), " change ", k, " way ", static_cast<int>(way));
        CHECK(std::abs(cost.second_order - form) < 1e-9 * form);
        CHECK(std::abs(cost.first_order - slope) < 1e-9 * (std::abs(slope) + form));
        CHECK(cost.second_order_error > 0);
      }
      // All layers together: the whole network's Gauss-Newton quadratic.
      std::vector<std::size_t> chosen;
      Vector joint;
      for (std::size_t l = 0; l < net.weights.size(); ++l) {
        chosen.push_back(l);
        joint.push_back(changes[l].change);
      }
      const GaussNewtonOperator gauss_newton(net.weights, net.sizes, net.pass());
      const double form = dot(joint, gauss_newton.apply(joint)) / 2;
      CHECK(std::abs(u.cost(chosen).second_order - form) < 1e-9 * form);
      CHECK(u.cost(std::span<const std::size_t>()).total() == 0);
    }
  }
}

TEST_CASE("a network that is not piecewise linear takes the other road, and a forced exact one is refused") {
  const ClassifierNet smooth(Architecture::tanh, {3, 2}), straight(Architecture::residual, {3, 2});
  const RoadChoice choice = choose_road(smooth.graph(0));
  CHECK(choice.road == Road::double_backward);
  CHECK(contains(choice.reason, "tanh"));
  CHECK(contains(choice.reason, "layer0"));
  CHECK(choose_road(straight.graph(0)).road == Road::exact);
  CHECK(choose_road(straight.graph(0), Road::double_backward).road == Road::double_backward);
  CHECK(contains(message_of([&] { choose_road(smooth.graph(0), Road::exact); }), "tanh"));
  CHECK(contains(message_of([&] { exact_traces(smooth.pass(), smooth.sizes); }), "tanh"));
  // It would indeed have been wrong: the Gauss-Newton block's trace is another one.
  const Matrix h = dense(smooth.hessian().block(0));
  const Matrix g = dense(GaussNewtonOperator(smooth.weights, smooth.sizes, smooth.pass()).block(0));
  CHECK(std::abs(trace_of(h, 0, h.n) - trace_of(g, 0, g.n)) > 1e-2 * std::abs(trace_of(h, 0, h.n)));

  ClassifierGraph tied = straight.graph(0);
  tied.sites[2].name = tied.sites[1].name;
  CHECK(contains(choose_road(tied).reason, "more than once"));
  tied.sites[2].name = "another";
  tied.sites[2].weight = tied.sites[1].weight;
  CHECK(choose_road(tied).road == Road::double_backward);
  CHECK(contains(choose_road(tied).reason, "layer1 and another share their weight"));
  for (Road road : {Road::automatic, Road::exact, Road::double_backward})
    CHECK(road_of(road_name(road)) == road);
  CHECK_THROWS_AS(road_of("scenic"), UsageError);
}

TEST_CASE(
    "exact traces ended after any microbatch are those of its images, and resumed they have the same bits") {
  const ClassifierNet net(Architecture::plain, {3, 2, 4});
  const auto check_equal = [](const ExactTraces& x, const ExactTraces& y) {
    CHECK(x.images == y.images);
    CHECK(x.loss == y.loss);
    CHECK(x.directions == y.directions);
    REQUIRE(x.layers.size() == y.layers.size());
    for (std::size_t l = 0; l < x.layers.size(); ++l) {
      const LayerTraces &a = x.layers[l], &b = y.layers[l];
      CHECK(a.name == b.name);
      CHECK(a.weight_elements == b.weight_elements);
      CHECK(a.activation_elements == b.activation_elements);
      CHECK(a.weight_per_image == b.weight_per_image);
      CHECK(a.activation_per_image == b.activation_per_image);
      for (const auto& [u, v] : {std::pair{a.weight, b.weight}, std::pair{a.activation, b.activation}}) {
        CHECK(u.value == v.value);
        CHECK(u.standard_error == v.standard_error);
        CHECK(u.subset_error == v.subset_error);
        CHECK(u.samples == v.samples);
        CHECK(u.converged == v.converged);
      }
    }
  };
  for (int samples : {0, 5}) {
    ExactTraceOptions options{.samples = samples, .seed = 3};
    const ExactTraces whole = exact_traces(net.pass(), net.sizes, options);
    CHECK(whole.layers[0].weight.converged);
    for (std::size_t stop : {1, 2, 3}) {
      ExactTraceState state;
      options.progress = [&](std::size_t done, std::size_t all) {
        CHECK(state.sizes.size() == done);
        CHECK(all == 3);
        return done < stop;
      };
      const ExactTraces some = exact_traces(net.pass(), net.sizes, options, &state);
      options.progress = {};
      std::vector<std::int64_t> first(net.sizes.begin(),
                                      net.sizes.begin() + static_cast<std::ptrdiff_t>(stop));
      CHECK(some.layers[0].weight.converged == (stop == 3));
      ExactTraces expected = exact_traces(net.pass(), first, options);
      for (LayerTraces& layer : expected.layers) {
        layer.weight.converged = layer.activation.converged = stop == 3;
      }
      check_equal(some, expected);
      check_equal(exact_traces(net.pass(), net.sizes, options, &state), whole);
      CHECK(contains(
          message_of([&] { exact_traces(net.pass(), net.sizes, {.samples = samples, .seed = 4}, &state); }),
          "seed 3"));
      CHECK(contains(message_of([&] {
                       exact_traces(net.pass(), {4, 2, 3}, options, &state);
                     }),
                     "other microbatches"));
    }
  }
}

TEST_CASE("traces by the road that holds: both say which and why, and agree with dense Hessians") {
  for (Architecture a : {Architecture::tanh, Architecture::plain}) {
    const ClassifierNet net(a, {3, 2});
    for (Road wanted : {Road::automatic, Road::double_backward}) {
      const ClassifierTraces traces =
          classifier_traces(net.pass(), net.sizes,
                            {.road = wanted, .hutchinson = {.relative_error = 0.02, .max_samples = 200}});
      const bool exact = a == Architecture::plain && wanted == Road::automatic;
      CHECK((traces.road.road == Road::exact) == exact);
      CHECK_FALSE(traces.road.reason.empty());
      CHECK(traces.loss == doctest::Approx(net.hessian().loss()).epsilon(1e-12));
      REQUIRE(traces.layers.size() == 3);
      for (std::size_t l = 0; l < 3; ++l) {
        const Matrix h = dense(net.hessian().block(l));
        const Matrix ha = dense(ActivationHessian(net.names[l], net.sizes, net.pass()));
        const LayerTraces& layer = traces.layers[l];
        CHECK(layer.name == net.names[l]);
        CHECK((layer.weight.standard_error == 0) == exact);
        CHECK(std::abs(layer.weight.value - trace_of(h, 0, h.n)) <= 4 * layer.weight.standard_error + 1e-12);
        CHECK(std::abs(layer.activation.value - trace_of(ha, 0, ha.n)) <=
              4 * layer.activation.standard_error + 1e-12);
      }
    }
  }
  const ClassifierNet smooth(Architecture::tanh, {2});
  CHECK(contains(message_of([&] { classifier_traces(smooth.pass(), {2}, {.road = Road::exact}); }), "tanh"));
}

TEST_CASE("batch norm in train mode is refused where microbatches would not add up") {
  const ClassifierNet net(Architecture::plain, {3, 2});
  const Variable gamma = Variable::leaf(Tensor::full({3}, DType::f64, 1)),
                 beta = Tensor::zeros({3}, DType::f64);
  const auto graph = [&](std::size_t b) {
    ClassifierGraph g;
    LinearSite site;
    site.name = "conv";
    site.weight = net.weights[0];
    site.input = Variable::leaf(net.images[b]);
    site.output = conv2d(site.input, site.weight, {});
    g.sites = {site};
    g.logits = matmul(global_avg_pool(batch_norm_train(site.output, gamma, beta, 1e-5, {.relu = true}).y),
                      net.weights[2]);
    g.labels = net.labels[b];
    return g;
  };
  const auto loss = [&](std::size_t b) {
    const ClassifierGraph g = graph(b);
    return softmax_cross_entropy(g.logits, g.labels);
  };
  const std::vector<Variable> one{net.weights[0]};
  const auto hessian = [&](std::vector<std::int64_t> sizes) {
    return message_of([&] {
      const HessianOperator h(one, std::move(sizes), loss);
      h.apply({net.weights[0].value()});
    });
  };
  CHECK(contains(hessian({3, 2}), "train mode"));
  CHECK(hessian({3}) == "no error");
  CHECK(contains(message_of([&] {
                   GaussNewtonOperator(one, {3, 2}, graph).apply({net.weights[0].value()});
                 }),
                 "train mode"));
  CHECK(contains(message_of([&] { exact_traces(graph, {3}); }), "train mode"));
  CHECK(contains(message_of([&] {
                   logit_changes(graph, {3, 2}, {{"conv", net.weights[0].value()}});
                 }),
                 "train mode"));
  // One microbatch has changes of its logits, but not one gradient for all of its images.
  const std::vector<WeightChange> changes(200, {"conv", net.weights[0].value()});
  const LogitChanges forward = logit_changes(graph, {3}, changes, {.way = JacobianWay::forward});
  CHECK(logit_changes(graph, {3}, changes).cost(0).second_order == forward.cost(0).second_order);
  CHECK(contains(message_of([&] { logit_changes(graph, {3}, changes, {.way = JacobianWay::backward}); }),
                 "train mode"));
}

TEST_CASE("random directions are unbiased with honest errors") {
  const ClassifierNet net(Architecture::residual, {4, 4});
  const ExactTraces exact = exact_traces(net.pass(), net.sizes);
  for (OutputProbe probe : {OutputProbe::rademacher, OutputProbe::classes}) {
    // 95 % intervals over many seeds. Rarely drawn classes make the sums skewed, so draws must not be too
    // few.
    int inside = 0, all = 0;
    const int seeds = 100;
    for (int s = 0; s < seeds; ++s) {
      const ExactTraces sampled = exact_traces(
          net.pass(), net.sizes, {.samples = 64, .probe = probe, .seed = static_cast<std::uint64_t>(s)});
      for (std::size_t l : {std::size_t{0}, std::size_t{3}}) {
        for (const auto& [estimate, truth] :
             {std::pair{sampled.layers[l].weight, exact.layers[l].weight.value},
              std::pair{sampled.layers[l].activation, exact.layers[l].activation.value}}) {
          CHECK(estimate.standard_error > 0);
          inside += std::abs(estimate.value - truth) < 1.96 * estimate.standard_error ? 1 : 0;
          ++all;
        }
      }
    }
    const double share = static_cast<double>(inside) / all;
    MESSAGE("probe " << static_cast<int>(probe) << ": " << share << " of intervals hold");
    // The four quantities share directions, so the binomial spread is near that of 100 draws: ±0.044 at 2σ.
    CHECK(share > 0.90);
    CHECK(share < 0.99);
  }
}

TEST_CASE("the same bits for any number of threads and any concurrency; the cut changes rounding only") {
  const ClassifierNet net(Architecture::residual, {3, 2, 2, 1}, DType::f32),
      whole(Architecture::residual, {8});
  const std::vector<WeightChange> changes{{"layer1", net.weights[1].value()},
                                          {"layer3", net.weights[3].value()}};
  set_num_threads(1);
  const ExactTraces one = exact_traces(net.pass(), net.sizes);
  const QuadraticCost cost = logit_changes(net.pass(), net.sizes, changes).cost(0);
  set_num_threads(2);
  for (int concurrency : {0, 1, 3}) {
    const ExactTraces again = exact_traces(net.pass(), net.sizes, {.concurrency = concurrency});
    for (std::size_t l = 0; l < one.layers.size(); ++l) {
      CHECK(again.layers[l].weight_per_image == one.layers[l].weight_per_image);
      CHECK(again.layers[l].activation_per_image == one.layers[l].activation_per_image);
    }
    CHECK(logit_changes(net.pass(), net.sizes, changes, {.concurrency = concurrency}).cost(0).second_order ==
          cost.second_order);
  }
  set_num_threads(0);
  const ExactTraces twice = exact_traces(whole.pass(), whole.sizes);
  for (std::size_t l = 0; l < one.layers.size(); ++l) {
    CHECK(one.layers[l].weight.value == doctest::Approx(twice.layers[l].weight.value).epsilon(1e-5));
    CHECK(one.layers[l].activation.value == doctest::Approx(twice.layers[l].activation.value).epsilon(1e-5));
  }
}

TEST_CASE("a saturated network keeps its digits in f32") {
  // Logits some 40 apart: curvature of 1e-17 and less.
  const ClassifierNet single(Architecture::plain, {4}, DType::f32, 3.5),
      twice(Architecture::plain, {4}, DType::f64, 3.5);
  const ExactTraces a = exact_traces(single.pass(), single.sizes),
                    b = exact_traces(twice.pass(), twice.sizes);
  double smallest = 1;
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    for (std::size_t n = 0; n < 4; ++n) {
      const double x = a.layers[l].weight_per_image[n], y = b.layers[l].weight_per_image[n];
      smallest = std::min(smallest, y);
      // Logits of some 100 in f32 are known to 1e-5, and so is the exponent of p.
      CHECK(std::abs(x - y) < 1e-3 * y);
    }
  }
  MESSAGE("smallest trace " << smallest);
  CHECK(smallest < 1e-12);
}

TEST_CASE("a Gauss-Newton product needs no labels, and the empirical Fisher's refuses wrong ones") {
  const ClassifierNet net(Architecture::plain, {3, 2});
  const auto with_labels = [&](const std::function<Tensor(std::int64_t)>& make) {
    return [&net, make](std::size_t b) {
      ClassifierGraph g = net.graph(b);
      g.labels = make(net.sizes[b]);
      return g;
    };
  };
  const ClassifierPass none = with_labels([](std::int64_t) { return Tensor(); });
  const ClassifierPass wrong =
      with_labels([](std::int64_t n) { return Tensor::full({n}, DType::i64, 100000); });
  const GaussNewtonOperator expected(net.weights, net.sizes, net.pass());
  Random random(1);
  const Vector v = normal_vector(expected.shapes(), DType::f64, random);
  for (const ClassifierPass& pass : {none, wrong}) {
    const GaussNewtonOperator a(net.weights, net.sizes, pass);
    CHECK(same_bits(a.apply(v), expected.apply(v)));
    const GaussNewtonOperator fisher(net.weights, net.sizes, pass, OutputMetric::empirical_fisher);
    CHECK_THROWS_WITH_AS(fisher.apply(v), doctest::Contains("label"), Error);
  }
  CHECK(contains(message_of([&] { exact_traces(wrong, net.sizes); }), "label 100000 of sample 0"));
}

TEST_CASE("a leaf that two layers share is not the exact road's") {
  // z = x A + x B with A = B: the leaf's Hessian is four times a layer's.
  Random random(3);
  const Variable weight = Variable::leaf(random_normal({3, 4}, DType::f64, random));
  const Tensor x = random_normal({5, 3}, DType::f64, random);
  const Tensor labels = Tensor::from<std::int64_t>({0, 1, 2, 3, 0}, {5});
  const auto pass = [&](std::size_t) {
    ClassifierGraph g;
    g.labels = labels;
    for (const char* name : {"a", "b"}) {
      LinearSite site;
      site.name = name;
      site.kind = LinearKind::linear;
      site.weight = weight;
      site.input = Variable::leaf(x);
      site.output = matmul(site.input, site.weight);
      g.logits = g.logits.defined() ? add(g.logits, site.output) : site.output;
      g.sites.push_back(site);
    }
    return g;
  };
  CHECK(contains(message_of([&] { exact_traces(pass, {5}); }), "a and b share their weight"));
  for (JacobianWay way : {JacobianWay::forward, JacobianWay::backward}) {
    CHECK(contains(message_of([&] {
                     logit_changes(pass, {5}, {{"a", weight.value()}}, {.way = way});
                   }),
                   "'a' and 'b' share their weight"));
  }
  const ClassifierTraces traces = classifier_traces(pass, {5});
  CHECK(traces.road.road == Road::double_backward);
}

TEST_CASE("a change of a layer that the logits do not depend on costs nothing, either way") {
  Random random(3);
  const Variable used = Variable::leaf(random_normal({3, 4}, DType::f64, random)),
                 idle = Variable::leaf(random_normal({3, 4}, DType::f64, random));
  const Tensor x = random_normal({4, 3}, DType::f64, random);
  const auto pass = [&](std::size_t) {
    ClassifierGraph g;
    g.labels = Tensor::from<std::int64_t>({0, 1, 2, 3}, {4});
    for (const auto& [name, weight] : {std::pair{"used", used}, std::pair{"idle", idle}}) {
      LinearSite site;
      site.name = name;
      site.kind = LinearKind::linear;
      site.weight = weight;
      site.input = Variable::leaf(x);
      site.output = matmul(site.input, site.weight);
      g.sites.push_back(site);
    }
    g.logits = g.sites[0].output;
    return g;
  };
  for (JacobianWay way : {JacobianWay::forward, JacobianWay::backward}) {
    const LogitChanges u =
        logit_changes(pass, {4}, {{"used", idle.value()}, {"idle", used.value()}}, {.way = way});
    CHECK(u.cost(0).total() != 0);
    CHECK(u.cost(1).total() == 0);
  }
  // A weight that is no leaf has no derivative, either way.
  const auto frozen = [&](std::size_t b) {
    ClassifierGraph g = pass(b);
    g.sites[1].weight = g.sites[1].weight.detach();
    return g;
  };
  for (JacobianWay way : {JacobianWay::forward, JacobianWay::backward}) {
    CHECK(contains(message_of([&] {
                     logit_changes(frozen, {4}, {{"idle", used.value()}}, {.way = way});
                   }),
                   "the weight of layer 'idle' is a constant"));
  }
}

TEST_CASE("a pass that is not deterministic, unknown layers and changes that do not fit are refused") {
  const ClassifierNet net(Architecture::plain, {3, 2});
  int calls = 0;
  const ClassifierPass drifting = [&](std::size_t b) {
    ClassifierGraph g = net.graph(b);
    g.logits = scale(g.logits, 1 + 1e-9 * calls++);
    return g;
  };
  const GaussNewtonOperator a(net.weights, net.sizes, drifting, OutputMetric::softmax_cross_entropy,
                              {.graph_bytes = 0, .concurrency = 1});
  Random random(1);
  const Vector v = normal_vector(a.shapes(), DType::f64, random);
  a.apply(v);
  CHECK(contains(message_of([&] { a.apply(v); }), "microbatch"));
  CHECK(contains(message_of([&] { ActivationHessian("layer7", net.sizes, net.pass()); }),
                 "layer0, layer1, layer2"));
  const auto change = [&](const std::string& layer, const Tensor& t) {
    return message_of([&] { logit_changes(net.pass(), net.sizes, {{layer, t}}); });
  };
  CHECK(contains(change("conv", net.weights[0].value()), "no layer 'conv'; there are layer0"));
  CHECK(contains(change("layer1", net.weights[0].value()), "[3, 3, 3, 3]"));
  CHECK(contains(change("layer0", net.weights[0].value().to(DType::f32)), "f32"));
  CHECK(contains(message_of([&] { exact_traces(net.pass(), {3, 1}); }), "2 images instead of 1"));
  CHECK(contains(message_of([&] { exact_traces(net.pass(), {}); }), "no microbatches"));
  CHECK(contains(message_of([&] { exact_traces(net.pass(), net.sizes, {.samples = 1}); }), "2 or more"));
}
