#include <doctest/doctest.h>
#include <limits>

#include "autograd/curvature/hutchpp.hpp"
#include "autograd/curvature/xtrace.hpp"
#include "core/parallel.hpp"
#include "tests/autograd/curvature/small_problems.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

HutchppOptions fixed(int rank, int samples, std::uint64_t seed, Probe probe = Probe::rademacher) {
  return {.rank = rank,
          .probe = probe,
          .seed = seed,
          .relative_error = 0,
          .min_samples = samples,
          .max_samples = samples};
}

XTraceOptions fixed_probes(int probes, std::uint64_t seed) {
  return {.seed = seed, .relative_error = 0, .min_probes = probes, .max_probes = probes};
}

void check_equal(const Estimate& x, const Estimate& y) {
  CHECK(x.value == y.value);
  CHECK(x.standard_error == y.standard_error);
  CHECK(x.samples == y.samples);
  CHECK(x.converged == y.converged);
  CHECK(x.subset_error == y.subset_error);
}

// Mean square error over seeds.
template <class Run>
double mean_square(double exact, int runs, const Run& run) {
  double squares = 0;
  for (int r = 0; r < runs; ++r) {
    const double error = run(static_cast<std::uint64_t>(r) << 40).value - exact;
    squares += error * error / runs;
  }
  return squares;
}

std::vector<double> spectrum(const std::string& kind, std::size_t n) {
  std::vector<double> values;
  for (std::size_t k = 0; k < n; ++k) {
    const auto i = static_cast<double>(k);
    if (kind == "fast") values.push_back(std::pow(0.7, i));
    if (kind == "slow") values.push_back(1.0 / (1 + i));
    if (kind == "flat") values.push_back(3 - 2 * i / static_cast<double>(n));
  }
  return values;
}

double sum(const std::vector<double>& values) {
  double total = 0;
  for (double v : values) total += v;
  return total;
}

}  // namespace

TEST_CASE("traces of a conv net within four standard errors of the exact one, which are below Hutchinson's") {
  for (Activation activation : {Activation::tanh, Activation::relu}) {
    const ConvNet net(activation, {4, 4, 3});
    const HessianOperator h = net.hessian();
    const Matrix m = dense(h);
    const double exact = trace_of(m, 0, m.n);
    for (Probe probe : {Probe::rademacher, Probe::gaussian}) {
      const Estimate e = hutchpp(h, fixed(20, 60, 1, probe));
      CHECK(e.samples == 60);
      CHECK(std::abs(e.value - exact) < 4 * e.standard_error);
      const Estimate plain =
          hutchinson(h, {.probe = probe, .relative_error = 0, .min_samples = 100, .max_samples = 100});
      CHECK(e.standard_error < plain.standard_error);
      CHECK(e.subset_error.has_value());
    }
    const Estimate x = xtrace(h, fixed_probes(50, 1));
    CHECK(std::abs(x.value - exact) < 4 * x.standard_error);
  }
}

TEST_CASE(
    "XTrace equals its definition: the mean of leave-one-out Hutch++ estimates, from dense projectors") {
  const std::size_t n = 14, k = 6;
  const Matrix m = random_symmetric(n, 3, 1);
  const MatrixOperator a(m, {5, 9});
  std::vector<Vector> probes;
  for (std::size_t i = 0; i < k; ++i) {
    Random random(9, i);
    probes.push_back(normal_vector(a.shapes(), DType::f64, random));
    rescale(probes.back(), std::sqrt(14.0) / norm(probes.back()));
  }
  // Probe i is the sample; neither it nor probe j is in the sketch.
  const auto leave_out = [&](std::size_t i, std::size_t j) {
    std::vector<Vector> others;
    for (std::size_t l = 0; l < k; ++l) {
      Vector y = a.apply(probes[l]);
      if (l != i && l != j && orthonormalise(y, others) > 0) others.push_back(y);
    }
    double trace = 0;
    for (const Vector& q : others) trace += dot(q, a.apply(q));
    const Vector rest = clone(probes[i]);
    project_out(rest, others);
    const double kept = i == j ? 5 : 4;
    return trace + dot(rest, a.apply(rest)) * (14 - kept) / dot(rest, rest);
  };
  std::vector<double> estimates;
  for (std::size_t i = 0; i < k; ++i) estimates.push_back(leave_out(i, i));
  double covariance = 0;
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t j = 0; j < k; ++j) {
      if (i == j) continue;
      covariance += (estimates[i] - leave_out(i, j)) * (estimates[j] - leave_out(j, i)) / 30;
    }
  }
  const Estimate expected = estimate_mean(estimates);
  REQUIRE(covariance > 0);
  const Estimate e = xtrace(a, fixed_probes(6, 9));
  CHECK(std::abs(e.value - expected.value) < 1e-11);
  CHECK(std::abs(e.standard_error - std::hypot(expected.standard_error, std::sqrt(covariance))) < 1e-11);
  CHECK(e.samples == 6);
}

