#include <doctest/doctest.h>
#include <limits>

#include "autograd/curvature/hutchinson.hpp"
#include "core/parallel.hpp"
#include "tests/autograd/curvature/small_problems.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

const std::vector<std::size_t> kStarts{0, 54, 135, 147};

void check_equal(const Estimate& x, const Estimate& y) {
  CHECK(x.value == y.value);
  CHECK(x.standard_error == y.standard_error);
  CHECK(x.samples == y.samples);
  CHECK(x.skewness == y.skewness);
  CHECK(x.converged == y.converged);
  CHECK(x.subset_error == y.subset_error);
}

HutchinsonOptions fixed(int samples, std::uint64_t seed, Probe probe = Probe::rademacher) {
  return {.probe = probe, .seed = seed, .relative_error = 0, .min_samples = samples, .max_samples = samples};
}

}  // namespace

TEST_CASE("mean and standard error of samples") {
  const std::vector<double> samples{1, 2, 4, 5};
  const Estimate e = estimate_mean(samples);
  CHECK(e.value == 3);
  CHECK(e.samples == 4);
  CHECK(std::abs(e.standard_error - std::sqrt(10.0 / 3 / 4)) < 1e-15);
  CHECK(std::isinf(estimate_mean(std::span(samples).first(1)).standard_error));
  CHECK_THROWS_AS(estimate_mean({}), Error);
}

TEST_CASE("traces of a conv net, jointly and block by block, within four standard errors of the exact ones") {
  for (Activation activation : {Activation::tanh, Activation::relu}) {
    const ConvNet net(activation, {4, 4, 3});
    const HessianOperator h = net.hessian();
    const Matrix m = dense(h);
    for (Probe probe : {Probe::rademacher, Probe::gaussian}) {
      const std::vector<Estimate> joint = layer_traces(h, fixed(400, 1, probe));
      const Estimate whole = hutchinson(h, fixed(400, 2, probe));
      REQUIRE(joint.size() == 3);
      for (std::size_t l = 0; l < 3; ++l) {
        const double exact = trace_of(m, kStarts[l], kStarts[l + 1]);
        const Estimate alone = hutchinson(h.block(l), fixed(400, 3, probe));
        INFO("block " << l << ": exact " << exact << ", joint " << joint[l].value << " ± "
                      << joint[l].standard_error << ", alone " << alone.value << " ± "
                      << alone.standard_error);
        CHECK(joint[l].standard_error > 0);
        CHECK(std::abs(joint[l].value - exact) < 4 * joint[l].standard_error);
        CHECK(std::abs(alone.value - exact) < 4 * alone.standard_error);
      }
      CHECK(whole.samples == 400);
      CHECK(std::abs(whole.value - trace_of(m, 0, m.n)) < 4 * whole.standard_error);
    }
  }
}

TEST_CASE("the standard error is calibrated: z-scores over 200 repetitions have mean 0 and variance 1") {
  const Matrix m = random_symmetric(24, 1);
  const MatrixOperator a(m, {10, 14});
  for (Probe probe : {Probe::rademacher, Probe::gaussian}) {
    const int repetitions = 200, samples = 100;
    double sum = 0, squares = 0, predicted = 0;
    for (int r = 0; r < repetitions; ++r) {
      const std::vector<Estimate> e =
          layer_traces(a, fixed(samples, static_cast<std::uint64_t>(100 + r), probe));
      const double z = (e[0].value - trace_of(m, 0, 10)) / e[0].standard_error;
      sum += z;
      squares += z * z;
      predicted += e[0].standard_error / repetitions;
    }
    const double variance = squares / repetitions;
    MESSAGE("mean z " << sum / repetitions << ", variance " << variance);
    // Student's t with 99 degrees of freedom has variance 1.02; four standard errors of mean and variance.
    CHECK(std::abs(sum / repetitions) < 4 / std::sqrt(repetitions));
    CHECK(std::abs(variance - 1.02) < 4 * std::sqrt(2.0 / repetitions));
    // The known variance of one joint probe of block 0: rademacher 2 Σ_{i<j} over pairs inside the block,
    // each counted once for (i,j) and (j,i), plus Σ over pairs that leave it.
    double per_probe = 0;
    for (std::size_t i = 0; i < 10; ++i) {
      for (std::size_t j = 0; j < 24; ++j) {
        if (probe == Probe::rademacher && i == j) continue;
        per_probe += (j < 10 ? 2 : 1) * m(i, j) * m(i, j);
      }
    }
    CHECK(std::abs(predicted / std::sqrt(per_probe / samples) - 1) < 0.05);
  }
}

