#include "core/random.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

namespace goshawk {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53;
  constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9;
  constexpr std::uint32_t kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0];
    const std::uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

Random::Random(std::uint64_t seed, std::uint64_t stream, std::uint64_t position)
    : seed_(seed), stream_(stream), position_(position) {}

std::uint32_t Random::next_u32() {
  const std::uint64_t lane = position_ % 4;
  if (lane == 0 || !block_valid_) {
    const std::uint64_t index = position_ / 4;
    block_ = philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                         static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
                        {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
    block_valid_ = true;
  }
  ++position_;
  return block_[lane];
}

std::uint64_t Random::next_u64() {
  const std::uint64_t high = next_u32();
  return high << 32 | next_u32();
}

double Random::uniform() {
  return static_cast<double>(next_u64() >> 11) * 0x1p-53;
}

double Random::normal() {
  const double radius = std::sqrt(-2 * std::log1p(-uniform()));
  return radius * std::cos(2 * std::numbers::pi * uniform());
}

std::uint64_t Random::below(std::uint64_t n) {
  check(n > 0, "[Random::below] needs a positive bound");
  // Draws under 2^64 mod n are rejected; what is left is a multiple of n.
  const std::uint64_t rejected = (0 - n) % n;
  for (;;) {
    const std::uint64_t draw = next_u64();
    if (draw >= rejected) return draw % n;
  }
}

std::vector<std::int64_t> Random::permutation(std::int64_t n) {
  check(n >= 0, "[Random::permutation] there is no permutation of {} numbers; give 0 or more", n);
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[below(i)]);
  return order;
}

namespace {

template <class F>
Tensor generate(const Shape& shape, DType dtype, const char* op, F draw) {
  Tensor t = Tensor::empty(shape, dtype);
  dispatch_floating(dtype, op, [&]<class T>() {
    for (T& element : t.span<T>()) element = draw.template operator()<T>();
  });
  return t;
}

}  // namespace

Tensor random_normal(const Shape& shape, DType dtype, Random& random) {
  return generate(shape, dtype, "random_normal", [&]<class T>() { return static_cast<T>(random.normal()); });
}

Tensor random_uniform(const Shape& shape, DType dtype, Random& random, double low, double high) {
  check(low <= high, "[random_uniform] no number is from {} to below {}; give the lower end first", low,
        high);
  return generate(shape, dtype, "random_uniform", [&]<class T>() {
    // Rounding to T reaches the upper end.
    const T last = std::nextafter(static_cast<T>(high), static_cast<T>(low));
    return std::min(static_cast<T>(low + (high - low) * random.uniform()), last);
  });
}

Tensor random_rademacher(const Shape& shape, DType dtype, Random& random) {
  return generate(shape, dtype, "random_rademacher",
                  [&]<class T>() { return random.next_u32() & 1 ? T{1} : T{-1}; });
}

}  // namespace goshawk
