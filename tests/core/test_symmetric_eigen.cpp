#include <cmath>
#include <doctest/doctest.h>
#include <limits>

#include "core/error.hpp"
#include "core/kernels/symmetric_eigen.hpp"
#include "core/random.hpp"

using namespace goshawk;
using kernels::SymmetricEigen;

namespace {

// max |A v − λ v|, with A given by its element function.
template <class Element>
void check_eigen(const SymmetricEigen& eigen, std::size_t n, const Element& a, double tolerance) {
  REQUIRE(eigen.values.size() == n);
  REQUIRE(eigen.vectors.size() == n);
  for (std::size_t k = 0; k < n; ++k) {
    if (k > 0) CHECK(eigen.values[k] >= eigen.values[k - 1]);
    for (std::size_t i = 0; i < n; ++i) {
      double product = 0;
      for (std::size_t j = 0; j < n; ++j) product += a(i, j) * eigen.vectors[k][j];
      CHECK(std::abs(product - eigen.values[k] * eigen.vectors[k][i]) < tolerance);
    }
    for (std::size_t other = 0; other <= k; ++other) {
      double product = 0;
      for (std::size_t j = 0; j < n; ++j) product += eigen.vectors[k][j] * eigen.vectors[other][j];
      CHECK(std::abs(product - (k == other ? 1 : 0)) < 1e-13);
    }
  }
}

}  // namespace

TEST_CASE("dense symmetric matrices: A v = λ v, orthonormal, rising; the upper triangle is not read") {
  Random random(1);
  for (std::size_t n : {1, 2, 3, 17, 60}) {
    std::vector<double> a(n * n, std::numeric_limits<double>::max());
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j <= i; ++j) a[i * n + j] = random.normal();
    }
    check_eigen(
        kernels::symmetric_eigen(a, n), n,
        [&](std::size_t i, std::size_t j) { return i < j ? a[j * n + i] : a[i * n + j]; }, 1e-13 * 60);
  }
  CHECK(kernels::symmetric_eigen({}, 0).values.empty());
}

TEST_CASE("tridiagonal matrices: the second difference has eigenvalues 2 − 2 cos(kπ/(n+1))") {
  for (std::size_t n : {1, 2, 40}) {
    const std::vector<double> diagonal(n, 2.0), off(n - 1, -1.0);
    const SymmetricEigen eigen = kernels::tridiagonal_eigen(diagonal, off);
    const auto element = [](std::size_t i, std::size_t j) {
      return i == j ? 2.0 : (i + 1 == j || j + 1 == i ? -1.0 : 0.0);
    };
    check_eigen(eigen, n, element, 1e-13);
    for (std::size_t k = 0; k < n; ++k) {
      const double angle = static_cast<double>(k + 1) * std::acos(-1.0) / static_cast<double>(n + 1);
      CHECK(std::abs(eigen.values[k] - (2 - 2 * std::cos(angle))) < 1e-13);
    }
  }
}

TEST_CASE("wrong sizes and numbers that are not finite are refused") {
  CHECK_THROWS_WITH_AS(kernels::symmetric_eigen({1, 2, 3}, 2), doctest::Contains("3 elements"), Error);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(kernels::symmetric_eigen({1, 2, nan, 3}, 2), doctest::Contains("element 2 is nan"),
                       Error);
  const std::vector<double> two{1, 2};
  CHECK_THROWS_AS(kernels::tridiagonal_eigen(two, two), Error);
}
