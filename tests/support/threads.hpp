// Lets a test choose the number of threads.
#pragma once

#include "core/parallel.hpp"

namespace goshawk {

/// A number of threads until the end of a scope.
class Threads {
 public:
  explicit Threads(int n) : before_(num_threads()) { set_num_threads(n); }
  ~Threads() { set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

}  // namespace goshawk