TEST_CASE("a diagonal matrix needs no more than the minimum of Rademacher probes") {
  Matrix m(6);
  for (std::size_t i = 0; i < 6; ++i) m(i, i) = static_cast<double>(i) - 1.5;
  const std::vector<Estimate> e = layer_traces(MatrixOperator(m, {2, 4}), {.relative_error = 1e-12});
  CHECK(e[0].value == -2);
  CHECK(e[1].value == 8);
  CHECK(e[0].samples == 16);
  CHECK(e[0].converged);
  CHECK_FALSE(e[0].subset_error.has_value());
}

TEST_CASE("the loop stops on the standard error of every block, or of the whole, and says if it could not") {
  const Matrix m = random_symmetric(30, 2);
  const MatrixOperator a(m, {3, 27});
  HutchinsonOptions options{.relative_error = 0.02, .max_samples = 100000};
  const std::vector<Estimate> every = layer_traces(a, options);
  for (const Estimate& e : every) {
    CHECK(e.converged);
    CHECK(e.standard_error <= 0.02 * std::abs(e.value));
  }
  // Not a pass more than needed: one pass before, some block was still outside.
  HutchinsonOptions shorter = options;
  shorter.max_samples = every[0].samples - options.probes_per_pass;
  const std::vector<Estimate> before = layer_traces(a, shorter);
  CHECK_FALSE((before[0].converged && before[1].converged));
  options.every_block = false;
  const std::vector<Estimate> whole = layer_traces(a, options);
  CHECK(whole[0].samples < every[0].samples);
  CHECK_FALSE(whole[0].converged);
  CHECK(hutchinson(a, options).converged);
  CHECK(hutchinson(a, options).samples == whole[0].samples);

  const Estimate cut = hutchinson(a, {.relative_error = 1e-9, .max_samples = 30});
  CHECK(cut.samples == 30);
  CHECK_FALSE(cut.converged);
}

TEST_CASE("a negative trace does not stop the loop early, and a zero one stops on the absolute floor") {
  Matrix m = random_symmetric(20, 3);
  const Estimate positive =
      hutchinson(MatrixOperator(m, {20}), {.relative_error = 0.01, .max_samples = 100000});
  for (double& x : m.a) x = -x;
  const Estimate negative =
      hutchinson(MatrixOperator(m, {20}), {.relative_error = 0.01, .max_samples = 100000});
  CHECK(negative.value == -positive.value);
  CHECK(negative.samples == positive.samples);
  CHECK(negative.samples > 16);
  Matrix traceless(2);
  traceless(0, 1) = traceless(1, 0) = 1;
  const MatrixOperator a(traceless, {2});
  CHECK_FALSE(hutchinson(a, {.max_samples = 64}).converged);
  const Estimate e = hutchinson(a, {.absolute_error = 0.25, .max_samples = 1000});
  CHECK(e.converged);
  CHECK(e.standard_error <= 0.25);
  CHECK(std::abs(e.value) < 1);
}

TEST_CASE("a loop that was broken off and resumed ends with the same bits as one in a single piece") {
  const ConvNet net(Activation::relu, {4, 4, 3});
  HutchinsonOptions options{.seed = 4, .relative_error = 0.2, .min_samples = 8, .max_samples = 500};
  HutchinsonState whole_state;
  const std::vector<Estimate> whole = layer_traces(net.hessian(), options, &whole_state);
  REQUIRE(whole[0].converged);
  REQUIRE(whole[0].samples > 16);

  // Ended by the callback after the first pass, copied as a file would, resumed by another operator.
  HutchinsonState saved;
  options.progress = [&](const HutchinsonState& state, std::span<const Estimate> estimates) {
    CHECK(estimates.size() == 3);
    CHECK(estimates[0].samples == static_cast<int>(state.samples.size()));
    saved = state;
    return false;
  };
  HutchinsonState state;
  CHECK(layer_traces(net.hessian(), options, &state)[0].samples == 4);
  options.progress = {};
  // Ended by the maximum in the middle of a pass.
  options.max_samples = 10;
  CHECK(layer_traces(net.hessian({.graph_bytes = 0}), options, &saved)[0].samples == 10);
  options.max_samples = 500;
  const std::vector<Estimate> resumed = layer_traces(net.hessian(), options, &saved);
  for (std::size_t l = 0; l < 3; ++l) check_equal(resumed[l], whole[l]);
  CHECK(saved.samples == whole_state.samples);
  CHECK(saved.subset_sums == whole_state.subset_sums);
  // A finished state draws nothing more.
  const std::vector<Estimate> again = layer_traces(net.hessian(), options, &saved);
  for (std::size_t l = 0; l < 3; ++l) check_equal(again[l], whole[l]);
  CHECK(saved.samples == whole_state.samples);
}

