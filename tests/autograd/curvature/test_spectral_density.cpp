#include <doctest/doctest.h>
#include <limits>

#include "autograd/curvature/lanczos.hpp"
#include "autograd/curvature/spectral_density.hpp"
#include "core/parallel.hpp"
#include "tests/autograd/curvature/small_problems.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

double integral(const DensityCurve& curve) {
  double sum = 0;
  for (std::size_t i = 0; i + 1 < curve.grid.size(); ++i) {
    sum += (curve.density[i] + curve.density[i + 1]) / 2 * (curve.grid[i + 1] - curve.grid[i]);
  }
  return sum;
}

void check_equal(const SpectralDensity& x, const SpectralDensity& y) {
  REQUIRE(x.quadratures.size() == y.quadratures.size());
  for (std::size_t k = 0; k < x.quadratures.size(); ++k) {
    CHECK(x.quadratures[k].nodes == y.quadratures[k].nodes);
    CHECK(x.quadratures[k].weights == y.quadratures[k].weights);
  }
  CHECK(x.curve.density == y.curve.density);
  CHECK(x.curve.standard_error == y.curve.standard_error);
  CHECK(x.products == y.products);
  CHECK(x.converged == y.converged);
}

}  // namespace

TEST_CASE("a quadrature of m nodes has the moments vᵀ Aᵖ v of its vector for p < 2m") {
  const MatrixOperator a(random_symmetric(20, 1, 1), {8, 12});
  for (Probe probe : {Probe::rademacher, Probe::gaussian}) {
    const SpectralDensity d = spectral_density(
        a, {.probe = probe, .steps = 4, .seed = 5, .relative_error = 0, .min_probes = 2, .max_probes = 3});
    CHECK(d.products == 12);
    REQUIRE(d.quadratures.size() == 3);
    for (std::size_t k = 0; k < 3; ++k) {
      const Quadrature& q = d.quadratures[k];
      REQUIRE(q.nodes.size() == 4);
      Random random(5, k);
      Vector v = probe == Probe::rademacher ? rademacher_vector(a.shapes(), DType::f64, random)
                                            : normal_vector(a.shapes(), DType::f64, random);
      rescale(v, 1 / norm(v));
      Vector power = clone(v);
      for (int p = 0; p < 8; ++p) {
        double sum = 0, size = 0;
        for (std::size_t i = 0; i < 4; ++i) {
          sum += q.weights[i] * std::pow(q.nodes[i], p);
          size += q.weights[i] * std::pow(std::abs(q.nodes[i]), p);
        }
        CHECK(std::abs(sum - dot(v, power)) < 1e-12 * size);
        power = a.apply(power);
      }
    }
  }
}

TEST_CASE(
    "least squares with a known spectrum: the curve is right to plotting accuracy and within its errors") {
  // Hessian (2/N) XᵀX with X = √(N/2) diag(√λ) Qᵀ: eigenvalues λ, in two bulks and an outlier.
  const std::int64_t n = 60;
  std::vector<double> lambda;
  for (int i = 0; i < 40; ++i) lambda.push_back(0.5 + 0.02 * i);
  for (int i = 0; i < 19; ++i) lambda.push_back(3 + 0.05 * i);
  lambda.push_back(8);
  const auto q = jacobi(random_symmetric(60, 2, 0)).vectors;
  const Tensor x = Tensor::zeros({n, n}, DType::f64);
  for (std::size_t i = 0; i < 60; ++i) {
    for (std::size_t j = 0; j < 60; ++j) x.data<double>()[i * 60 + j] = std::sqrt(30 * lambda[i]) * q[i][j];
  }
  const std::vector<Variable> w{Variable::leaf(Tensor::zeros({n, 1}, DType::f64))};
  const HessianOperator h(w, {n}, [&](std::size_t) {
    const Variable y = matmul(x, w[0]);
    return mean(y * y);
  });
  const SpectralDensity d = spectral_density(h, {.steps = 26,
                                                 .seed = 1,
                                                 .smoothing = 0.15,
                                                 .relative_error = 0,
                                                 .max_probes = 600,
                                                 .probes_per_pass = 150});
  CHECK(std::abs(integral(d.curve) - 1) < 1e-8);
  CHECK(std::abs(d.highest - 8) < 1e-9);
  CHECK(std::abs(d.lowest - 0.5) < 1e-3);
  double peak = 0, worst = 0, in_errors = 0;
  for (std::size_t i = 0; i < d.curve.grid.size(); ++i) {
    double exact = 0;
    for (double value : lambda) {
      const double z = (d.curve.grid[i] - value) / 0.15;
      exact += std::exp(-z * z / 2) / (0.15 * std::sqrt(2 * std::acos(-1.0))) / 60;
    }
    peak = std::max(peak, exact);
    const double error = std::abs(d.curve.density[i] - exact);
    worst = std::max(worst, error);
    in_errors = std::max(in_errors, error / (d.curve.standard_error[i] + 1e-4));
  }
  MESSAGE("largest error " << worst / peak << " of the peak, " << in_errors << " standard errors");
  CHECK(worst < 0.03 * peak);
  CHECK(in_errors < 4.5);
  double sum = 0, logs = 0;
  for (double value : lambda) {
    sum += value;
    logs += std::log(value);
  }
  CHECK(std::abs(d.trace.value - sum) < 4 * d.trace.standard_error);
  // Any other function of the operator: the log-determinant.
  const Estimate log_mean = spectral_mean(d.quadratures, [](double value) { return std::log(value); });
  CHECK(std::abs(log_mean.value - logs / 60) < 4 * log_mean.standard_error);
}

