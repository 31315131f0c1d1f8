#include <doctest/doctest.h>
#include <limits>

#include "autograd/curvature/diagonal.hpp"
#include "core/parallel.hpp"
#include "tests/autograd/curvature/small_problems.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

DiagonalOptions fixed(int samples, std::uint64_t seed) {
  return {.seed = seed, .relative_error = 0, .min_samples = samples, .max_samples = samples};
}

}  // namespace

TEST_CASE("the diagonal of a conv net's Hessian, each element within its own error") {
  const ConvNet net(Activation::relu, {4, 4, 3});
  const HessianOperator h = net.hessian();
  const Matrix m = dense(h);
  const DiagonalEstimate d = diagonal(h, fixed(400, 1));
  CHECK(d.samples == 400);
  const std::vector<double> value = flatten(d.value), error = flatten(d.standard_error);
  double squares = 0, counted = 0, true_error = 0, size = 0;
  for (std::size_t i = 0; i < m.n; ++i) {
    true_error += (value[i] - m(i, i)) * (value[i] - m(i, i));
    size += m(i, i) * m(i, i);
    if (error[i] < 1e-12) {
      CHECK(std::abs(value[i] - m(i, i)) < 1e-12);  // a row without off-diagonal elements
      continue;
    }
    const double z = (value[i] - m(i, i)) / error[i];
    CHECK(std::abs(z) < 5);
    squares += z * z;
    counted += 1;
  }
  CHECK(counted > 100);
  // Elements share their probes, so the mean square of z is not as sharp as their number says.
  CHECK(std::abs(squares / counted - 1) < 0.35);
  CHECK(std::abs(std::sqrt(true_error / size) / d.relative_error - 1) < 0.35);
}

TEST_CASE("the standard error of an element is that of its row: √(Σ_{j≠i} A_ij² / m)") {
  const Matrix m = random_symmetric(12, 3);
  const DiagonalEstimate d = diagonal(MatrixOperator(m, {5, 7}), fixed(4000, 2));
  const std::vector<double> error = flatten(d.standard_error);
  for (std::size_t i = 0; i < 12; ++i) {
    double squares = 0;
    for (std::size_t j = 0; j < 12; ++j) squares += i == j ? 0 : m(i, j) * m(i, j);
    CHECK(std::abs(error[i] / std::sqrt(squares / 4000) - 1) < 0.08);
  }
}

TEST_CASE("a diagonal matrix is exact after the minimum of probes; zero too") {
  Matrix m(6);
  for (std::size_t i = 0; i < 6; ++i) m(i, i) = static_cast<double>(i) - 1.5;
  const DiagonalEstimate d = diagonal(MatrixOperator(m, {2, 4}), {.relative_error = 1e-12});
  CHECK(d.samples == 16);
  CHECK(d.converged);
  for (std::size_t i = 0; i < 6; ++i) CHECK(flatten(d.value)[i] == m(i, i));
  CHECK(diagonal(MatrixOperator(Matrix(3), {3})).converged);
}

TEST_CASE("few rows: samples that happen to agree are not taken for an exact diagonal") {
  const MatrixOperator a(symmetric_with({1, 2}), {2});
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    CAPTURE(seed);
    CHECK(norm(diagonal(a, {.seed = seed}).standard_error) > 0);
  }
}

TEST_CASE(
    "it stops on its error bound and not a pass later; resumed, on any threads, in any passes, the same "
    "bits") {
  const ConvNet net(Activation::tanh, {4, 3});
  const HessianOperator h = net.hessian();
  DiagonalOptions options{.seed = 4, .relative_error = 0.2};
  set_num_threads(1);
  const DiagonalEstimate whole = diagonal(h, options);
  REQUIRE(whole.converged);
  CHECK(whole.relative_error <= 0.2);
  REQUIRE(whole.samples > 12);
  set_num_threads(2);
  std::vector<DiagonalState> saved;
  options.progress = [&](const DiagonalState& state, double error) {
    saved.push_back(state);
    CHECK((error > 0.2 || state.samples == whole.samples));
    return true;
  };
  diagonal(h, options);
  options.progress = {};
  for (std::size_t k = 0; k < std::min<std::size_t>(saved.size(), 10); ++k) {
    const DiagonalEstimate resumed = diagonal(h, options, &saved[k]);
    CHECK(same_bits(resumed.value, whole.value));
    CHECK(same_bits(resumed.standard_error, whole.standard_error));
    CHECK(resumed.relative_error == whole.relative_error);
  }
  DiagonalState state;
  DiagonalOptions cut = options;
  cut.min_samples = cut.max_samples = 10;
  CHECK_FALSE(diagonal(h, cut, &state).converged);
  CHECK(same_bits(diagonal(h, options, &state).value, whole.value));
  DiagonalOptions alone = fixed(whole.samples, 4);
  alone.probes_per_pass = 1;
  CHECK(same_bits(diagonal(h, alone).value, whole.value));
  set_num_threads(0);
}

TEST_CASE("bad options, foreign states and overflow are refused") {
  const MatrixOperator a(random_symmetric(4, 1), {4});
  CHECK_THROWS_AS(diagonal(a, {.min_samples = 1}), Error);
  CHECK_THROWS_AS(diagonal(a, {.probes_per_pass = 0}), Error);
  DiagonalState state;
  diagonal(a, fixed(8, 1), &state);
  CHECK_THROWS_WITH_AS(diagonal(a, fixed(16, 2), &state), doctest::Contains("seed 1"), Error);
  CHECK_THROWS_WITH_AS(diagonal(MatrixOperator(random_symmetric(4, 1), {2, 2}), fixed(16, 1), &state),
                       doctest::Contains("does not fit"), Error);
  Matrix bad(2);
  bad(1, 1) = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(diagonal(MatrixOperator(bad, {2})), doctest::Contains("element 1 of block 0"), Error);
}
