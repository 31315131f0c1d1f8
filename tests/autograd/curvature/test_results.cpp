#include <doctest/doctest.h>
#include <functional>
#include <limits>

#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/hutchpp.hpp"
#include "autograd/curvature/operator_views.hpp"
#include "autograd/curvature/results.hpp"
#include "autograd/curvature/xtrace.hpp"
#include "core/statistics.hpp"
#include "tests/autograd/curvature/small_problems.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

// The part of `runs` whose 95 % interval contains the exact value, in per cent.
double coverage(int runs, double exact, const std::function<Estimate(std::uint64_t seed)>& run) {
  int covered = 0;
  double samples = 0;
  for (int r = 0; r < runs; ++r) {
    const Estimate e = run(static_cast<std::uint64_t>(r) << 40);
    const Interval interval = confidence_interval(e, 0.95);
    covered += interval.low <= exact && exact <= interval.high ? 1 : 0;
    samples += static_cast<double>(e.samples) / runs;
  }
  MESSAGE("covered " << 100.0 * covered / runs << " %, " << samples << " samples on average");
  return 100.0 * covered / runs;
}

// The diagonal block of rows and columns begin … end − 1.
Matrix block_of(const Matrix& m, std::size_t begin, std::size_t end) {
  Matrix part(end - begin);
  for (std::size_t i = 0; i < part.n; ++i) {
    for (std::size_t j = 0; j < part.n; ++j) part(i, j) = m(begin + i, begin + j);
  }
  return part;
}

void check_honest(double percent) {
  CHECK(percent >= 92);
  CHECK(percent <= 98);
}

}  // namespace

TEST_CASE("intervals: Student's t without skewness, Hall's shift with it, infinite for one sample") {
  Estimate e;
  e.value = 10;
  e.standard_error = 2;
  e.samples = 8;
  Interval i = confidence_interval(e, 0.95);
  CHECK(std::abs(i.low - (10 - 2 * 2.364624252)) < 1e-8);
  CHECK(std::abs(i.high - (10 + 2 * 2.364624252)) < 1e-8);
  CHECK(confidence_interval(e, 0.99).high > i.high);
  e.skewness = 1e-9;
  CHECK(std::abs(confidence_interval(e, 0.95).high - i.high) < 1e-8);
  // A long upper tail: the exact value is more likely to lie far above the mean than far below it. That end
  // is where Hall's cubic takes the value −t; the other one stays.
  e.skewness = 1.5;
  i = confidence_interval(e, 0.95);
  CHECK(i.high - 10 > 10 - i.low);
  const auto cubic = [&](double exact) {
    const double w = (10 - exact) / 2, g = 1.5, root = std::sqrt(8.0);
    return w + g / (3 * root) * w * w + g * g / (27 * 8) * w * w * w + g / (6 * root);
  };
  CHECK(std::abs(cubic(i.high) + 2.364624252) < 1e-8);
  CHECK(std::abs(i.low - (10 - 2 * 2.364624252)) < 1e-8);
  e.skewness = -1.5;
  const Interval mirrored = confidence_interval(e, 0.95);
  CHECK(std::abs(mirrored.low - (20 - i.high)) < 1e-12);
  CHECK(std::abs(mirrored.high - (20 - i.low)) < 1e-12);
  e.samples = 1;
  CHECK(std::isinf(confidence_interval(e, 0.95).high));
  CHECK_THROWS_AS(confidence_interval(e, 1), Error);
}

TEST_CASE("the skewness is the adjusted coefficient") {
  const std::vector<double> samples{1, 2, 3, 10};
  // Mean 4, Σd² = 50, Σd³ = −27 − 8 − 1 + 216 = 180; g = (180/4) / (50/4)^1.5 · √12 / 2.
  CHECK(std::abs(estimate_mean(samples).skewness - 45 / std::pow(12.5, 1.5) * std::sqrt(12.0) / 2) < 1e-14);
  CHECK(estimate_mean(std::vector<double>{1, 2}).skewness == 0);
  CHECK(estimate_mean(std::vector<double>{3, 3, 3, 3}).skewness == 0);
}

TEST_CASE(
    "95 % intervals cover the exact trace in 92 to 98 % of runs: whole net and single layers, stopped early "
    "or not") {
  const ConvNet net(Activation::relu, {6, 5});
  const Matrix m = dense(net.hessian());
  const MatrixOperator a(m, {54, 81, 12});
  const std::vector<std::size_t> starts{0, 54, 135, 147};
  const int runs = 400;
  for (int samples : {16, 48}) {
    const HutchinsonOptions fixed{.relative_error = 0, .min_samples = samples, .max_samples = samples};
    std::vector<std::vector<Estimate>> layers;
    for (int r = 0; r < runs; ++r) {
      HutchinsonOptions o = fixed;
      o.seed = static_cast<std::uint64_t>(r);
      HutchinsonState state;
      layers.push_back(layer_traces(a, o, &state));
      layers.back().push_back(hutchinson(a, o, &state));  // the same probes, for the whole
    }
    for (std::size_t l = 0; l < 4; ++l) {
      INFO("block " << l << ", " << samples << " samples");
      const double exact = l < 3 ? trace_of(m, starts[l], starts[l + 1]) : trace_of(m, 0, m.n);
      check_honest(coverage(runs, exact, [&](std::uint64_t seed) { return layers[seed >> 40][l]; }));
    }
  }
  for (double error : {0.1, 0.2, 0.4}) {
    INFO("stopped at a relative error of " << error);
    check_honest(coverage(runs, trace_of(m, 0, m.n), [&](std::uint64_t seed) {
      return hutchinson(a, {.seed = seed, .relative_error = error});
    }));
  }
  for (std::size_t l = 0; l < 3; ++l) {
    const Matrix part = block_of(m, starts[l], starts[l + 1]);
    const MatrixOperator block(part, {static_cast<std::int64_t>(part.n)});
    for (double error : {0.1, 0.2}) {
      INFO("block " << l << " alone, stopped at a relative error of " << error);
      check_honest(coverage(runs, trace_of(part, 0, part.n), [&](std::uint64_t seed) {
        return hutchinson(block, {.seed = seed, .relative_error = error});
      }));
    }
  }
}

