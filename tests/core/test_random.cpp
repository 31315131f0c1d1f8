#include <cmath>
#include <doctest/doctest.h>
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
