// Memory that a thread's convolution tasks work in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace goshawk::kernels::simd {

/// Memory that grows and is reused from call to call; one per thread and use. Not taken from the caching
/// allocator because threads end after static objects do.
class Scratch {
 public:
  template <class T>
  T* get(std::int64_t elements) {
    const std::size_t bytes = static_cast<std::size_t>(elements) * sizeof(T);
    if (bytes > bytes_) {
      memory_.reset();
      bytes_ = 0;
      memory_.reset(static_cast<std::byte*>(::operator new(bytes, kAlignment)));
      bytes_ = bytes;
    }
    return reinterpret_cast<T*>(memory_.get());
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, kAlignment); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t bytes_ = 0;
};

/// What one task holds in scratch memory at the same time.
struct TaskScratch {
  Scratch image;
  Scratch row;
  Scratch grad;
  Scratch taps;
};

inline TaskScratch& task_scratch() {
  thread_local TaskScratch scratch;
  return scratch;
}

}  // namespace goshawk::kernels::simd
