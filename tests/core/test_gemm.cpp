#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <vector>

#include "core/kernels/gemm.hpp"
#include "core/random.hpp"
#include "tests/support/target_guard.hpp"
#include "tests/support/threads.hpp"

using namespace goshawk;

namespace {

using Index = std::int64_t;

struct Product {
  Index m, k, n;  // rows, depth, columns
};
const std::vector<Product> kProducts{
    {1, 1, 1},     {3, 5, 2}, {600, 7, 10},  {4, 0, 3},
    {0, 3, 2},     {3, 2, 0}, {13, 300, 70},  // two runs of terms, and panels of which the last one is narrow
    {99, 512, 33},                            // rows that share sets of the first-level cache
};

/// Whether c = op(a) op(b) up to the rounding of sums in any order.
template <class T>
void check_product(const Tensor& a, const Tensor& b, bool ta, bool tb, const Tensor& c) {
  const Index m = c.dim(0), n = c.dim(1), k = a.dim(ta ? 0 : 1);
  Index wrong = 0;
  for (Index i = 0; i < m; ++i) {
    for (Index j = 0; j < n; ++j) {
      double sum = 0, size = 0;
      for (Index l = 0; l < k; ++l) {
        const double product = static_cast<double>(a.data<T>()[ta ? l * m + i : i * k + l]) *
                               static_cast<double>(b.data<T>()[tb ? j * k + l : l * n + j]);
        sum += product;
        size += std::abs(product);
      }
      const double bound = static_cast<double>(k + 1) * std::numeric_limits<T>::epsilon() * size;
      // The negation counts what is not a number.
      if (!(std::abs(static_cast<double>(c.data<T>()[i * n + j]) - sum) <= bound)) ++wrong;
    }
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE_TEMPLATE("matrix products of every orientation against plain loops", T, float, double) {
  for (const Product& p : kProducts) {
    const Index m = p.m, k = p.k, n = p.n;
    for (const bool ta : {false, true}) {
      for (const bool tb : {false, true}) {
        CAPTURE(m);
        CAPTURE(k);
        CAPTURE(n);
        CAPTURE(ta);
        CAPTURE(tb);
        Random random(1);
        const Tensor a = random_normal(ta ? Shape{k, m} : Shape{m, k}, dtype_of<T>, random);
        const Tensor b = random_normal(tb ? Shape{n, k} : Shape{k, n}, dtype_of<T>, random);
        on_every_target([&] {
          const Tensor c = kernels::matmul(a, b, ta, tb);
          REQUIRE(c.shape() == Shape{m, n});
          check_product<T>(a, b, ta, tb, c);
        });
      }
    }
  }
}

TEST_CASE_TEMPLATE("a product has the same bits however its operands lie", T, float, double) {
  Random random(3);
  const Tensor a = random_normal({100, 512}, dtype_of<T>, random),
               b = random_normal({512, 40}, dtype_of<T>, random);
  const auto transposed = [](const Tensor& t) {
    Tensor result = Tensor::empty({t.dim(1), t.dim(0)}, t.dtype());
    for (Index i = 0; i < t.dim(0); ++i) {
      for (Index j = 0; j < t.dim(1); ++j) {
        result.data<T>()[j * t.dim(0) + i] = t.data<T>()[i * t.dim(1) + j];
      }
    }
    return result;
  };
  on_every_target([&] {
    const auto c = kernels::matmul(a, b, false, false).template to_vector<T>();
    CHECK(kernels::matmul(transposed(a), b, true, false).template to_vector<T>() == c);
    CHECK(kernels::matmul(a, transposed(b), false, true).template to_vector<T>() == c);
    // A row by itself is what it is among others.
    CHECK(kernels::matmul(rows(a, 57, 58), b, false, false).template to_vector<T>() ==
          std::vector<T>(c.begin() + 57 * 40, c.begin() + 58 * 40));
  });
}

TEST_CASE_TEMPLATE("a Gram matrix is the product with the transposed, to the bit", T, float, double) {
  for (const Shape& shape :
       std::vector<Shape>{{1, 1}, {3, 5}, {64, 576}, {49, 64}, {70, 300}, {5, 0}, {0, 5}}) {
    const Index rows = shape[0], columns = shape[1];
    CAPTURE(rows);
    CAPTURE(columns);
    Random random(4);
    const Tensor a = random_normal(shape, dtype_of<T>, random);
    on_every_target([&] {
      Tensor out = Tensor::full({rows, rows}, dtype_of<T>, std::numeric_limits<double>::quiet_NaN());
      kernels::gram_task(a.data<T>(), rows, columns, out.data<T>());
      CHECK(out.template to_vector<T>() == kernels::matmul(a, a, false, true).template to_vector<T>());
    });
  }
}

TEST_CASE("products have the same bits for any number of threads") {
  Random random(2);
  const Tensor a = random_normal({1000, 64}, DType::f32, random),
               b = random_normal({64, 10}, DType::f32, random);
  const auto with = [&](int threads) {
    const Threads limit(threads);
    return kernels::matmul(a, b, false, false).to_vector<float>();
  };
  CHECK(with(4) == with(1));
}

TEST_CASE("shapes that do not fit are named") {
  const Tensor a = Tensor::zeros({2, 3}, DType::f32), b = Tensor::zeros({2, 4}, DType::f32);
  CHECK_THROWS_WITH_AS(kernels::matmul(a, b, false, false),
                       "[matmul] inner extents differ: [2, 3] times [2, 4]", Error);
  CHECK_THROWS_AS(kernels::matmul(a, b.to(DType::f64), true, false), Error);
  CHECK_THROWS_AS(kernels::matmul(a, Tensor::zeros({2}, DType::f32), true, false), Error);
}