TEST_CASE("the same bits on one thread or two, and for any number of probes a pass") {
  const ConvNet net(Activation::relu, {4, 4, 3});
  set_num_threads(1);
  const std::vector<Estimate> expected = layer_traces(net.hessian(), fixed(24, 6));
  for (int threads : {1, 2}) {
    set_num_threads(threads);
    for (int probes : {1, 4, 24}) {
      HutchinsonOptions options = fixed(24, 6);
      options.probes_per_pass = probes;
      const std::vector<Estimate> e = layer_traces(net.hessian({.graph_bytes = 0}), options);
      for (std::size_t l = 0; l < 3; ++l) check_equal(e[l], expected[l]);
    }
  }
  set_num_threads(0);
}

TEST_CASE("the error from the choice of pictures is that of the microbatches' exact traces") {
  const ConvNet net(Activation::tanh, {5, 5, 5, 2});
  const HessianOperator h = net.hessian();
  const std::vector<double> weights = h.subset_weights();
  const double exact = trace_of(dense(h), 135, 147);
  double squares = 0;
  for (std::size_t b = 0; b < 4; ++b) {
    const HessianOperator one(net.parameters, {net.sizes[b]}, [&, b](std::size_t) { return net.loss(b); });
    const double trace = trace_of(dense(one), 135, 147);
    squares += weights[b] * weights[b] * (trace - exact) * (trace - exact);
  }
  const double expected = std::sqrt(squares * 4 / 3);
  const Estimate e = hutchinson(h.block(2), fixed(4000, 1));
  REQUIRE(e.subset_error.has_value());
  INFO("exact spread " << expected << ", estimated " << *e.subset_error << ", probe error "
                       << e.standard_error);
  CHECK(std::abs(*e.subset_error / expected - 1) < 0.1);
  CHECK_FALSE(hutchinson(ConvNet(Activation::tanh, {5}).hessian(), fixed(8, 1)).subset_error.has_value());
}

TEST_CASE("bad options, foreign states and overflow are refused") {
  const MatrixOperator a(random_symmetric(4, 1), {4});
  CHECK_THROWS_WITH_AS(hutchinson(a, {.min_samples = 7}), doctest::Contains("min_samples is 7"), Error);
  CHECK_THROWS_AS(hutchinson(a, {.min_samples = 20, .max_samples = 19}), Error);
  CHECK_THROWS_AS(hutchinson(a, {.relative_error = -1}), Error);
  CHECK_THROWS_AS(hutchinson(a, {.probes_per_pass = 0}), Error);
  HutchinsonState state;
  hutchinson(a, fixed(8, 1), &state);
  CHECK_THROWS_WITH_AS(hutchinson(a, fixed(16, 2), &state), doctest::Contains("seed 1"), Error);
  CHECK_THROWS_AS(hutchinson(a, fixed(16, 1, Probe::gaussian), &state), Error);
  CHECK_THROWS_WITH_AS(hutchinson(MatrixOperator(random_symmetric(4, 1), {2, 2}), fixed(16, 1), &state),
                       doctest::Contains("does not fit"), Error);
  Matrix infinite(2);
  infinite(0, 0) = std::numeric_limits<double>::infinity();
  HutchinsonState untouched;
  CHECK_THROWS_WITH_AS(hutchinson(MatrixOperator(infinite, {2}), {}, &untouched),
                       doctest::Contains("overflow"), Error);
  CHECK(untouched.samples.empty());
}
