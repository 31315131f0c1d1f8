// Parallel loops on oneTBB whose work is split by a rule that does not depend on the number of threads.
// Together with reductions in a fixed order this makes every result the same, to the bit, for any thread
// count.
#pragma once

#include <algorithm>
#include <cstdint>
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/task_group.h>

#include "core/error.hpp"
#include "core/thread_sanitizer.hpp"

namespace goshawk {

/// Limits parallel loops to `threads` threads (at least 1; 0 means all cores). Each thread that starts loops
/// by itself, such as that of a Loader's prefetching, comes on top.
void set_num_threads(int threads);
int num_threads();

/// The body of parallel_for as oneTBB sees it: it copies the body whenever it hands a part of the range on.
template <class F>
class ChunkRunner {
 public:
  ChunkRunner(const F& f, std::int64_t n, std::int64_t grain) : f_(&f), n_(n), grain_(grain) {}
  ChunkRunner(const ChunkRunner& other) : f_(other.f_), n_(other.n_), grain_(other.grain_) {
    tasks_started.release();
  }
  ChunkRunner& operator=(const ChunkRunner&) = delete;

  void operator()(const tbb::blocked_range<std::int64_t>& chunks) const {
    tasks_started.acquire();
    const Finish finish;
    for (std::int64_t c = chunks.begin(); c != chunks.end(); ++c) {
      (*f_)(c * grain_, std::min(n_, (c + 1) * grain_));
    }
  }

 private:
  struct Finish {
    Finish() = default;
    Finish(const Finish&) = delete;
    Finish& operator=(const Finish&) = delete;
    ~Finish() { tasks_finished.release(); }
  };

  const F* f_;
  std::int64_t n_, grain_;
};

/// While one lives, loops that this thread begins run on it alone, chunk by chunk: for work that is itself
/// one of many tasks, where handing parts to threads that are busy anyway only costs time and moves data
/// between caches.
class SerialLoops {
 public:
  SerialLoops() : previous_(active_) { active_ = true; }
  ~SerialLoops() { active_ = previous_; }
  SerialLoops(const SerialLoops&) = delete;
  SerialLoops& operator=(const SerialLoops&) = delete;
  static bool active() { return active_; }

 private:
  static inline thread_local bool active_ = false;
  bool previous_;
};

/// Calls f(begin, end) for consecutive chunks of `grain` indices (the last may be shorter) that cover [0, n).
/// Chunk boundaries depend only on n and grain. Chunks may run in any order and at the same time. An
/// exception from f ends the loop and is thrown again here. Throws Error for a grain below 1.
template <class F>
void parallel_for(std::int64_t n, std::int64_t grain, const F& f) {
  check(grain > 0, "[parallel_for] the grain is {}; a chunk needs at least one index", grain);
  if (n <= 0) return;
  const std::int64_t chunks = (n + grain - 1) / grain;
  if (chunks == 1) {
    f(std::int64_t{0}, n);
    return;
  }
  if (SerialLoops::active()) {
    for (std::int64_t c = 0; c < chunks; ++c) f(c * grain, std::min(n, (c + 1) * grain));
    return;
  }
  struct Join {
    Join() = default;
    Join(const Join&) = delete;
    Join& operator=(const Join&) = delete;
    ~Join() { tasks_finished.acquire(); }
  } const join;
  // A context of its own: when another part of a loop around this one fails, this loop still runs to its end,
  // and what it computes is whole. Otherwise it would be cut short without a word.
  tbb::task_group_context context(tbb::task_group_context::isolated);
  tbb::parallel_for(tbb::blocked_range<std::int64_t>(0, chunks, 1), ChunkRunner<F>(f, n, grain), context);
}

/// Elements an elementwise kernel handles per chunk: enough to hide the cost of a task, few enough to
/// balance.
inline constexpr std::int64_t kElementwiseGrain = 16384;

/// Rows of `elements` elements that make a chunk of about that size: at least one.
constexpr std::int64_t row_grain(std::int64_t elements) {
  return std::max<std::int64_t>(1, kElementwiseGrain / std::max<std::int64_t>(1, elements));
}

}  // namespace goshawk
