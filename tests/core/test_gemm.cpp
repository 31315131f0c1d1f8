#include <cmath>
#include <doctest/doctest.h>
#include <limits>

#include "core/kernels/gemm.hpp"
#include "core/kernels/openblas.hpp"
#include "core/random.hpp"
#include "tests/support/threads.hpp"

using namespace goshawk;

TEST_CASE_TEMPLATE("matrix products of every orientation against plain loops", T, float, double) {
  const double epsilon = std::numeric_limits<T>::epsilon();
  for (const auto& [m, k, n] : std::vector<std::array<std::int64_t, 3>>{
           {1, 1, 1}, {3, 5, 2}, {600, 7, 10}, {4, 0, 3}, {0, 3, 2}, {3, 2, 0}}) {
    for (const bool ta : {false, true}) {
      for (const bool tb : {false, true}) {
        Random random(1);
        const Tensor a = random_normal(ta ? Shape{k, m} : Shape{m, k}, dtype_of<T>, random);
        const Tensor b = random_normal(tb ? Shape{n, k} : Shape{k, n}, dtype_of<T>, random);
        const Tensor c = kernels::matmul(a, b, ta, tb);
        REQUIRE(c.shape() == Shape{m, n});
        for (std::int64_t i = 0; i < m; ++i) {
          for (std::int64_t j = 0; j < n; ++j) {
            double sum = 0, size = 0;
            for (std::int64_t l = 0; l < k; ++l) {
              const double product = static_cast<double>(a.data<T>()[ta ? l * m + i : i * k + l]) *
                                     static_cast<double>(b.data<T>()[tb ? j * k + l : l * n + j]);
              sum += product;
              size += std::abs(product);
            }
            CHECK(std::abs(static_cast<double>(c.data<T>()[i * n + j]) - sum) <=
                  static_cast<double>(k + 1) * epsilon * size);
          }
        }
      }
    }
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

TEST_CASE("extents that OpenBLAS cannot count are refused instead of cut off") {
  const std::int64_t limit = kernels::max_blas_extent();
  if (limit == std::numeric_limits<std::int64_t>::max()) return;
  // Without elements, as others would not fit the memory.
  const Tensor wide = Tensor::zeros({0, limit + 1}, DType::f32),
               high = Tensor::zeros({limit + 1, 0}, DType::f32);
  CHECK_THROWS_WITH_AS(kernels::matmul(wide, high, false, false),
                       doctest::Contains(fmt::format("[matmul] an extent of {}", limit + 1).c_str()), Error);
  const float one = 1;
  float out = 0;
  CHECK_THROWS_WITH_AS(kernels::gram_task(&one, 1, limit + 1, &out), doctest::Contains("[gram]"), Error);
}
