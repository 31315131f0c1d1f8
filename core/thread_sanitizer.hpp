// What ThreadSanitizer has to be told about oneTBB. Distributions build libtbb without the sanitizer, which
// therefore does not see that a loop's tasks begin after the loop does and end before it ends. Without the
// sanitizer nothing here does anything.
#pragma once

#if defined(__SANITIZE_THREAD__)
#define GOSHAWK_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GOSHAWK_THREAD_SANITIZER 1
#endif
#endif
#ifdef GOSHAWK_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

namespace goshawk {

/// A point that some threads pass and others wait for.
class SyncPoint {
 public:
#ifdef GOSHAWK_THREAD_SANITIZER
  /// Everything this thread has done so far happens before ...
  void release() {
    __tsan_release(this);
  }
  /// ... whatever this thread does from now on.
  void acquire() {
    __tsan_acquire(this);
  }
#else
  void release() {}
  void acquire() {}
#endif
};

/// All parallel loops share these two, so the sanitizer also takes unrelated loops for ordered; what it
/// reports is always real.
inline SyncPoint tasks_started, tasks_finished;

}  // namespace goshawk
