#include <atomic>
#include <chrono>
#include <doctest/doctest.h>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "tests/support/scratch_directory.hpp"
#include "tests/support/threads.hpp"

using namespace goshawk;

namespace {

using Chunk = std::pair<std::int64_t, std::int64_t>;

std::multiset<Chunk> chunks_of(std::int64_t n, std::int64_t grain) {
  std::multiset<Chunk> chunks;
  std::mutex mutex;
  parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
    std::lock_guard lock(mutex);
    chunks.emplace(begin, end);
  });
  return chunks;
}

constexpr std::int64_t kSizes[] = {0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 1000, 4097};
constexpr std::int64_t kGrains[] = {1, 2, 3, 8, 64, 1000, 5000};

}  // namespace

TEST_CASE("every index is visited once") {
  for (int threads : {1, 2, 4}) {
    const Threads limit(threads);
    for (std::int64_t n : kSizes) {
      for (std::int64_t grain : kGrains) {
        std::vector<std::atomic<int>> visits(static_cast<std::size_t>(n));
        parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
        });
        std::int64_t once = 0;
        for (const auto& v : visits) once += v == 1;
        CAPTURE(n);
        CAPTURE(grain);
        CHECK(once == n);
      }
    }
  }
  CHECK(chunks_of(-5, 3).empty());
}

TEST_CASE("chunk boundaries depend on n and grain, not on the number of threads") {
  for (std::int64_t n : kSizes) {
    for (std::int64_t grain : kGrains) {
      std::multiset<Chunk> expected;
      for (std::int64_t begin = 0; begin < n; begin += grain) {
        expected.emplace(begin, begin + grain < n ? begin + grain : n);
      }
      for (int threads : {1, 2, 3}) {
        const Threads limit(threads);
        CHECK(chunks_of(n, grain) == expected);
      }
    }
  }
}

TEST_CASE("a sum of per-chunk sums has the same bits for any number of threads") {
  const std::int64_t n = 100003, grain = 1000;
  const auto sum = [&] {
    std::vector<float> partial(static_cast<std::size_t>((n + grain - 1) / grain));
    parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
      float s = 0;
      for (std::int64_t i = begin; i < end; ++i) s += 1.0f / static_cast<float>(i + 1);
      partial[static_cast<std::size_t>(begin / grain)] = s;
    });
    return std::accumulate(partial.begin(), partial.end(), 0.0f);
  };
  const Threads limit(1);
  const float one = sum();
  for (int threads : {2, 3, 4}) {
    set_num_threads(threads);
    for (int repeat = 0; repeat < 20; ++repeat) CHECK(sum() == one);
  }
}

TEST_CASE("the number of threads is a limit") {
  for (int threads : {1, 2}) {
    const Threads limit(threads);
    CHECK(num_threads() == threads);
    std::atomic<int> running{0};
    std::atomic<int> most{0};
    parallel_for(64, 1, [&](std::int64_t, std::int64_t) {
      const int now = ++running;
      int seen = most;
      while (seen < now && !most.compare_exchange_weak(seen, now)) {
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      --running;
    });
    CHECK(most <= threads);
    CHECK(most >= 1);
  }
}

TEST_CASE("one thread is the calling thread") {
  const Threads limit(1);
  std::set<std::thread::id> ids;
  parallel_for(100, 1, [&](std::int64_t, std::int64_t) { ids.insert(std::this_thread::get_id()); });
  CHECK(ids == std::set{std::this_thread::get_id()});
}

TEST_CASE("set_num_threads: all cores, again and again, and nonsense") {
  const Threads limit(0);
  const int all = num_threads();
  CHECK(all >= 1);
  for (int threads : {3, 1, 2, 5}) {
    set_num_threads(threads);
    CHECK(num_threads() == threads);
  }
  CHECK(contains(error_of([] { set_num_threads(-1); }), "-1 threads"));
  CHECK(num_threads() == 5);
  set_num_threads(0);
  CHECK(num_threads() == all);
}

TEST_CASE("an error inside a chunk comes out of the loop") {
  for (int threads : {1, 2}) {
    const Threads limit(threads);
    const auto loop = [] {
      parallel_for(100, 1,
                   [](std::int64_t begin, std::int64_t) { check(begin != 57, "[chunk] {} failed", begin); });
    };
    CHECK(error_of(loop) == "[chunk] 57 failed");
  }
}

TEST_CASE("a loop inside a loop that fails runs to its end") {
  const Threads limit(2);
  constexpr std::int64_t kInner = 200;
  // One thread may have to do it all, and then nothing that is waited for comes.
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  const auto until = [&](const std::atomic<bool>& flag) {
    while (!flag && std::chrono::steady_clock::now() < patience) std::this_thread::yield();
  };
  std::atomic<bool> begun = false, failed = false, whole = true;
  const auto loop = [&] {
    parallel_for(2, 1, [&](std::int64_t outer, std::int64_t) {
      if (outer == 1) {
        until(begun);
        failed = true;
        fail("[chunk] failed");
      }
      std::atomic<std::int64_t> done = 0;
      parallel_for(kInner, 1, [&](std::int64_t, std::int64_t) {
        begun = true;
        until(failed);
        // Time for the failure to spread.
        std::this_thread::sleep_for(std::chrono::microseconds(100));
        ++done;
      });
      whole = done == kInner;
    });
  };
  CHECK(error_of(loop) == "[chunk] failed");
  CHECK(whole);
}

TEST_CASE("rows make chunks of about the size of an elementwise one") {
  CHECK(row_grain(1) == kElementwiseGrain);
  CHECK(row_grain(0) == kElementwiseGrain);
  CHECK(row_grain(100) == kElementwiseGrain / 100);
  CHECK(row_grain(kElementwiseGrain + 1) == 1);
}

TEST_CASE("a grain below one is an error, not a division by zero") {
  CHECK_THROWS_AS(parallel_for(5, 0, [](std::int64_t, std::int64_t) {}), Error);
}

TEST_CASE("loops nest") {
  const Threads limit(2);
  std::atomic<std::int64_t> sum{0};
  parallel_for(20, 3, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      parallel_for(30, 7, [&](std::int64_t b, std::int64_t e) {
        for (std::int64_t k = b; k < e; ++k) sum += i * k;
      });
    }
  });
  CHECK(sum == 190 * 435);
}

TEST_CASE("serial loops have the same chunks, in order, on the thread that asked for them") {
  const Threads limit(2);
  std::vector<std::pair<std::int64_t, std::int64_t>> chunks;
  const auto caller = std::this_thread::get_id();
  {
    const SerialLoops outer;
    {
      const SerialLoops inner;
      CHECK(SerialLoops::active());
    }
    CHECK(SerialLoops::active());
    parallel_for(10, 4, [&](std::int64_t begin, std::int64_t end) {
      CHECK(std::this_thread::get_id() == caller);
      chunks.emplace_back(begin, end);
    });
    bool elsewhere = true;
    std::thread([&] { elsewhere = SerialLoops::active(); }).join();
    CHECK_FALSE(elsewhere);
  }
  CHECK_FALSE(SerialLoops::active());
  CHECK(chunks == std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 4}, {4, 8}, {8, 10}});
}
