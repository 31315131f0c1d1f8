#include <cmath>
#include <doctest/doctest.h>
#include <functional>
#include <string>

#include "autograd/curvature/results.hpp"
#include "autograd/curvature/softmax_output.hpp"
#include "core/random.hpp"

using namespace goshawk;

namespace {

// diag(p) − p pᵀ of one sample in long double, with 1 − p_i summed from the others.
std::vector<long double> curvature(const double* z, std::int64_t c) {
  std::vector<long double> p(static_cast<std::size_t>(c));
  long double total = 0;
  for (std::size_t i = 0; i < p.size(); ++i) total += p[i] = std::exp(static_cast<long double>(z[i]) - z[0]);
  for (long double& v : p) v /= total;
  std::vector<long double> s;
  for (std::size_t i = 0; i < p.size(); ++i) {
    for (std::size_t j = 0; j < p.size(); ++j) {
      long double others = 0;
      for (std::size_t k = 0; k < p.size(); ++k) others += k == i ? 0 : p[k];
      s.push_back(i == j ? p[i] * others : -p[i] * p[j]);
    }
  }
  return s;
}

}  // namespace

TEST_CASE("the factor's C − 1 directions give diag(p) − p pᵀ element by element, also on saturated samples") {
  const std::int64_t c = 5;
  const Tensor z = Tensor::from<double>({0.3, -1,  2,  0.5,   1,    //
                                         0,   -30, 25, -12.5, 3,    // 1 − p of 1e-10
                                         90,  1,   -3, 88,    -60,  //
                                         0,   0,   0,  0,     0},
                                        {4, c});
  const SoftmaxOutput output(z);
  const OutputDirections d = output.factor(0, c - 1, DType::f64);
  REQUIRE(d.seeds.size() == 4);
  for (std::int64_t n = 0; n < 4; ++n) {
    const std::vector<long double> expected = curvature(z.data<double>() + n * c, c);
    for (std::int64_t i = 0; i < c; ++i) {
      for (std::int64_t j = 0; j < c; ++j) {
        double sum = 0;
        for (std::size_t k = 0; k < 4; ++k) {
          const double* seed = d.seeds[k].data<double>() + n * c;
          sum += d.weights.data<double>()[static_cast<std::int64_t>(k) * 4 + n] * seed[i] * seed[j];
        }
        const double e = static_cast<double>(expected[static_cast<std::size_t>(i * c + j)]);
        INFO("sample ", n, " element ", i, ", ", j);
        CHECK(std::abs(sum - e) <= 1e-14 * std::abs(e));
      }
    }
  }
  // Pieces are the same numbers, and f32 seeds are those rounded.
  const OutputDirections piece = output.factor(1, 3, DType::f32);
  CHECK(piece.seeds[0].to_vector<float>() == d.seeds[1].to(DType::f32).to_vector<float>());
  CHECK(rows(d.weights, 1, 3).to_vector<double>() == piece.weights.to_vector<double>());
}

TEST_CASE("products, forms and residuals keep their digits where the network is certain") {
  const std::int64_t c = 4;
  const Tensor z = Tensor::from<double>({40, 0, -3, 5, 0.1, 0.4, -0.3, 2}, {2, c});
  const SoftmaxOutput output(z);
  Random random(3);
  const Tensor u = random_normal({2, c}, DType::f64, random);
  const Tensor su = output.product(u), forms = output.forms(u);
  const Tensor residual = output.residual(Tensor::from<std::int64_t>({0, 2}, {2}));
  for (std::int64_t n = 0; n < 2; ++n) {
    const std::vector<long double> s = curvature(z.data<double>() + n * c, c);
    long double form = 0;
    for (std::int64_t i = 0; i < c; ++i) {
      long double sum = 0, size = 0;
      for (std::int64_t j = 0; j < c; ++j) {
        const long double term = s[static_cast<std::size_t>(i * c + j)] * u.data<double>()[n * c + j];
        sum += term;
        size += std::abs(term);
        form += term * u.data<double>()[n * c + i];
      }
      CHECK(std::abs(su.data<double>()[n * c + i] - static_cast<double>(sum)) <=
            1e-14 * static_cast<double>(size));
    }
    CHECK(forms.data<double>()[n] == doctest::Approx(static_cast<double>(form)).epsilon(1e-13).scale(0));
  }
  const double rest = std::exp(-40.0) + std::exp(-43.0) + std::exp(-35.0);
  CHECK(residual.data<double>()[0] == doctest::Approx(-rest).epsilon(1e-13).scale(0));
  CHECK(output.loss_sum(Tensor::from<std::int64_t>({0, 3}, {2})) ==
        doctest::Approx(rest + std::log1p(std::exp(-1.9) + std::exp(-1.6) + std::exp(-2.3)))
            .epsilon(1e-13)
            .scale(0));
}

TEST_CASE("random directions have diag(p) − p pᵀ for their mean and do not depend on the cut") {
  const std::int64_t c = 4;
  const Tensor z = Tensor::from<double>({0.5, 0, -1, 1}, {1, c});
  const SoftmaxOutput output(z);
  const std::vector<long double> s = curvature(z.data<double>(), c);
  for (OutputProbe probe : {OutputProbe::rademacher, OutputProbe::classes}) {
    const int count = 20000;
    const OutputDirections d = output.probes(probe, count, 7, 3, DType::f64);
    for (std::int64_t i = 0; i < c; ++i) {
      for (std::int64_t j = 0; j < c; ++j) {
        std::vector<double> products;
        for (std::int64_t k = 0; k < count; ++k) {
          const double* seed = d.seeds[static_cast<std::size_t>(k)].data<double>();
          products.push_back(d.weights.data<double>()[k] * seed[i] * seed[j]);
        }
        const Estimate e = estimate_mean(products);
        // 32 comparisons: beyond 4.5 standard errors once in 5,000 seeds.
        CHECK(std::abs(e.value - static_cast<double>(s[static_cast<std::size_t>(i * c + j)])) <=
              4.5 * e.standard_error + 1e-12);
      }
    }
    const OutputDirections again = SoftmaxOutput(Tensor::from<double>({3, 2, 1, 0, 0.5, 0, -1, 1}, {2, c}))
                                       .probes(probe, 5, 7, 2, DType::f64);
    for (std::size_t k = 0; k < 5; ++k) {
      CHECK(rows(again.seeds[k], 1, 2).to_vector<double>() == d.seeds[k].to_vector<double>());
    }
  }
}

TEST_CASE("bad logits and labels are refused") {
  CHECK_THROWS_AS(SoftmaxOutput(Tensor::zeros({3, 1}, DType::f64)), Error);
  CHECK_THROWS_AS(SoftmaxOutput(Tensor::full({2, 3}, DType::f64, NAN)), Error);
  const SoftmaxOutput output(Tensor::zeros({2, 3}, DType::f32));
  CHECK_THROWS_AS(output.residual(Tensor::from<std::int64_t>({0, 3}, {2})), Error);
  CHECK_THROWS_WITH_AS(output.loss_sum(Tensor::from<std::int64_t>({0, 100000}, {2})),
                       doctest::Contains("label 100000 of sample 1 is outside 0 … 2"), Error);
  CHECK_THROWS_AS(output.loss_sum(Tensor::from<std::int64_t>({0, -1}, {2})), Error);
  CHECK_THROWS_AS(output.loss_sum(Tensor::from<std::int64_t>({0}, {1})), Error);
  CHECK_THROWS_WITH_AS(output.loss_sum({}), doctest::Contains("there are no labels"), Error);
  CHECK_THROWS_AS(output.factor(1, 3, DType::f32), Error);
}
