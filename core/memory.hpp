// The caching allocator behind every tensor: 64-byte-aligned blocks, huge pages for large ones, no malloc per
// op.
#pragma once

#include <cstdint>
#include <memory>

namespace goshawk {

struct MemoryStats {
  std::int64_t bytes_in_use = 0;        ///< handed out and not yet returned (rounded up to size classes)
  std::int64_t peak_bytes_in_use = 0;   ///< largest value of bytes_in_use since the last reset_peak_memory()
  std::int64_t bytes_reserved = 0;      ///< obtained from the system, cached too; large: whole huge pages
  std::int64_t system_allocations = 0;  ///< calls that had to ask the system for a new block
  std::int64_t allocations = 0;         ///< all calls
};

MemoryStats memory_stats();
/// Bytes of main memory that this process may use: the machine's, or a container's limit where that is less.
std::int64_t physical_memory();
void reset_peak_memory();
/// Returns every cached free block to the system.
void release_cached_memory();
/// Before a new block of 2 MiB or more makes bytes_reserved exceed `bytes`, cached ones of such sizes go back
/// to the system if that makes room for it. Nine tenths of physical_memory() unless set. Returns what it was.
std::int64_t set_cache_limit(std::int64_t bytes);

/// A reference-counted, 64-byte-aligned block of at least `bytes` bytes with undefined contents.
/// Throws Error when the system has no memory left.
std::shared_ptr<std::byte[]> allocate(std::int64_t bytes);

}  // namespace goshawk
