// How long something took, by the monotonic clock.
#pragma once

#include <chrono>

namespace goshawk {

/// Runs from its construction.
class Timer {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace goshawk