TEST_CASE("low rank, where zᵀAz has a long tail: the skewness keeps the interval honest") {
  // One direction spread over all coordinates: zᵀAz is nearly χ² with one degree of freedom.
  for (std::size_t rank : {1, 3}) {
    std::vector<double> values(40, 0.0);
    std::fill(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(rank), 1.0);
    const MatrixOperator a(symmetric_with(values), {40});
    for (double error : {0.1, 0.2, 0.4}) {
      INFO("rank " << rank << ", stopped at a relative error of " << error);
      double plain = 0;
      const double percent = coverage(600, static_cast<double>(rank), [&](std::uint64_t seed) {
        const Estimate e = hutchinson(a, {.seed = seed, .relative_error = error});
        const double t = student_t_quantile(0.975, e.samples - 1);
        plain += std::abs(e.value - static_cast<double>(rank)) <= t * e.standard_error ? 100.0 / 600 : 0;
        return e;
      });
      MESSAGE("without the skewness " << plain << " %");
      check_honest(percent);
    }
  }
}

TEST_CASE("Hutch++'s and XTrace's intervals are as honest, of the whole net and of single layers") {
  const ConvNet net(Activation::tanh, {6, 5});
  const Matrix m = dense(net.hessian());
  const std::vector<std::size_t> starts{0, 54, 135, 147};
  for (std::size_t l = 0; l < 4; ++l) {
    const Matrix part = l < 3 ? block_of(m, starts[l], starts[l + 1]) : m;
    const MatrixOperator a(part, {static_cast<std::int64_t>(part.n)});
    const double exact = trace_of(part, 0, part.n);
    for (double error : {0.05, 0.2}) {
      INFO("block " << l << " (3 is all), stopped at a relative error of " << error);
      check_honest(coverage(300, exact, [&](std::uint64_t seed) {
        return hutchpp(a, {.rank = 4, .seed = seed, .relative_error = error, .max_samples = 200});
      }));
      check_honest(coverage(300, exact, [&](std::uint64_t seed) {
        return xtrace(a, {.seed = seed, .relative_error = error});
      }));
    }
  }
}

TEST_CASE("XTrace's intervals hold for spectra that fall fast, slowly and not at all") {
  const int rows = 60;
  for (const char* spectrum : {"fast", "slow", "flat"}) {
    std::vector<double> values;
    for (int i = 0; i < rows; ++i) {
      values.push_back(*spectrum == 'f' && spectrum[1] == 'a' ? std::pow(0.7, i)
                       : *spectrum == 's'                     ? 1.0 / (1 + i)
                                                              : 3 - 2.0 * i / rows);
    }
    const Matrix m = symmetric_with(values, 7);
    const MatrixOperator a(m, {rows});
    for (int probes : {8, 16}) {
      INFO(std::string(spectrum) << ", " << probes << " probes");
      check_honest(coverage(1200, trace_of(m, 0, m.n), [&](std::uint64_t seed) {
        return xtrace(a, {.seed = seed, .relative_error = 0, .min_probes = probes, .max_probes = probes});
      }));
    }
  }
}

TEST_CASE(
    "beside a multiple of the identity XTrace's intervals miss a single outlier too often, as documented") {
  struct Case {
    std::int64_t rows = 0;
    double outlier = 0;
    int probes = 0;
  };
  for (const Case& c :
       {Case{10, 1.3, 8}, {100, 1.3, 8}, {100, 3, 8}, {100, 3, 16}, {100, 20, 8}, {100, 20, 16}}) {
    // Probes from the sphere see no difference between this and any rotation of it.
    Matrix m(static_cast<std::size_t>(c.rows));
    for (std::size_t i = 0; i < m.n; ++i) m(i, i) = i == 0 ? c.outlier : 1;
    const MatrixOperator a(m, {c.rows});
    const double exact = c.outlier + static_cast<double>(c.rows - 1);
    INFO(c.rows << " rows, one eigenvalue of " << c.outlier << " beside 1, " << c.probes << " probes");
    const int runs = 1200;
    int far = 0;
    const double covered = coverage(runs, exact, [&](std::uint64_t seed) {
      const Estimate e =
          xtrace(a, {.seed = seed, .relative_error = 0, .min_probes = c.probes, .max_probes = c.probes});
      far += std::abs(e.value - exact) > 6 * e.standard_error ? 1 : 0;
      return e;
    });
    MESSAGE("more than six standard errors off: " << 100.0 * far / runs << " %");
    CHECK(covered > 84);
    CHECK(covered < 96);
    // Without the identity nothing is missed.
    const Estimate rest = xtrace(shifted(a, 1), {.seed = 1});
    CHECK(rest.value + static_cast<double>(c.rows) == doctest::Approx(exact).epsilon(1e-12));
    CHECK(rest.standard_error < 1e-10);
  }
}
