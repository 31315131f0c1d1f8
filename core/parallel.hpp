// Parallel loops on oneTBB whose work is split by a rule that does not depend on the number of threads.
// Together with reductions in a fixed order this makes every result the same, to the bit, for any thread
// count.
#pragma once

#include <algorithm>
#include <cstdint>
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

namespace goshawk {

/// Limits all parallel work of this process to `threads` threads (at least 1; 0 means all cores).
void set_num_threads(int threads);
int num_threads();

/// Calls f(begin, end) for consecutive chunks of `grain` indices (the last may be shorter) that cover [0, n).
/// Chunk boundaries depend only on n and grain. Chunks may run in any order and at the same time.
template <class F>
void parallel_for(std::int64_t n, std::int64_t grain, const F& f) {
  if (n <= 0) return;
  const std::int64_t chunks = (n + grain - 1) / grain;
  const auto run = [&](std::int64_t chunk) { f(chunk * grain, std::min(n, (chunk + 1) * grain)); };
  if (chunks == 1) {
    run(0);
    return;
  }
  tbb::parallel_for(tbb::blocked_range<std::int64_t>(0, chunks, 1),
                    [&](const tbb::blocked_range<std::int64_t>& range) {
                      for (std::int64_t c = range.begin(); c != range.end(); ++c) run(c);
                    });
}

/// Elements an elementwise kernel handles per chunk: enough to hide the cost of a task, few enough to
/// balance.
inline constexpr std::int64_t kElementwiseGrain = 16384;

}  // namespace goshawk
