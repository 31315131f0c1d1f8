#include "core/parallel.hpp"

#include <memory>
#include <mutex>
#include <tbb/global_control.h>
#include <tbb/info.h>

#include "core/error.hpp"

namespace goshawk {
namespace {

std::mutex mutex;
std::unique_ptr<tbb::global_control> control;

}  // namespace

void set_num_threads(int threads) {
  check(threads >= 0, "[set_num_threads] {} threads were asked for; give 1 or more, or 0 for all cores",
        threads);
  if (threads == 0) threads = tbb::info::default_concurrency();
  std::lock_guard lock(mutex);
  // The lower of two limits holds, so there is no moment without any.
  control = std::make_unique<tbb::global_control>(tbb::global_control::max_allowed_parallelism,
                                                  static_cast<std::size_t>(threads));
}

int num_threads() {
  return static_cast<int>(tbb::global_control::active_value(tbb::global_control::max_allowed_parallelism));
}

}  // namespace goshawk
