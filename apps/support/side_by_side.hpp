// Independent pieces of long work at the same time, each on its share of the threads.
#pragma once

#include <cstddef>
#include <functional>

namespace goshawk {

/// Runs task(0), …, task(count − 1), begun in this order and at most `at_once` of them (at least 1) at a
/// time, but never more than there are threads. Together they use num_threads() threads: each has its own,
/// and those that are left help where there is work, so that the last task has them all. This is faster than
/// one task after the other, which wait within each loop until their last thread is ready.
///
/// When a task throws, no other is begun, training in the others is interrupted (DeferInterrupt), which saves
/// it, and when all have ended the first exception is thrown again.
void side_by_side(std::size_t count, std::size_t at_once, const std::function<void(std::size_t)>& task);

}  // namespace goshawk
