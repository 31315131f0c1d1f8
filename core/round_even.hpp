// Rounding to whole numbers, as every quantizer here does it.
#pragma once

namespace goshawk {

/// Adding and subtracting it, 1.5 · 2^mantissa, rounds to the nearest integer, ties to even, in the default
/// rounding mode; unlike std::nearbyint it vectorises on every x86-64. For |v| < 2²².
template <class T>
inline constexpr T kRoundEven = sizeof(T) == 4 ? T{12582912.0} : T{6755399441055744.0};

/// v to the nearest integer, ties to even, for |v| < 2²².
template <class T>
inline T round_even(T v) {
  return (v + kRoundEven<T>)-kRoundEven<T>;
}

}  // namespace goshawk