TEST_CASE("both are exact on low rank, with the products they say") {
  std::vector<double> values(30, 0.0);
  values[0] = 5;
  values[1] = -3;
  values[2] = 0.5;
  const MatrixOperator a(symmetric_with(values), {10, 20});
  HutchppState state;
  const Estimate e = hutchpp(a, {.rank = 8}, &state);
  CHECK(state.basis.size() == 3);
  CHECK(a.products == 8 + 3 + 16);
  CHECK(state.products() == a.products);
  CHECK(std::abs(e.value - 2.5) < 1e-12);
  CHECK(e.standard_error < 1e-12);
  CHECK(e.converged);
  a.products = 0;
  XTraceState xstate;
  const Estimate x = xtrace(a, {.relative_error = 1e-9}, &xstate);
  CHECK(x.samples == 8);
  CHECK(x.converged);
  CHECK(a.products == 8 + 3);
  CHECK(xstate.products == a.products);
  CHECK(std::abs(x.value - 2.5) < 1e-11);
  CHECK(xtrace(MatrixOperator(Matrix(9), {9})).value == 0);
  CHECK(hutchpp(MatrixOperator(Matrix(9), {9}), {.rank = 4}).converged);
  // As many probes as rows leave nothing to chance.
  const Matrix full = random_symmetric(7, 5);
  CHECK(std::abs(hutchpp(MatrixOperator(full, {7}), {.rank = 7, .probe = Probe::gaussian}).value -
                 trace_of(full, 0, 7)) < 1e-11);
  const Estimate all = xtrace(MatrixOperator(full, {7}), fixed_probes(200, 1));
  CHECK(all.samples == 7);
  CHECK(std::abs(all.value - trace_of(full, 0, 7)) < 1e-11);
  CHECK(all.standard_error < 1e-11);
  Matrix one(1);
  one(0, 0) = -3;
  const Estimate single = xtrace(MatrixOperator(one, {1}));
  CHECK(single.samples == 1);
  CHECK(std::abs(single.value + 3) < 1e-14);
  CHECK(single.standard_error < 1e-13);
  CHECK(single.converged);
  // One probe of more rows is none of this.
  XTraceState first;
  const Estimate cut = xtrace(
      MatrixOperator(full, {7}),
      {.probes_per_pass = 1, .progress = [](const XTraceState&, const Estimate&) { return false; }}, &first);
  CHECK(cut.samples == 1);
  CHECK(std::isinf(cut.standard_error));
  CHECK_FALSE(cut.converged);
}

TEST_CASE("at 48 products they beat Hutchinson on decaying spectra, and do not on flat ones") {
  const std::size_t n = 100;
  const int runs = 60;
  for (const std::string kind : {"fast", "slow", "flat", "net"}) {
    const Matrix m = kind == "net" ? dense(ConvNet(Activation::relu, {6, 5}).hessian())
                                   : symmetric_with(spectrum(kind, n), 7);
    const MatrixOperator a(m, {static_cast<std::int64_t>(m.n)});
    const double exact = trace_of(m, 0, m.n);
    const double plain = mean_square(exact, runs, [&](std::uint64_t seed) {
      return hutchinson(a, {.seed = seed, .relative_error = 0, .min_samples = 48, .max_samples = 48});
    });
    const double plus =
        mean_square(exact, runs, [&](std::uint64_t seed) { return hutchpp(a, fixed(16, 16, seed)); });
    double predicted = 0;
    const double x = mean_square(exact, runs, [&](std::uint64_t seed) {
      const Estimate e = xtrace(a, fixed_probes(24, seed));
      predicted += e.standard_error * e.standard_error / runs;
      return e;
    });
    const double calibration = std::sqrt(x / predicted);
    MESSAGE("XTrace's true error is " << calibration << " of its standard error");
    CHECK(calibration > 0.7);
    CHECK(calibration < 1.2);
    MESSAGE(kind << ": mean square errors relative to Hutchinson's: Hutch++ " << plus / plain << ", XTrace "
                 << x / plain);
    if (kind == "fast") {
      CHECK(plus < 0.01 * plain);
      CHECK(x < 1e-4 * plain);
    } else if (kind == "net") {
      CHECK(plus < 0.5 * plain);
      CHECK(x < 0.5 * plain);
    } else if (kind == "slow") {
      CHECK(plus < 0.3 * plain);
      CHECK(x < 0.1 * plain);
    } else {
      // Hutchinson's variance is that of the off-diagonal elements; Hutch++'s 16 samples instead of 48 see
      // nearly all of it, XTrace's 24 as well.
      CHECK(plus > 1.5 * plain);
      CHECK(x > 1.5 * plain);
    }
  }
}

