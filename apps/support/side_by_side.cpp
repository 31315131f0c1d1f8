#include "apps/support/side_by_side.hpp"

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "apps/support/interrupt.hpp"
#include "core/parallel.hpp"

namespace goshawk {
namespace {

class Tasks {
 public:
  Tasks(std::size_t count, std::size_t workers, const std::function<void(std::size_t)>& task)
      : task_(task), count_(count), threads_(num_threads()), busy_(static_cast<int>(workers)) {
    share_threads();
  }
  ~Tasks() { set_num_threads(threads_); }
  Tasks(const Tasks&) = delete;
  Tasks& operator=(const Tasks&) = delete;

  // Takes task after task until none is left.
  void work() {
    for (;;) {
      std::size_t index = 0;
      {
        const std::lock_guard lock(mutex_);
        if (error_ || next_ == count_) {
          --busy_;
          if (busy_ > 0) share_threads();
          return;
        }
        index = next_++;
      }
      try {
        task_(index);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
        DeferInterrupt::request();
      }
    }
  }

  void rethrow_error() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  // oneTBB counts one thread, that of the caller, whoever calls; the other callers are more than it knows of.
  void share_threads() const { set_num_threads(std::max(1, threads_ - (busy_ - 1))); }

  const std::function<void(std::size_t)>& task_;
  const std::size_t count_;
  const int threads_;
  std::mutex mutex_;
  std::size_t next_ = 0;
  int busy_;
  std::exception_ptr error_;
};

}  // namespace

void side_by_side(std::size_t count, std::size_t at_once, const std::function<void(std::size_t)>& task) {
  const std::size_t workers = std::min({count, at_once, static_cast<std::size_t>(num_threads())});
  if (workers <= 1) {
    for (std::size_t i = 0; i < count; ++i) task(i);
    return;
  }
  Tasks tasks(count, workers, task);
  {
    std::vector<std::jthread> others;
    for (std::size_t k = 1; k < workers; ++k) others.emplace_back([&] { tasks.work(); });
    tasks.work();
  }
  tasks.rethrow_error();
}

}  // namespace goshawk
