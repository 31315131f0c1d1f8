// Counter-based random numbers (Philox4x32-10): any stream resumes from its seed, stream and position.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/tensor.hpp"

namespace goshawk {

/// One block of Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

/// A random stream. Streams with different (seed, stream) are independent; `position` counts the 32-bit words
/// drawn so far, so {seed, stream, position} is the whole state.
class Random {
 public:
  explicit Random(std::uint64_t seed, std::uint64_t stream = 0, std::uint64_t position = 0);

  std::uint32_t next_u32();
  std::uint64_t next_u64();
  /// Uniform in [0, 1), 53 bits.
  double uniform();
  /// Standard normal (Box–Muller; two pairs of words per number, none is cached).
  double normal();
  /// Uniform in {0, …, n − 1} without bias; n > 0.
  std::uint64_t below(std::uint64_t n);
  /// A uniform permutation of 0 … n − 1 (Fisher–Yates). Throws Error for a negative n.
  std::vector<std::int64_t> permutation(std::int64_t n);

  std::uint64_t seed() const { return seed_; }
  std::uint64_t stream() const { return stream_; }
  std::uint64_t position() const { return position_; }

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
  std::uint64_t position_;
  std::array<std::uint32_t, 4> block_{};
  bool block_valid_ = false;
};

/// Independent N(0, 1) elements, drawn from `random` in row-major order.
Tensor random_normal(const Shape& shape, DType dtype, Random& random);
/// Independent elements uniform in [low, high), both ends rounded to `dtype`; `low` where that leaves no
/// number in between. Throws Error unless low ≤ high.
Tensor random_uniform(const Shape& shape, DType dtype, Random& random, double low = 0, double high = 1);
/// Independent elements −1 or +1 with equal probability.
Tensor random_rademacher(const Shape& shape, DType dtype, Random& random);

}  // namespace goshawk
