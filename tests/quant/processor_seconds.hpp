// How long something takes, whatever else the machine does.
#pragma once

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <functional>
#include <vector>

namespace goshawk::test {

// A second of an optimised program; others take many times as long.
#if !defined(__OPTIMIZE__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kOptimized = false;
inline constexpr double kOneSecond = 20;
#else
inline constexpr bool kOptimized = true;
inline constexpr double kOneSecond = 1;
#endif

inline double raw_processor_seconds(const std::function<void()>& work) {
  const std::clock_t start = std::clock();
  work();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

/// How many times as long as on an undisturbed core of 2 to 4 GHz everything takes at the moment; not
/// below 1. A neighbour on the other half of a shared core slows this one down, and that counts as processor
/// time.
inline double slowness() {
  constexpr double kUndisturbed = 0.02;  // 0.0192 at best on a Xeon whose limit is 2.8 GHz
  std::vector<double> numbers(std::size_t{1} << 18);
  std::uint64_t state = 1;
  for (double& x : numbers) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    x = static_cast<double>(state >> 11);
  }
  return std::max(1.0,
                  raw_processor_seconds([&] { std::sort(numbers.begin(), numbers.end()); }) / kUndisturbed);
}

/// Seconds of an undisturbed processor.
inline double processor_seconds(const std::function<void()>& work) {
  const double before = kOptimized ? slowness() : 1;
  const double seconds = raw_processor_seconds(work);
  return seconds / (kOptimized ? (before + slowness()) / 2 : 1);
}

}  // namespace goshawk::test
