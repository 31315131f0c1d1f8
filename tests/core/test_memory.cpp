#include <algorithm>
#include <barrier>
#include <cstring>
#include <doctest/doctest.h>
#include <fstream>
#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/memory.hpp"
#include "core/tensor.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

TEST_CASE("blocks are aligned and can be written to their end") {
  for (std::int64_t bytes :
       {1, 63, 64, 65, 255, 256, 257, 4096, 4097, 1 << 20, (2 << 20) - 1, 2 << 20, 5000001}) {
    CAPTURE(bytes);
    const auto block = allocate(bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(block.get()) % 64 == 0);
    if (bytes >= 2 << 20) CHECK(reinterpret_cast<std::uintptr_t>(block.get()) % (2 << 20) == 0);
    std::memset(block.get(), 0xAB, static_cast<std::size_t>(bytes));
    CHECK(block.get()[bytes - 1] == std::byte{0xAB});
  }
}

TEST_CASE("blocks that live at the same time do not overlap") {
  std::vector<std::shared_ptr<std::byte[]>> blocks;
  for (int i = 0; i < 200; ++i) {
    blocks.push_back(allocate(100 + 17 * i));
    std::memset(blocks.back().get(), i, static_cast<std::size_t>(100 + 17 * i));
  }
  for (int i = 0; i < 200; ++i) {
    for (int k = 0; k < 100 + 17 * i; ++k) {
      REQUIRE(blocks[static_cast<std::size_t>(i)].get()[k] == static_cast<std::byte>(i));
    }
  }
}

TEST_CASE("statistics count what is handed out") {
  const MemoryStats before = memory_stats();
  reset_peak_memory();
  {
    const auto a = allocate(100000);
    const MemoryStats during = memory_stats();
    CHECK(during.allocations == before.allocations + 1);
    CHECK(during.bytes_in_use >= before.bytes_in_use + 100000);
    // Size classes waste at most a quarter.
    CHECK(during.bytes_in_use <= before.bytes_in_use + 125000);
    CHECK(during.bytes_reserved >= during.bytes_in_use);
    const auto copy = a;
    CHECK(memory_stats().allocations == during.allocations);
  }
  const MemoryStats after = memory_stats();
  CHECK(after.bytes_in_use == before.bytes_in_use);
  CHECK(after.peak_bytes_in_use >= before.bytes_in_use + 100000);
  reset_peak_memory();
  CHECK(memory_stats().peak_bytes_in_use == after.bytes_in_use);
}

TEST_CASE("no request wastes more than a quarter") {
  for (std::int64_t bytes = 257; bytes < 300000; bytes += bytes / 37 + 1) {
    const std::int64_t before = memory_stats().bytes_in_use;
    const auto block = allocate(bytes);
    const std::int64_t given = memory_stats().bytes_in_use - before;
    CAPTURE(bytes);
    CHECK(given >= bytes);
    CHECK(given <= bytes + bytes / 4);
  }
}

#ifndef GOSHAWK_NO_CACHING_ALLOCATOR

TEST_CASE("a second request of the same size class asks the system for nothing") {
  release_cached_memory();
  const std::byte* first = nullptr;
  {
    const auto a = allocate(70000);
    first = a.get();
  }
  const std::int64_t system = memory_stats().system_allocations;
  {
    const auto b = allocate(70001);
    CHECK(b.get() == first);
    CHECK(memory_stats().system_allocations == system);
    // The block is taken, so another one is needed.
    const auto c = allocate(70000);
    CHECK(memory_stats().system_allocations == system + 1);
  }
  for (int step = 0; step < 100; ++step) {
    const auto a = allocate(70000);
    const auto b = allocate(69999);
  }
  CHECK(memory_stats().system_allocations == system + 1);
}

TEST_CASE("cached memory is given back on request") {
  release_cached_memory();
  const std::int64_t reserved = memory_stats().bytes_reserved;
  { const auto a = allocate(1 << 20); }
  CHECK(memory_stats().bytes_reserved > reserved);
  release_cached_memory();
  CHECK(memory_stats().bytes_reserved == reserved);
  CHECK(memory_stats().bytes_reserved == memory_stats().bytes_in_use);
}

