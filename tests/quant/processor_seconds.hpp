// How long something takes, whatever else the machine does.
#pragma once

#include <ctime>
#include <functional>

namespace goshawk::test {

// A second of an optimised program; others take many times as long.
#if !defined(__OPTIMIZE__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr double kOneSecond = 20;
#else
inline constexpr double kOneSecond = 1;
#endif

inline double processor_seconds(const std::function<void()>& work) {
  const std::clock_t start = std::clock();
  work();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

}  // namespace goshawk::test
