#include <doctest/doctest.h>
#include <limits>

#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/operator_views.hpp"
#include "tests/autograd/curvature/small_problems.hpp"

using namespace goshawk;
using namespace goshawk::testing;

TEST_CASE("damped, shifted, scaled and negated views are the dense matrices they stand for") {
  const Matrix m = random_symmetric(7, 1);
  const MatrixOperator a(m, {3, 4});
  const auto check_view = [&](const LinearOperator& view, double scale, double shift) {
    const Matrix d = dense(view);
    for (std::size_t i = 0; i < 7; ++i) {
      for (std::size_t j = 0; j < 7; ++j) {
        CHECK(std::abs(d(i, j) - (scale * m(i, j) + (i == j ? shift : 0))) < 1e-14);
      }
    }
  };
  check_view(damped(a, 0.5), 1, 0.5);
  check_view(shifted(a, 2), 1, -2);
  check_view(scaled(a, -3), -3, 0);
  check_view(negated(a), -1, 0);
  check_view(AffineOperator(a, 2, -1.5), 2, -1.5);
  const AffineOperator twice = damped(a, 0.5);
  check_view(damped(twice, 0.25), 1, 0.75);
  CHECK_THROWS_WITH_AS(damped(a, -1), doctest::Contains("-1"), Error);
  CHECK_THROWS_AS(scaled(a, std::numeric_limits<double>::infinity()), Error);
}

TEST_CASE("a view's quadratic forms are those of its products, subset by subset") {
  const ConvNet net(Activation::tanh, {3, 3, 1});
  const HessianOperator h = net.hessian();
  const AffineOperator view(h, -2, 0.75);
  Random random(2);
  std::vector<Vector> probes;
  for (int k = 0; k < 3; ++k) probes.push_back(normal_vector(h.shapes(), DType::f64, random));
  probes[1][2] = Tensor();  // a block of zeros
  const std::vector<QuadraticForms> forms = view.quadratic_forms(probes);
  const std::vector<double> weights = view.subset_weights();
  REQUIRE(weights.size() == 3);
  for (std::size_t k = 0; k < probes.size(); ++k) {
    const Vector product = view.apply(probes[k]);
    CHECK(forms[k].subsets.size() == 3);
    for (std::size_t l = 0; l < 3; ++l) {
      const double expected = probes[k][l].defined() ? block_dot(probes[k][l], product[l]) : 0;
      CHECK(std::abs(forms[k].blocks[l] - expected) < 1e-12);
      double sum = 0;
      for (std::size_t b = 0; b < 3; ++b) sum += weights[b] * forms[k].subsets[b][l];
      CHECK(std::abs(sum - expected) < 1e-12);
    }
  }
  // Hence trace(−2H + 0.75 I) = −2 trace(H) + 0.75 n, with the same probes to rounding.
  const HutchinsonOptions options{.relative_error = 0, .min_samples = 8, .max_samples = 8};
  const double plain = hutchinson(h, options).value;
  CHECK(std::abs(hutchinson(view, options).value - (-2 * plain + 0.75 * 147)) < 1e-10);
}

TEST_CASE("a deflated operator is P A P, and its other eigenpairs stay") {
  const std::vector<double> values{5, -4, 3, 2, 1, 0.5};
  const Matrix m = symmetric_with(values);
  const MatrixOperator a(m, {2, 4});
  const Eigen eigen = jacobi(m);
  const auto as_vector = [](const std::vector<double>& x) {
    return Vector{Tensor::from(std::vector(x.begin(), x.begin() + 2), {2}),
                  Tensor::from(std::vector(x.begin() + 2, x.end()), {4})};
  };
  // The first two, at any length, and one of them again.
  std::vector<Vector> found{as_vector(eigen.vectors[0]), as_vector(eigen.vectors[1]),
                            as_vector(eigen.vectors[0])};
  rescale(found[0], 3);
  rescale(found[2], -1);
  const DeflatedOperator rest(a, found);
  CHECK(rest.basis().size() == 2);
  CHECK(std::abs(norm(found[0]) - 3) < 1e-14);  // its own copies
  const Eigen left = jacobi(dense(rest));
  const std::vector<double> expected{3, 2, 1, 0.5, 0, 0};
  for (std::size_t k = 0; k < 6; ++k) CHECK(std::abs(left.values[k] - expected[k]) < 1e-12);

  // Vectors that are no eigenvectors: P A P, symmetric.
  Random random(3);
  const std::vector<Vector> others{normal_vector(a.shapes(), DType::f64, random)};
  const DeflatedOperator projected(a, others);
  const std::vector<double> q = flatten(projected.basis()[0]);
  Matrix p(6), pap(6), pa(6);
  for (std::size_t i = 0; i < 6; ++i) {
    for (std::size_t j = 0; j < 6; ++j) p(i, j) = (i == j ? 1 : 0) - q[i] * q[j];
  }
  for (std::size_t i = 0; i < 6; ++i) {
    for (std::size_t j = 0; j < 6; ++j) {
      for (std::size_t k = 0; k < 6; ++k) pa(i, j) += p(i, k) * m(k, j);
    }
  }
  for (std::size_t i = 0; i < 6; ++i) {
    for (std::size_t j = 0; j < 6; ++j) {
      for (std::size_t k = 0; k < 6; ++k) pap(i, j) += pa(i, k) * p(k, j);
    }
  }
  CHECK(largest_difference(dense(projected), pap) < 1e-13);
}

TEST_CASE("several products at once have the bits of each alone, views included") {
  const ConvNet net(Activation::relu, {4, 3, 1});
  const HessianOperator kept = net.hessian(), rebuilt = net.hessian({.graph_bytes = 0});
  Random random(4);
  std::vector<Vector> vectors;
  for (int k = 0; k < 11; ++k) vectors.push_back(normal_vector(kept.shapes(), DType::f64, random));
  vectors[3][0] = Tensor();
  const DeflatedOperator deflated(kept, std::span(vectors).first(1));
  const AffineOperator shifted_view = shifted(kept, 1);
  for (const LinearOperator* a :
       std::initializer_list<const LinearOperator*>{&kept, &rebuilt, &deflated, &shifted_view}) {
    const std::vector<Vector> products = a->apply_many(vectors);
    REQUIRE(products.size() == vectors.size());
    for (std::size_t k = 0; k < vectors.size(); ++k) CHECK(same_bits(products[k], a->apply(vectors[k])));
  }
  CHECK(kept.apply_many({}).empty());
}

TEST_CASE("vectors that are not finite are refused by name, and so is a loss") {
  const ConvNet net(Activation::tanh, {2});
  const HessianOperator h = net.hessian();
  Vector v = zero_vector(h.shapes(), DType::f64);
  v[1].data<double>()[7] = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(h.apply(v), doctest::Contains("element 7 of block 1 is nan"), Error);
  CHECK_THROWS_AS(h.quadratic_forms(std::span(&v, 1)), Error);
  CHECK_THROWS_WITH_AS(DeflatedOperator(h, std::span(&v, 1)), doctest::Contains("not finite"), Error);
  v[1].data<double>()[7] = 0;
  ConvNet broken(Activation::tanh, {2, 2});
  broken.images[1].data<double>()[0] = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(broken.hessian().apply(v), doctest::Contains("the loss of microbatch 1 is nan"),
                       Error);
}