TEST_CASE("Hutch++'s standard error is that of the residual, on average over sketches") {
  const MatrixOperator a(symmetric_with(spectrum("slow", 40), 3), {40});
  const double exact = sum(spectrum("slow", 40));
  double predicted = 0;
  const double measured = mean_square(exact, 300, [&](std::uint64_t seed) {
    const Estimate e = hutchpp(a, fixed(5, 12, seed));
    predicted += e.standard_error * e.standard_error / 300;
    return e;
  });
  CHECK(std::abs(measured / predicted - 1) < 0.35);
}

TEST_CASE("broken off after any pass and resumed, on one thread or two: the same bits") {
  const ConvNet net(Activation::relu, {4, 3});
  const HessianOperator h = net.hessian();
  HutchppOptions options{.rank = 6, .seed = 2, .relative_error = 0.02, .max_samples = 40};
  XTraceOptions xoptions{.seed = 2, .relative_error = 0.02};
  set_num_threads(1);
  const Estimate whole = hutchpp(h, options), xwhole = xtrace(h, xoptions);
  CHECK(xwhole.converged);
  CHECK(xwhole.samples > 8);
  set_num_threads(2);
  std::vector<HutchppState> saved;
  options.progress = [&](const HutchppState& state, const Estimate& e) {
    saved.push_back(state);
    CHECK(e.samples == static_cast<int>(state.residual.samples.size()));
    CHECK(std::isinf(e.standard_error) == (e.samples == 0));
    return true;
  };
  check_equal(hutchpp(net.hessian({.graph_bytes = 0}), options), whole);
  options.progress = {};
  CHECK(saved.size() > 5);
  for (HutchppState& state : saved) check_equal(hutchpp(h, options, &state), whole);
  std::vector<XTraceState> xsaved;
  xoptions.progress = [&](const XTraceState& state, const Estimate& e) {
    xsaved.push_back(state);
    CHECK(e.samples == state.probes());
    return true;
  };
  check_equal(xtrace(net.hessian({.graph_bytes = 0}), xoptions), xwhole);
  xoptions.progress = {};
  for (XTraceState& state : xsaved) check_equal(xtrace(h, xoptions, &state), xwhole);
  // Ended by the callback.
  HutchppState state;
  options.progress = [](const HutchppState&, const Estimate&) { return false; };
  const Estimate early = hutchpp(h, options, &state);
  CHECK(early.samples == 0);
  CHECK(std::isinf(early.standard_error));
  CHECK(state.products() == 4);
  xoptions.progress = [](const XTraceState&, const Estimate&) { return false; };
  CHECK(xtrace(h, xoptions).samples == 4);
  xoptions.progress = {};
  xoptions.min_probes = xoptions.max_probes = xwhole.samples;
  xoptions.probes_per_pass = 1;
  CHECK(xtrace(h, xoptions).value == xwhole.value);
  set_num_threads(0);
}

TEST_CASE("bad options, foreign states and overflow are refused") {
  const MatrixOperator a(random_symmetric(4, 1), {4});
  CHECK_THROWS_WITH_AS(hutchpp(a, {.rank = 5}), doctest::Contains("the rank is 5"), Error);
  CHECK_THROWS_AS(hutchpp(a, {.rank = 0}), Error);
  CHECK_THROWS_WITH_AS(hutchpp(a, {.rank = 2, .min_samples = 4}), doctest::Contains("min_samples is 4"),
                       Error);
  CHECK_THROWS_AS(hutchpp(a, {.rank = 2, .max_samples = 8}), Error);
  CHECK(a.products == 0);  // known before any work
  CHECK_THROWS_AS(xtrace(a, {.min_probes = 1}), Error);
  CHECK_THROWS_AS(xtrace(a, {.relative_error = -1}), Error);
  HutchppState state;
  hutchpp(a, fixed(2, 8, 1), &state);
  CHECK_THROWS_WITH_AS(hutchpp(a, fixed(3, 8, 1), &state), doctest::Contains("rank 2"), Error);
  XTraceState xstate;
  xtrace(a, fixed_probes(2, 1), &xstate);
  CHECK_THROWS_WITH_AS(xtrace(a, fixed_probes(2, 2), &xstate), doctest::Contains("seed 1"), Error);
  CHECK_THROWS_AS(xtrace(MatrixOperator(random_symmetric(4, 1), {2, 2}), fixed_probes(3, 1), &xstate), Error);
  Matrix bad(3);
  bad(2, 1) = std::numeric_limits<double>::quiet_NaN();
  const MatrixOperator b(bad, {3});
  CHECK_THROWS_WITH_AS(hutchpp(b, {.rank = 2}), doctest::Contains("element 2 of block 0 is nan"), Error);
  CHECK_THROWS_WITH_AS(xtrace(b), doctest::Contains("element 2 of block 0 is nan"), Error);
}
