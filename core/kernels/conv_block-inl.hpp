// The register blocks that all convolution kernels share. Included once per instruction set.

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

#include "core/kernels/conv_simd.hpp"

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels::simd {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Index = std::int64_t;
using std::size_t;

// Largest register blocks: the sums, the vectors of one row and one broadcast must fit the registers.
#if HWY_TARGET <= HWY_AVX3        // what is better has a lower number
constexpr size_t kMaxRows1 = 16;  // with one vector in a row
constexpr size_t kMaxRows2 = 12;  // with two
constexpr size_t kMaxRows4 = 6;   // with four, which take the fewest loads for a multiplication
constexpr size_t kWidest = 4;
#else
constexpr size_t kMaxRows1 = 12;
constexpr size_t kMaxRows2 = 6;
constexpr size_t kMaxRows4 = 0;
constexpr size_t kWidest = 2;
#endif

constexpr size_t max_rows(size_t vectors) {
  return vectors == 1 ? kMaxRows1 : vectors == 2 ? kMaxRows2 : kMaxRows4;
}

template <class T>
constexpr Index kLanes = static_cast<Index>(hn::MaxLanes(hn::ScalableTag<T>()));

/// f(first channel, vectors) for each register block of so many output channels.
template <class T, class F>
HWY_INLINE void each_block(Index channels, const F& f) {
  const Index all = (channels + kLanes<T> - 1) / kLanes<T>;
  Index vectors = 0;
  for (Index v = 0; v < all; v += vectors) {
    vectors = block_vectors(all - v, static_cast<Index>(kWidest));
    f(v * kLanes<T>, static_cast<size_t>(vectors));
  }
}

/// f(std::integral_constant) of the number of vectors in a block, which is known to the compiler in there.
template <class F>
HWY_INLINE auto with_vectors(size_t vectors, const F& f) {
  if constexpr (kWidest > 2) {
    if (vectors == kWidest) return f(std::integral_constant<size_t, kWidest>());
  }
  return vectors == 1 ? f(std::integral_constant<size_t, 1>()) : f(std::integral_constant<size_t, 2>());
}

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

/// sums[p][v] = first[v * lanes].
template <class D, class T, class V, size_t kSums, size_t... i, size_t... v>
HWY_INLINE void begin_with(D d, const T* HWY_RESTRICT first, V (&sums)[kSums], std::index_sequence<i...>,
                           std::index_sequence<v...> vectors) {
  V row[sizeof...(v)];
  load(d, first, row, vectors);
  ((sums[i] = row[i % sizeof...(v)]), ...);
}

/// Stores the first `count` lanes, or all when there are fewer; kAdd: adds them to what is there.
template <bool kAdd, class D, class T>
HWY_INLINE void store_first(D d, hn::Vec<D> value, T* to, Index count) {
  if (count >= kLanes<T>) {
    hn::StoreU(kAdd ? hn::Add(value, hn::LoadU(d, to)) : value, d, to);
    return;
  }
  if constexpr (1 < kLanes<T>) {
    if (2 * count == kLanes<T>) {  // 8 channels and 16 lanes
      const hn::Half<D> half;
      const auto low = hn::LowerHalf(half, value);
      hn::StoreU(kAdd ? hn::Add(low, hn::LoadU(half, to)) : low, half, to);
      return;
    }
  }
  if (count > 0) {
    HWY_ALIGN T buffer[static_cast<size_t>(kLanes<T>)];
    hn::Store(value, d, buffer);
    for (Index i = 0; i < count; ++i) to[i] = kAdd ? to[i] + buffer[i] : buffer[i];
  }
}

/// Stores sums[p][v] to to[p * pixel_step + v * lanes], as far as there are `channels` channels.
template <bool kAdd, size_t kVectors, class D, class T, class V, size_t kSums, size_t... i>
HWY_INLINE void store_pixels(D d, const V (&sums)[kSums], T* to, Index pixel_step, Index channels,
                             std::index_sequence<i...>) {
  constexpr size_t lanes = static_cast<size_t>(kLanes<T>);
  (store_first<kAdd>(d, sums[i], to + static_cast<Index>(i / kVectors) * pixel_step + i % kVectors * lanes,
                     channels - static_cast<Index>(i % kVectors * lanes)),
   ...);
}

/// Where a block of output pixels goes.
template <class T>
struct TapOutput {
  T* to;
  Index pixel_step;
  Index channels;            ///< from `to` on; no more are stored
  bool add = false;          ///< to what is there
  const T* first = nullptr;  ///< what every sum begins with, by channel; null: 0
};

template <size_t kVectors, class D, class T, class V, size_t kSums, size_t... i>
HWY_INLINE void begin(D d, const TapOutput<T>& out, V (&sums)[kSums], std::index_sequence<i...> all) {
  if (out.first == nullptr) {
    clear(d, sums, all);
  } else {
    begin_with(d, out.first, sums, all, std::make_index_sequence<kVectors>());
  }
}

template <size_t kVectors, class D, class T, class V, size_t kSums, size_t... i>
HWY_INLINE void finish(D d, const V (&sums)[kSums], const TapOutput<T>& out, std::index_sequence<i...> all) {
  if (out.add) {
    store_pixels<true, kVectors>(d, sums, out.to, out.pixel_step, out.channels, all);
  } else {
    store_pixels<false, kVectors>(d, sums, out.to, out.pixel_step, out.channels, all);
  }
}

/// kPixels output pixels, whose inputs are kStep elements apart, times kVectors vectors of output channels.
template <class T, Index kStep, size_t kVectors, size_t kPixels>
HWY_NOINLINE void tap_block(const T* HWY_RESTRICT in, const Tap* taps, const Tap* taps_end,
                            const T* HWY_RESTRICT weights, const TapOutput<T>& out) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  constexpr auto pixels = std::make_index_sequence<kPixels>();
  constexpr auto all = std::make_index_sequence<kPixels * kVectors>();
  V sums[kPixels * kVectors];
  begin<kVectors>(d, out, sums, all);
  for (; taps != taps_end; ++taps) {
    const T* HWY_RESTRICT pixel = in + taps->offset;
    for (const T* const end = pixel + taps->channels; pixel != end; ++pixel) {
      V w[kVectors];
      load(d, weights, w, std::make_index_sequence<kVectors>());
      add_outer_product<kStep>(d, pixel, w, sums, pixels);
      weights += kVectors * hn::MaxLanes(d);
    }
    weights += taps->skip;
  }
  finish<kVectors>(d, sums, out, all);
}

