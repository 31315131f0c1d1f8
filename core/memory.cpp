#include "core/memory.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <sys/mman.h>
#include <unordered_map>
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

void* system_allocate(std::size_t bytes) {
  const std::size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  void* block = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (block != nullptr && bytes >= kHugePage) madvise(block, bytes, MADV_HUGEPAGE);
  return block;
}

class CachingAllocator {
 public:
  void* allocate(std::size_t bytes) {
    const std::size_t size = size_class(bytes);
    std::lock_guard lock(mutex_);
    ++stats_.allocations;
    void* block = nullptr;
#ifndef GOSHAWK_NO_CACHING_ALLOCATOR
    if (auto& list = free_[size]; !list.empty()) {
      block = list.back();
      list.pop_back();
    }
#endif
    if (block == nullptr) {
      block = system_allocate(size);
      if (block == nullptr) {
        release_locked();
        block = system_allocate(size);
      }
      check(block != nullptr,
            "[allocate] the system has no memory left for {} bytes ({} bytes are in use); "
            "use a smaller batch",
            size, stats_.bytes_in_use);
      ++stats_.system_allocations;
      stats_.bytes_reserved += static_cast<std::int64_t>(size);
    }
    stats_.bytes_in_use += static_cast<std::int64_t>(size);
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    return block;
  }

  void release(void* block, std::size_t bytes) noexcept {
    const std::size_t size = size_class(bytes);
    std::lock_guard lock(mutex_);
    stats_.bytes_in_use -= static_cast<std::int64_t>(size);
#ifdef GOSHAWK_NO_CACHING_ALLOCATOR
    stats_.bytes_reserved -= static_cast<std::int64_t>(size);
    std::free(block);
#else
    try {
      free_[size].push_back(block);
    } catch (...) {
      stats_.bytes_reserved -= static_cast<std::int64_t>(size);
      std::free(block);
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
  void release_cached() {
    std::lock_guard lock(mutex_);
    release_locked();
  }

 private:
  void release_locked() {
    for (auto& [size, list] : free_) {
      for (void* block : list) std::free(block);
      stats_.bytes_reserved -= static_cast<std::int64_t>(size * list.size());
      list.clear();
    }
  }

  std::mutex mutex_;
  std::unordered_map<std::size_t, std::vector<void*>> free_;
  MemoryStats stats_;
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
void reset_peak_memory() {
  allocator().reset_peak();
}
void release_cached_memory() {
  allocator().release_cached();
}

std::shared_ptr<std::byte[]> allocate(std::int64_t bytes) {
  check(bytes >= 0, "[allocate] {} bytes were asked for; the size was computed wrongly", bytes);
  const auto size = static_cast<std::size_t>(bytes);
  auto* block = static_cast<std::byte*>(allocator().allocate(size));
  return {block, [size](std::byte* p) { allocator().release(p, size); }};
}

}  // namespace goshawk
