// Inner products of rows of f32 or f64 numbers, in f64.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace goshawk {

/// Σ a_i b_i. Eight running sums hide the latency of the additions; their order is part of the result, so it
/// is spelled out.
template <class T>
double product_sum(const T* a, const T* b, std::int64_t n) {
  std::array<double, 8> sums{};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (std::int64_t k = 0; k < 8; ++k) {
      sums[static_cast<std::size_t>(k)] += static_cast<double>(a[i + k]) * static_cast<double>(b[i + k]);
    }
  }
  for (; i < n; ++i) sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

}  // namespace goshawk