template <class T>
using TapBlock = void (*)(const T*, const Tap*, const Tap*, const T*, const TapOutput<T>&);

template <class T, Index kStep, size_t kVectors, size_t... p>
TapBlock<T> find_tap_block(Index pixels, std::index_sequence<p...>) {
  static constexpr TapBlock<T> table[] = {&tap_block<T, kStep, kVectors, p + 1>...};
  return table[pixels - 1];
}

template <class T, Index kStep = kChannelBlock>
TapBlock<T> find_tap_block(Index pixels, size_t vectors) {
  return with_vectors(vectors, [&](auto n) {
    return find_tap_block<T, kStep, n>(pixels, std::make_index_sequence<max_rows(n)>());
  });
}

/// sums[r][:] += in[r * step] * w[:]: a base every three rows, so that each row is one address of base, step
/// and scale.
template <class D, class T, class V, size_t kVectors, size_t kSums, size_t... r>
HWY_INLINE void add_strided_outer_product(D d, const T* HWY_RESTRICT in, Index step, const V (&w)[kVectors],
                                          V (&sums)[kSums], std::index_sequence<r...>) {
  const Index three = 3 * step;
  (add_to_row<r>(hn::Set(d, (in + static_cast<Index>(r / 3) * three)[static_cast<Index>(r % 3) * step]), w,
                 sums, std::make_index_sequence<kVectors>()),
   ...);
}

/// kPixels pixels that are `step` elements apart times kVectors vectors of output channels: a 1 x 1 kernel
/// that reads the image where it lies.
template <class T, size_t kVectors, size_t kPixels>
HWY_NOINLINE void pixel_block(const T* HWY_RESTRICT in, Index step, Index depth,
                              const T* HWY_RESTRICT weights, const TapOutput<T>& out) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  constexpr auto pixels = std::make_index_sequence<kPixels>();
  constexpr auto all = std::make_index_sequence<kPixels * kVectors>();
  V sums[kPixels * kVectors];
  begin<kVectors>(d, out, sums, all);
  for (const T* const end = in + depth; in != end; ++in) {
    V w[kVectors];
    load(d, weights, w, std::make_index_sequence<kVectors>());
    add_strided_outer_product(d, in, step, w, sums, pixels);
    weights += kVectors * hn::MaxLanes(d);
  }
  finish<kVectors>(d, sums, out, all);
}

