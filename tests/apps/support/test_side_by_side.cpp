#include <atomic>
#include <chrono>
#include <doctest/doctest.h>
#include <latch>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "apps/support/interrupt.hpp"
#include "apps/support/side_by_side.hpp"
#include "core/parallel.hpp"
#include "tests/support/threads.hpp"

using namespace goshawk;

TEST_CASE("tasks share the threads, and the last one has them all") {
  const Threads four(4);
  std::latch all_begun(3), looked(3), two_done(2);
  std::vector<int> shared(3), alone(3);
  side_by_side(3, 3, [&](std::size_t i) {
    all_begun.arrive_and_wait();  // would wait for ever if the three were not at work together
    shared[i] = num_threads();
    // Nobody leaves before all have looked.
    looked.arrive_and_wait();
    if (i > 0) {
      two_done.count_down();
      return;
    }
    two_done.wait();
    while (num_threads() < 4) std::this_thread::yield();
    alone[i] = num_threads();
  });
  // Three callers and one thread of the pool, which oneTBB counts as two.
  CHECK(shared == std::vector{2, 2, 2});
  CHECK(alone[0] == 4);
  CHECK(num_threads() == 4);
}

TEST_CASE("each task runs once, never more at a time than asked for or than there are threads") {
  for (const auto& [threads, at_once, most] :
       {std::tuple(4, 2, 2), std::tuple(2, 9, 2), std::tuple(3, 1, 1)}) {
    const Threads limit(threads);
    std::atomic<int> busy{0}, peak{0};
    std::vector<std::atomic<int>> runs(20);
    side_by_side(runs.size(), static_cast<std::size_t>(at_once), [&](std::size_t i) {
      const int now = ++busy;
      for (int seen = peak; seen < now && !peak.compare_exchange_weak(seen, now);) {
      }
      ++runs[i];
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      --busy;
    });
    for (const auto& count : runs) CHECK(count == 1);
    CHECK(peak <= most);
    CHECK(num_threads() == threads);
  }
}

TEST_CASE("one at a time is in order and on this thread") {
  std::vector<std::size_t> order;
  side_by_side(5, 1, [&](std::size_t i) { order.push_back(i); });
  CHECK(order == std::vector<std::size_t>{0, 1, 2, 3, 4});
  side_by_side(0, 4, [](std::size_t) { FAIL("there is no task"); });
}

TEST_CASE("a task that fails stops the others, and its error is the one that is thrown") {
  const InterruptHandler handler("test", "go on");  // forgets earlier requests
  const Threads two(2);
  std::atomic<int> begun{0};
  std::string error;
  try {
    side_by_side(10, 2, [&](std::size_t i) {
      ++begun;
      if (i == 0) {
        while (begun < 2) std::this_thread::yield();
        throw std::runtime_error("no room");
      }
      // As training does: until it is asked to stop.
      const DeferInterrupt defer;
      while (!DeferInterrupt::interrupted()) std::this_thread::yield();
      throw_interrupted();
    });
  } catch (const std::exception& e) {
    error = e.what();
  }
  CHECK(error == "no room");
  CHECK(begun == 2);
  CHECK(num_threads() == 2);
}
