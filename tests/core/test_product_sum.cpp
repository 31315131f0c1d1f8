#include <array>
#include <doctest/doctest.h>
#include <limits>
#include <vector>

#include "core/kernels/product_sum.hpp"
#include "core/random.hpp"
#include "core/tensor.hpp"
#include "tests/support/target_guard.hpp"

using namespace goshawk;

namespace {

/// What the order of the sums says.
template <class T>
double in_order(const std::vector<T>& a, const std::vector<T>& b) {
  std::array<double, 8> sums{};
  for (std::size_t i = 0; i < a.size(); ++i) {
    const bool whole = i < a.size() / 8 * 8;
    sums[whole ? i % 8 : 0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

}  // namespace

TEST_CASE_TEMPLATE("inner products have the bits of eight running sums on every instruction set", T, float,
                   double) {
  Random random(5);
  for (const std::int64_t n : {0, 1, 7, 8, 9, 40, 47, 1000}) {
    CAPTURE(n);
    const auto a = random_normal({n}, dtype_of<T>, random).template to_vector<T>(),
               b = random_normal({n}, dtype_of<T>, random).template to_vector<T>();
    on_every_target([&] { CHECK(kernels::product_sum(a.data(), b.data(), n) == in_order(a, b)); });
  }
}

TEST_CASE("products of f32 numbers neither overflow nor lose digits in an inner product") {
  const std::vector<float> a{3e38F, 3e38F, 1e-30F}, b{2, -2, 1e-30F};
  on_every_target([&] {
    CHECK(kernels::product_sum(a.data(), b.data(), 3) ==
          static_cast<double>(a[2]) * static_cast<double>(b[2]));
  });
}
