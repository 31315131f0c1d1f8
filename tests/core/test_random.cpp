#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <set>

#include "core/random.hpp"

using namespace goshawk;

TEST_CASE("philox4x32-10 equals the known-answer vectors of Random123") {
  using Block = std::array<std::uint32_t, 4>;
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a stream resumes from its position, wherever that is in a block") {
  for (int skip = 0; skip < 9; ++skip) {
    Random whole(7, 3);
    for (int i = 0; i < skip; ++i) whole.next_u32();
    Random resumed(7, 3, whole.position());
    for (int i = 0; i < 10; ++i) CHECK(resumed.next_u32() == whole.next_u32());
  }
}

TEST_CASE("moments, ranges and permutations") {
  Random random(1);
  const int n = 200000;
  double sum = 0, squares = 0;
  for (int i = 0; i < n; ++i) {
    const double x = random.normal();
    sum += x;
    squares += x * x;
  }
  CHECK(std::abs(sum / n) < 4 / std::sqrt(double(n)));
  CHECK(std::abs(squares / n - 1) < 4 * std::sqrt(2.0 / n));
  for (int i = 0; i < 1000; ++i) {
    const double u = random.uniform();
    CHECK(u >= 0);
    CHECK(u < 1);
    CHECK(random.below(7) < 7);
  }
  const auto order = random.permutation(50);
  CHECK(std::set(order.begin(), order.end()).size() == 50);
  CHECK_THROWS_AS(random.below(0), Error);
}

TEST_CASE("no permutation of fewer than no numbers") {
  Random random(1);
  CHECK(random.permutation(0).empty());
  CHECK_THROWS_WITH_AS(random.permutation(-1), doctest::Contains("-1"), Error);
}

TEST_CASE_TEMPLATE("tensors of random numbers are the stream's numbers in row-major order", T, float,
                   double) {
  Random random(3, 1), again(3, 1);
  const Tensor normal = random_normal({3, 5}, dtype_of<T>, random);
  CHECK(normal.shape() == Shape{3, 5});
  for (const T x : normal.span<T>()) CHECK(x == static_cast<T>(again.normal()));
  const Tensor uniform = random_uniform({4, 2}, dtype_of<T>, random, -2, 3);
  for (const T x : uniform.span<T>()) CHECK(x == static_cast<T>(-2 + 5 * again.uniform()));
  const Tensor signs = random_rademacher({1000}, dtype_of<T>, random);
  int positive = 0;
  for (const T x : signs.span<T>()) {
    CHECK(x == (again.next_u32() & 1 ? T{1} : T{-1}));
    positive += x > 0 ? 1 : 0;
  }
  CHECK(std::abs(positive - 500) < 4 * std::sqrt(250.0));
  CHECK(random.position() == again.position());
  CHECK_THROWS_WITH_AS(random_normal({2}, DType::i32, random), doctest::Contains("[random_normal]"), Error);
  CHECK_THROWS_WITH_AS(random_rademacher({2}, DType::u8, random), doctest::Contains("[random_rademacher]"),
                       Error);
}

TEST_CASE_TEMPLATE("uniform numbers never round up to the upper end", T, float, double) {
  // A range of four numbers of the type, of which the upper end would get an eighth of the draws.
  constexpr T kStep = std::numeric_limits<T>::epsilon();
  Random random(5);
  const double high = 1 + 4 * static_cast<double>(kStep);
  std::set<T> seen;
  const Tensor few = random_uniform({4000}, dtype_of<T>, random, 1, high);
  for (const T x : few.span<T>()) seen.insert(x);
  CHECK(seen == std::set<T>{1, 1 + kStep, 1 + 2 * kStep, 1 + 3 * kStep});
  // No number lies in between.
  CHECK(random_uniform({1}, dtype_of<T>, random, 2, 2).item() == 2);
  CHECK_THROWS_WITH_AS(random_uniform({1}, dtype_of<T>, random, 1, 0), doctest::Contains("[random_uniform]"),
                       Error);
  CHECK_THROWS_AS(random_uniform({1}, dtype_of<T>, random, 0, std::nan("")), Error);
}
