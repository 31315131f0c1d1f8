// How long something takes, whatever else the machine does.
#pragma once

#include <ctime>
#include <functional>

namespace goshawk::test {

inline double processor_seconds(const std::function<void()>& work) {
  const std::clock_t start = std::clock();
  work();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

}  // namespace goshawk::test
