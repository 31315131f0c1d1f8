#include "core/memory.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/error.hpp"

namespace goshawk {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Rounds up to one of four classes per power of two, so that a block serves requests of nearly its size
// (at most 25 % is lost) and freed blocks are found again.
std::size_t size_class(std::size_t bytes) {
  if (bytes <= 256) return 256;
  const std::size_t step = std::bit_ceil(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

// Large blocks come from the kernel and go back to it: malloc would keep what lies between blocks still in
// use.
bool is_large([[maybe_unused]] std::size_t bytes) {
#ifdef GOSHAWK_NO_CACHING_ALLOCATOR
  return false;  // a sanitizer only guards what malloc gives
#else
  return bytes >= kHugePage;
#endif
}
std::size_t mapped_size(std::size_t bytes) {
  return (bytes + kHugePage - 1) / kHugePage * kHugePage;
}
// What a block takes of the machine's memory: a huge page is there as a whole once a byte of it is written.
std::int64_t held(std::size_t bytes) {
  return static_cast<std::int64_t>(is_large(bytes) ? mapped_size(bytes) : bytes);
}

void* system_allocate(std::size_t bytes) {
  if (!is_large(bytes)) {
    const std::size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
    return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  }
  const std::size_t size = mapped_size(bytes);
  void* const mapped =
      mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const first = static_cast<std::byte*>(mapped);
  const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(first) % kHugePage) % kHugePage;
  if (before > 0) munmap(first, before);
  munmap(first + before + size, kHugePage - before);
  madvise(first + before, size, MADV_HUGEPAGE);
  return first + before;
}

void system_free(void* block, std::size_t bytes) {
  if (is_large(bytes)) {
    munmap(block, mapped_size(bytes));
  } else {
    std::free(block);
  }
}

// Which of the allocator's sets of free lists is this thread's; none yet.
constexpr std::size_t kNone = 0;
thread_local std::size_t this_threads_lists = kNone;

// A block goes back to the thread that asked for it, whoever frees it, and serves no other thread: what a
// thread frees is what it gets next, still in its core's cache, and a thread that repeats its work finds all
// it needs from the second time on. Were threads to help themselves to each other's blocks, one would miss a
// block whenever they happen to need the most at the same moment, which takes many repetitions to be sure of.
class CachingAllocator {
 public:
  struct Block {
    void* data;
    std::size_t home;  // the lists it goes back to
  };

  Block allocate(std::size_t bytes) {
    const std::size_t size = size_class(bytes);
    const std::size_t own = own_lists();
    std::lock_guard lock(mutex_);
    ++stats_.allocations;
    Block taken = take_cached(own, size);
    void*& block = taken.data;
    if (block == nullptr) {
      // The system seldom refuses: it promises more memory than it has, and ends the process that uses it.
      // Only large blocks make room at once, and only where there is enough of them: what is in use may
      // exceed the limit, and then every new block would empty the cache for nothing.
      if (is_large(size) && stats_.bytes_reserved + held(size) > limit_ && cached_large_ >= held(size))
        release_locked(is_large);
      block = system_allocate(size);
      if (block == nullptr) {
        release_locked([](std::size_t) { return true; });
        block = system_allocate(size);
      }
      check(block != nullptr,
            "[allocate] the system has no memory left for {} bytes ({} bytes are in use); "
            "use a smaller batch",
            size, stats_.bytes_in_use);
      ++stats_.system_allocations;
      stats_.bytes_reserved += held(size);
    }
    stats_.bytes_in_use += static_cast<std::int64_t>(size);
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    return taken;
  }

  void release(void* block, std::size_t bytes, [[maybe_unused]] std::size_t home) noexcept {
    const std::size_t size = size_class(bytes);
    std::lock_guard lock(mutex_);
    stats_.bytes_in_use -= static_cast<std::int64_t>(size);
#ifdef GOSHAWK_NO_CACHING_ALLOCATOR
    stats_.bytes_reserved -= held(size);
    system_free(block, size);
#else
    try {
      lists_[home][size].push_back(block);
      if (is_large(size)) cached_large_ += held(size);
    } catch (...) {
      stats_.bytes_reserved -= held(size);
      system_free(block, size);
    }
#endif
  }

  MemoryStats stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peak() {
    std::lock_guard lock(mutex_);
    stats_.peak_bytes_in_use = stats_.bytes_in_use;
  }
  std::int64_t set_limit(std::int64_t bytes) {
    std::lock_guard lock(mutex_);
    return std::exchange(limit_, bytes);
  }
  void release_cached() {
    std::lock_guard lock(mutex_);
    release_locked([](std::size_t) { return true; });
  }

 private:
  using FreeLists = std::unordered_map<std::size_t, std::vector<void*>>;  // by size class

  // Hands a thread's lists on to the next new thread when it ends. What the thread still asks for after that
  // goes to the first lists.
  struct Lease {
    CachingAllocator* allocator;
    ~Lease() {
      std::lock_guard lock(allocator->mutex_);
      allocator->unowned_.push_back(std::exchange(this_threads_lists, kShared));
    }
  };

  std::size_t own_lists() {
    if (this_threads_lists == kNone) {
      {
        std::lock_guard lock(mutex_);
        if (unowned_.empty()) {
          unowned_.reserve(lists_.size() + 1);
          lists_.emplace_back();
          this_threads_lists = lists_.size() - 1;
        } else {
          this_threads_lists = unowned_.back();
          unowned_.pop_back();
        }
      }
      thread_local const Lease lease{this};
    }
    return this_threads_lists;
  }

  // A block of the thread's own, or else of a thread that has ended; null if there is none.
  Block take_cached(std::size_t own, std::size_t size) {
    const auto take = [&](std::size_t home) -> void* {
      const auto list = lists_[home].find(size);
      if (list == lists_[home].end() || list->second.empty()) return nullptr;
      void* const block = list->second.back();
      list->second.pop_back();
      if (is_large(size)) cached_large_ -= held(size);
      return block;
    };
    if (void* block = take(own)) return {block, own};
    for (const std::size_t home : unowned_) {
      if (void* block = take(home)) return {block, own};
    }
    return {nullptr, own};
  }

  // Cached blocks of the sizes that `chosen` says.
  template <class Chosen>
  void release_locked(const Chosen& chosen) {
    for (FreeLists& lists : lists_) {
      for (auto& [size, list] : lists) {
        if (!chosen(size)) continue;
        for (void* block : list) system_free(block, size);
        const std::int64_t bytes = held(size) * std::ssize(list);
        stats_.bytes_reserved -= bytes;
        if (is_large(size)) cached_large_ -= bytes;
        list.clear();
      }
    }
  }

  static constexpr std::size_t kShared = 1;  // index of the lists of threads that are ending
  std::mutex mutex_;
  std::vector<FreeLists> lists_{kShared + 1};  // empty without caching; 0 is nobody's
  std::vector<std::size_t> unowned_;
  MemoryStats stats_;
  std::int64_t cached_large_ = 0;                    // bytes that large cached blocks hold
  std::int64_t limit_ = physical_memory() / 10 * 9;  // the rest is for what does not come from here
};

// Never destroyed: tensors with static storage duration may outlive any other static object.
CachingAllocator& allocator() {
  static auto* instance = new CachingAllocator;
  return *instance;
}

}  // namespace

MemoryStats memory_stats() {
  return allocator().stats();
}
std::int64_t physical_memory() {
  std::int64_t bytes = static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  // Control groups, version 2 and 1: "max" or a number without meaning where there is no limit.
  for (const char* file : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::int64_t limit = 0;
    if (std::ifstream(file) >> limit && limit > 0) bytes = std::min(bytes, limit);
  }
  return bytes;
}

void reset_peak_memory() {
  allocator().reset_peak();
}
void release_cached_memory() {
  allocator().release_cached();
}
std::int64_t set_cache_limit(std::int64_t bytes) {
  return allocator().set_limit(bytes);
}

std::shared_ptr<std::byte[]> allocate(std::int64_t bytes) {
  check(bytes >= 0, "[allocate] {} bytes were asked for; the size was computed wrongly", bytes);
  const auto size = static_cast<std::size_t>(bytes);
  const auto [block, home] = allocator().allocate(size);
  return {static_cast<std::byte*>(block),
          [size, h = home](std::byte* p) { allocator().release(p, size, h); }};
}

}  // namespace goshawk