TEST_CASE("cached memory is given back before the process would hold more than its limit") {
  release_cached_memory();
  constexpr std::int64_t kBytes = 4 << 20;
  struct Limit {
    std::int64_t before;
    explicit Limit(std::int64_t bytes) : before(set_cache_limit(bytes)) {}
    ~Limit() { set_cache_limit(before); }
  };
  const std::int64_t held = memory_stats().bytes_reserved;
  const Limit limit(held + 3 * kBytes);
  CHECK(limit.before > physical_memory() / 2);
  CHECK(limit.before < physical_memory());
  { const auto a = allocate(kBytes), b = allocate(kBytes), small = allocate(256); }
  const std::int64_t small = memory_stats().bytes_reserved - held - 2 * kBytes;
  CHECK(small <= 256);
  // Another size, so that no cached block serves it.
  auto larger = allocate(2 * kBytes);
  CHECK(memory_stats().bytes_reserved == held + small + 2 * kBytes);
  // What is in use may exceed the limit; only the system says when it is too much.
  const auto more = allocate(4 * kBytes);
  CHECK(memory_stats().bytes_reserved == held + small + 6 * kBytes);
  // Beyond it, what would not make room for a block stays in the cache, and a small block gives nothing back.
  larger.reset();
  const auto largest = allocate(3 * kBytes);
  CHECK(memory_stats().bytes_reserved == held + small + 9 * kBytes);
  const auto other_small = allocate(100'000);
  CHECK(memory_stats().bytes_reserved > held + small + 9 * kBytes);
  CHECK(memory_stats().bytes_reserved < held + small + 10 * kBytes);
}

TEST_CASE("the huge pages of a block are held as a whole") {
  release_cached_memory();
  const std::int64_t held = memory_stats().bytes_reserved;
  const auto block = allocate(5 << 19);  // 2.5 MiB: one and a half pages
  CHECK(memory_stats().bytes_reserved == held + (4 << 20));
}

TEST_CASE("a loop over tensors settles to no system allocations") {
  const auto step = [] {
    Tensor x = Tensor::zeros({64, 32, 32}, DType::f32);
    for (int i = 0; i < 5; ++i) x = x.clone();
  };
  step();
  const std::int64_t system = memory_stats().system_allocations;
  for (int i = 0; i < 20; ++i) step();
  CHECK(memory_stats().system_allocations == system);
}

TEST_CASE("a thread gets back what it freed itself, and what threads that ended have left") {
  release_cached_memory();
  constexpr std::int64_t kBytes = 3 << 20;
  auto mine = allocate(kBytes);
  const std::byte* const first = mine.get();
  std::thread([] { allocate(kBytes); }).join();  // leaves a block of its own behind
  mine.reset();
  const std::int64_t system = memory_stats().system_allocations;
  {
    mine = allocate(kBytes);
    CHECK(mine.get() == first);
    const auto from_the_other = allocate(kBytes);
    CHECK(memory_stats().system_allocations == system);
  }
}

TEST_CASE("threads that repeat their work need no more memory, however they take turns") {
  release_cached_memory();
  constexpr std::int64_t kBytes = 3 << 20;
  const auto hold_two = [] { return std::pair(allocate(kBytes), allocate(kBytes)); };
  std::barrier turn(2);
  std::int64_t first_round = 0, second_round = 0;
  std::thread other([&] {
    turn.arrive_and_wait();
    hold_two();  // after this thread's
    turn.arrive_and_wait();
    const auto held = hold_two();  // at the same time
    turn.arrive_and_wait();
  });
  hold_two();
  turn.arrive_and_wait();
  turn.arrive_and_wait();
  first_round = memory_stats().system_allocations;
  {
    const auto held = hold_two();
    turn.arrive_and_wait();
    second_round = memory_stats().system_allocations;
  }
  other.join();
  CHECK(second_round == first_round);
}

TEST_CASE("a block that another thread frees goes back to the one that asked for it") {
  release_cached_memory();
  auto mine = allocate(70000);
  const std::byte* const block = mine.get();
  std::thread([&] { mine.reset(); }).join();
  CHECK(allocate(70000).get() == block);
}

#endif

TEST_CASE("the machine's memory is that of /proc/meminfo, or less in a container with a limit") {
  std::ifstream file("/proc/meminfo");
  std::string label;
  std::int64_t kibibytes = 0;
  file >> label >> kibibytes;
  CHECK(label == "MemTotal:");
  double limit = std::numeric_limits<double>::infinity();  // of either version of control groups
  for (const char* name : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    double bytes = 0;
    if (std::ifstream(name) >> bytes) limit = std::min(limit, bytes);
  }
  CHECK(static_cast<double>(physical_memory()) == std::min(1024.0 * static_cast<double>(kibibytes), limit));
}

TEST_CASE("several threads allocate, pass on and release blocks") {
  const std::int64_t before = memory_stats().bytes_in_use;
  std::vector<std::thread> threads;
  std::vector<int> spoiled(4, 0);
  std::vector<std::vector<std::shared_ptr<std::byte[]>>> kept(4);
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        const auto size = static_cast<std::size_t>(64 + (i * 997 + static_cast<int>(t) * 31) % 5000);
        auto block = allocate(static_cast<std::int64_t>(size));
        std::memset(block.get(), static_cast<int>(t + 1), size);
        if (i % 50 == 0) kept[t].push_back(block);
        for (std::size_t k = 0; k < size; k += 61) {
          if (block.get()[k] != static_cast<std::byte>(t + 1)) ++spoiled[t];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(spoiled == std::vector<int>(4, 0));
  CHECK(memory_stats().bytes_in_use > before);
  // Released by another thread than the one that allocated.
  kept.clear();
  CHECK(memory_stats().bytes_in_use == before);
}

TEST_CASE("a request that no machine can satisfy is an error, and the allocator works on") {
  const std::int64_t before = memory_stats().bytes_in_use;
#ifndef GOSHAWK_NO_CACHING_ALLOCATOR
  // The sanitizers end the program instead.
  CHECK(contains(error_of([] { allocate(std::int64_t{1} << 62); }), "no memory left"));
#endif
  CHECK(contains(error_of([] { allocate(-1); }), "-1 bytes"));
  CHECK(memory_stats().bytes_in_use == before);
  CHECK(allocate(100) != nullptr);
}
