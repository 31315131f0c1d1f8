// The register block that all convolution kernels share. Included once per instruction set.

// The include guard of Highway's multiple inclusion.
#if defined(GOSHAWK_CORE_KERNELS_CONV_BLOCK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSHAWK_CORE_KERNELS_CONV_BLOCK_INL
#undef GOSHAWK_CORE_KERNELS_CONV_BLOCK_INL
#else
#define GOSHAWK_CORE_KERNELS_CONV_BLOCK_INL
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <hwy/highway.h>
#include <utility>

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels::simd {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Index = std::int64_t;
using std::size_t;

// Largest register blocks: the sums, the vectors of one row and one broadcast must fit the registers.
#if HWY_TARGET == HWY_AVX3
constexpr size_t kMaxRows1 = 16;  // with one vector in a row
constexpr size_t kMaxRows2 = 12;  // with two
#else
constexpr size_t kMaxRows1 = 12;
constexpr size_t kMaxRows2 = 6;
#endif
constexpr size_t kBlockVectors = 2;

template <class T>
constexpr Index kLanes = static_cast<Index>(hn::MaxLanes(hn::ScalableTag<T>()));

template <size_t kRow, class V, size_t kVectors, size_t kSums, size_t... v>
HWY_INLINE void add_to_row(V value, const V (&w)[kVectors], V (&sums)[kSums], std::index_sequence<v...>) {
  ((sums[kRow * kVectors + v] = hn::MulAdd(value, w[v], sums[kRow * kVectors + v])), ...);
}

/// sums[r][:] += in[r * kStride] * w[:]. Index sequences unroll before registers are allocated, which makes
/// every sum a variable of its own; an array of vectors that a loop updates would stay in memory.
template <Index kStride, class D, class T, class V, size_t kVectors, size_t kSums, size_t... r>
HWY_INLINE void add_outer_product(D d, const T* HWY_RESTRICT in, const V (&w)[kVectors], V (&sums)[kSums],
                                  std::index_sequence<r...>) {
  (add_to_row<r>(hn::Set(d, in[static_cast<Index>(r) * kStride]), w, sums,
                 std::make_index_sequence<kVectors>()),
   ...);
}

template <class D, class T, class V, size_t kVectors, size_t... v>
HWY_INLINE void load(D d, const T* HWY_RESTRICT from, V (&w)[kVectors], std::index_sequence<v...>) {
  ((w[v] = hn::LoadU(d, from + v * hn::MaxLanes(D()))), ...);
}

template <class D, class V, size_t kSums, size_t... i>
HWY_INLINE void clear(D d, V (&sums)[kSums], std::index_sequence<i...>) {
  ((sums[i] = hn::Zero(d)), ...);
}

template <class T>
void set_zero(T* begin, T* end) {
  std::memset(begin, 0, static_cast<size_t>(end - begin) * sizeof(T));
}

/// Asks for the memory that the next task reads, a part at each step, so that it is in the second-level cache
/// by the time it is needed.
class Prefetcher {
 public:
  template <class T>
  Prefetcher(const T* begin, const T* end, Index steps)
      : next_(reinterpret_cast<const char*>(begin)), left_((end - begin) * static_cast<Index>(sizeof(T))) {
    step_ = (left_ / std::max(steps, Index{1}) / kLine + 1) * kLine;
  }
  void step() {
    const Index bytes = std::min(step_, left_);
    for (Index i = 0; i < bytes; i += kLine) __builtin_prefetch(next_ + i, 0, 2);
    next_ += bytes;
    left_ -= bytes;
  }

 private:
  static constexpr Index kLine = 64;
  const char* next_;
  Index left_;
  Index step_;
};

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels::simd
HWY_AFTER_NAMESPACE();

#endif
