#include <cmath>
#include <doctest/doctest.h>
#include <memory>

#include "autograd/curvature/joined_operator.hpp"
#include "tests/autograd/curvature/small_problems.hpp"

using namespace goshawk;
using namespace goshawk::testing;

TEST_CASE("a joined operator is the dense matrix with its blocks in groups") {
  const Matrix m = random_symmetric(7, 5);
  const auto a = std::make_shared<MatrixOperator>(m, std::vector<std::int64_t>{2, 1, 4});
  const JoinedOperator joined(a, {{2, 0}, {1}});
  REQUIRE(joined.shapes().size() == 2);
  CHECK(joined.shapes()[0] == Shape{6});
  const std::size_t order[] = {3, 4, 5, 6, 0, 1, 2};
  const Matrix d = dense(joined);
  for (std::size_t i = 0; i < 7; ++i) {
    for (std::size_t j = 0; j < 7; ++j) CHECK(std::abs(d(i, j) - m(order[i], order[j])) < 1e-14);
  }
  CHECK_THROWS_WITH_AS(JoinedOperator(a, {{0}, {1}}), doctest::Contains("block 2 is in 0 groups"), Error);
  CHECK_THROWS_AS(JoinedOperator(a, {{0, 1, 2}, {}}), Error);
  CHECK_THROWS_AS(JoinedOperator(a, {{0, 1, 3}}), Error);
}

TEST_CASE("a joined Hessian's forms are those of its products, subset by subset") {
  const ConvNet net(Activation::tanh, {3, 3, 1});
  const auto h = std::make_shared<HessianOperator>(net.hessian());
  const JoinedOperator joined(h, {{1, 0}, {2}});
  Random random(2);
  std::vector<Vector> probes;
  for (int k = 0; k < 2; ++k) probes.push_back(normal_vector(joined.shapes(), DType::f64, random));
  probes[1][1] = Tensor();  // a block of zeros
  const std::vector<QuadraticForms> forms = joined.quadratic_forms(probes);
  const std::vector<double> weights = joined.subset_weights();
  REQUIRE(weights.size() == 3);
  for (std::size_t k = 0; k < probes.size(); ++k) {
    const Vector product = joined.apply(probes[k]);
    REQUIRE(forms[k].blocks.size() == 2);
    for (std::size_t g = 0; g < 2; ++g) {
      const double expected = probes[k][g].defined() ? block_dot(probes[k][g], product[g]) : 0;
      CHECK(std::abs(forms[k].blocks[g] - expected) < 1e-12);
      double sum = 0;
      for (std::size_t b = 0; b < 3; ++b) sum += weights[b] * forms[k].subsets[b][g];
      CHECK(std::abs(sum - expected) < 1e-12);
    }
  }
}