template <class T>
using PixelBlock = void (*)(const T*, Index, Index, const T*, const TapOutput<T>&);

template <class T, size_t kVectors, size_t... p>
PixelBlock<T> find_pixel_block(Index pixels, std::index_sequence<p...>) {
  static constexpr PixelBlock<T> table[] = {&pixel_block<T, kVectors, p + 1>...};
  return table[pixels - 1];
}

template <class T>
PixelBlock<T> find_pixel_block(Index pixels, size_t vectors) {
  return with_vectors(vectors, [&](auto n) {
    return find_pixel_block<T, n>(pixels, std::make_index_sequence<max_rows(n)>());
  });
}

/// The pixels that a block of weight gradients sums over, and where to find them.
template <class T>
struct GradPixels {
  const T* x = nullptr;
  const T* gy = nullptr;
  Index images = 0, rows = 0, columns = 0;
  Index x_image = 0, x_row = 0, x_column = 0;  // elements from one to the next
  Index gy_image = 0, gy_row = 0, gy_column = 0;
};

/// Stores sums[r][v] to to[r * row_step + v * lanes], or adds it to what is there.
template <bool kAdd, size_t kVectors, class D, class T, class V, size_t kSums, size_t... i>
HWY_INLINE void store_sums(D d, const V (&sums)[kSums], T* to, Index row_step, std::index_sequence<i...>) {
  constexpr size_t lanes = static_cast<size_t>(kLanes<T>);
  const auto store = [&](V sum, T* p)
                         HWY_ATTR { hn::StoreU(kAdd ? hn::Add(sum, hn::LoadU(d, p)) : sum, d, p); };
  (store(sums[i], to + static_cast<Index>(i / kVectors) * row_step + i % kVectors * lanes), ...);
}

/// kRows neighbouring elements of (kernel column, input channel) times kVectors vectors of output channels.
template <class T, size_t kVectors, size_t kRows>
HWY_NOINLINE void grad_block(const GradPixels<T>& pixels, bool add, T* HWY_RESTRICT to, Index row_step) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  constexpr auto rows = std::make_index_sequence<kRows>();
  constexpr auto vectors = std::make_index_sequence<kVectors>();
  constexpr auto all = std::make_index_sequence<kRows * kVectors>();
  V sums[kRows * kVectors];
  clear(d, sums, all);
  const Index x_column = pixels.x_column;
  const Index gy_column = pixels.gy_column;
  for (Index n = 0; n < pixels.images; ++n) {
    for (Index r = 0; r < pixels.rows; ++r) {
      const T* HWY_RESTRICT x = pixels.x + n * pixels.x_image + r * pixels.x_row;
      const T* HWY_RESTRICT gy = pixels.gy + n * pixels.gy_image + r * pixels.gy_row;
      for (Index p = pixels.columns; p != 0; --p) {
        V g[kVectors];
        load(d, gy, g, vectors);
        add_outer_product<1>(d, x, g, sums, rows);
        x += x_column;
        gy += gy_column;
      }
    }
  }
  if (add) {
    store_sums<true, kVectors>(d, sums, to, row_step, all);
  } else {
    store_sums<false, kVectors>(d, sums, to, row_step, all);
  }
}

template <class T>
using GradBlock = void (*)(const GradPixels<T>&, bool, T*, Index);

template <class T, size_t kVectors, size_t... r>
GradBlock<T> find_grad_block(Index rows, std::index_sequence<r...>) {
  static constexpr GradBlock<T> table[] = {&grad_block<T, kVectors, r + 1>...};
  return table[rows - 1];
}

template <class T>
GradBlock<T> find_grad_block(Index rows, size_t vectors) {
  return with_vectors(
      vectors, [&](auto n) { return find_grad_block<T, n>(rows, std::make_index_sequence<max_rows(n)>()); });
}

/// The part [first, last) of [0, count) that lies in the image; number i is row or column i * step - shift of
/// it.
struct Span {
  Index first, last;
};
inline Span inside_image(Index count, Index step, Index shift, Index image) {
  const auto first_at_least = [&](Index place) {
    return std::clamp((place + shift + step - 1) / step, Index{0}, count);
  };
  const Index first = first_at_least(0);
  return {first, std::max(first, first_at_least(image))};
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