TEST_CASE("an untrained conv net: integral 1, mean trace / n, and the extremes of Lanczos") {
  const ConvNet net(Activation::tanh, {5, 5, 3});
  const HessianOperator h = net.hessian();
  const Matrix m = dense(h);
  const SpectralDensity d = spectral_density(h, {.steps = 60, .relative_error = 0.05, .max_probes = 64});
  CHECK(d.converged);
  CHECK(d.mean.converged);
  CHECK(d.trace.converged);
  const SpectralDensity cut = spectral_density(h, {.steps = 5, .relative_error = 1e-9, .max_probes = 4});
  CHECK_FALSE(cut.converged);
  CHECK_FALSE(cut.mean.converged);
  CHECK_FALSE(cut.trace.converged);
  CHECK(d.curve.grid.size() == 1024);
  CHECK(std::abs(integral(d.curve) - 1) < 1e-8);
  CHECK(std::abs(d.mean.value - trace_of(m, 0, m.n) / 147) < 4 * d.mean.standard_error);
  CHECK(std::abs(d.trace.value - trace_of(m, 0, m.n)) < 4 * d.trace.standard_error);
  const LanczosResult ends = lanczos(h, {.largest = 1, .smallest = 1, .tolerance = 1e-8});
  CHECK(std::abs(d.highest - ends.largest[0].value) < 1e-9 * d.highest);
  CHECK(std::abs(d.lowest - ends.smallest[0].value) < 1e-9 * d.highest);
  CHECK(d.lowest < 0);
}

TEST_CASE("exhausted Krylov spaces: few different eigenvalues are few nodes") {
  Matrix identity(5);
  for (std::size_t i = 0; i < 5; ++i) identity(i, i) = 3;
  const SpectralDensity one = spectral_density(MatrixOperator(identity, {2, 3}));
  CHECK(one.converged);
  CHECK(one.quadratures[0].nodes.size() == 1);
  CHECK(std::abs(one.mean.value - 3) < 1e-14);
  CHECK(one.products == 4);
  CHECK(std::abs(integral(one.curve) - 1) < 1e-8);
  const SpectralDensity two = spectral_density(MatrixOperator(symmetric_with({2, 2, 2, -1, -1, 2}), {6}));
  CHECK(two.quadratures[0].nodes.size() == 2);
  CHECK(std::abs(two.lowest + 1) < 1e-13);
  CHECK(std::abs(two.highest - 2) < 1e-13);
  const SpectralDensity zero = spectral_density(MatrixOperator(Matrix(4), {4}));
  CHECK(zero.trace.value == 0);
  CHECK(zero.converged);
}

TEST_CASE(
    "broken off after any step and resumed, on one thread or two, alone or side by side: the same bits") {
  const ConvNet net(Activation::relu, {4, 3});
  const HessianOperator h = net.hessian();
  SpectralDensityOptions options{
      .steps = 6, .seed = 3, .relative_error = 0.1, .min_probes = 4, .max_probes = 40};
  set_num_threads(1);
  const SpectralDensity whole = spectral_density(h, options);
  REQUIRE(whole.converged);
  REQUIRE(whole.quadratures.size() > 4);
  set_num_threads(2);
  std::vector<SpectralDensityState> saved;
  options.progress = [&](const SpectralDensityState& state) {
    saved.push_back(state);
    return true;
  };
  check_equal(spectral_density(net.hessian({.graph_bytes = 0}), options), whole);
  options.progress = {};
  for (std::size_t k = 0; k < std::min<std::size_t>(saved.size(), 20); ++k) {
    check_equal(spectral_density(h, options, &saved[k]), whole);
  }
  SpectralDensityState state;
  int calls = 0;
  options.progress = [&](const SpectralDensityState&) { return ++calls % 5 != 0; };
  const SpectralDensity early = spectral_density(h, options, &state);
  CHECK(early.quadratures.empty());
  CHECK(early.products == 10);
  CHECK_FALSE(early.converged);
  options.progress = {};
  check_equal(spectral_density(h, options, &state), whole);
  set_num_threads(0);
  SpectralDensityOptions alone = options;
  alone.probes_per_pass = 1;
  alone.min_probes = alone.max_probes = static_cast<int>(whole.quadratures.size());
  const SpectralDensity one_by_one = spectral_density(h, alone);
  for (std::size_t k = 0; k < whole.quadratures.size(); ++k) {
    CHECK(one_by_one.quadratures[k].nodes == whole.quadratures[k].nodes);
  }
}

TEST_CASE("bad options, foreign states and overflow are refused") {
  const MatrixOperator a(random_symmetric(4, 1), {4});
  CHECK_THROWS_WITH_AS(spectral_density(a, {.steps = 0}), doctest::Contains("steps is 0"), Error);
  CHECK_THROWS_AS(spectral_density(a, {.min_probes = 1}), Error);
  CHECK_THROWS_AS(spectral_density(a, {.probes_per_pass = 0}), Error);
  CHECK_THROWS_AS(density_curve({}, 0.1), Error);
  CHECK_THROWS_AS(spectral_mean({}, [](double x) { return x; }), Error);
  SpectralDensityState state;
  spectral_density(a, {.steps = 3}, &state);
  CHECK_THROWS_WITH_AS(spectral_density(a, {.steps = 4}, &state), doctest::Contains("3 steps"), Error);
  Matrix infinite(2);
  infinite(0, 0) = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH_AS(spectral_density(MatrixOperator(infinite, {2})), doctest::Contains("overflow"), Error);
}
