// Loops over channels in vectors. Included once per instruction set.

// The include guard of Highway's multiple inclusion.
#if defined(GOSHAWK_CORE_KERNELS_CHANNEL_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSHAWK_CORE_KERNELS_CHANNEL_ROWS_INL
#undef GOSHAWK_CORE_KERNELS_CHANNEL_ROWS_INL
#else
#define GOSHAWK_CORE_KERNELS_CHANNEL_ROWS_INL
#endif

#include <cstdint>
#include <hwy/highway.h>
#include <utility>

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// `v` where a ReLU with output (or input) y lets it pass: not where y ≤ 0, so that a NaN stays one, and what
/// comes back to it is not lost either.
template <class V>
HWY_INLINE V past_relu(V y, V v) {
  return hn::IfThenZeroElse(hn::Le(y, hn::Zero(hn::DFromV<V>())), v);
}

/// Calls body(tag, first) for the rest [first, count): as many vectors of kLanes lanes as fit, and then
/// shorter ones.
template <class T, std::size_t kLanes, class Body>
HWY_INLINE void over_rest(std::int64_t first, std::int64_t count, const Body& body) {
  constexpr auto lanes = static_cast<std::int64_t>(kLanes);
  const hn::CappedTag<T, kLanes> d;
  for (; first + lanes <= count; first += lanes) body(d, first);
  if constexpr (kLanes > 1) {
    if (first < count) over_rest<T, kLanes / 2>(first, count, body);
  }
}

/// Runs `body` with full vectors over the channels and with shorter ones over the rest.
template <class T, class Body>
HWY_INLINE void over_channels(std::int64_t channels, const Body& body) {
  over_rest<T, hn::MaxLanes(hn::ScalableTag<T>())>(0, channels, body);
}

// Vectors of a slab: neighbouring columns that are walked down together, so that what a row reads is a few
// whole cache lines, and whatever belongs to a channel stays in registers.
#if HWY_TARGET <= HWY_AVX3  // what is better has a lower number
constexpr std::size_t kSlabVectors = 4;
#else
constexpr std::size_t kSlabVectors = 2;
#endif

/// Calls slab.run<n>(tag, channel): slabs of n = kVectors vectors, then of fewer, then of one shorter vector.
template <class T, std::size_t kVectors, class Slab>
HWY_INLINE void over_slabs(std::int64_t channels, const Slab& slab, std::int64_t first = 0) {
  const hn::ScalableTag<T> d;
  constexpr auto width = static_cast<std::int64_t>(kVectors * hn::MaxLanes(hn::ScalableTag<T>()));
  for (; first + width <= channels; first += width) slab.template run<kVectors>(d, first);
  if constexpr (kVectors > 1) {
    over_slabs<T, kVectors / 2>(channels, slab, first);
  } else {
    over_rest<T, hn::MaxLanes(hn::ScalableTag<T>())>(
        first, channels, [&](auto shorter, std::int64_t c) HWY_ATTR { slab.template run<1>(shorter, c); });
  }
}

/// Calls body(tag, element, coefficients) for every element of a slab, where coefficients = body.load(tag,
/// channel).
template <class Body>
struct ElementSlab {
  const Body& body;
  std::int64_t rows, channels;

  template <std::size_t kVectors, class D>
  HWY_INLINE HWY_ATTR void run(D d, std::int64_t c) const {
    walk(d, c, std::make_index_sequence<kVectors>());
  }
  template <class D, std::size_t... v>
  HWY_INLINE HWY_ATTR void walk(D d, std::int64_t c, std::index_sequence<v...>) const {
    constexpr auto lanes = static_cast<std::int64_t>(hn::MaxLanes(D()));
    const decltype(body.load(d, c)) k[] = {body.load(d, c + static_cast<std::int64_t>(v) * lanes)...};
    for (std::int64_t row = 0, i = c; row < rows; ++row, i += channels) {
      (body(d, i + static_cast<std::int64_t>(v) * lanes, k[v]), ...);
    }
  }
};

template <class T, class Body>
HWY_INLINE void over_element_slabs(std::int64_t rows, std::int64_t channels, const Body& body) {
  over_slabs<T, kSlabVectors>(channels, ElementSlab<Body>{body, rows, channels});
}

/// Sums down the columns of a slab: body.add(tag, element, coefficients, sums) for every element, and
/// body.store(tag, channel, sums) at the end. Row r goes to sum r % kSums, of which there are several to hide
/// the latency of the addition.
template <std::size_t kSums, class Body>
struct SumSlab {
  const Body& body;
  std::int64_t rows, channels;

  template <std::size_t kVectors, class D>
  HWY_INLINE HWY_ATTR void run(D d, std::int64_t c) const {
    walk(d, c, std::make_index_sequence<kVectors>(), std::make_index_sequence<kSums>(),
         std::make_index_sequence<kSums * kVectors>());
  }
  template <class D, class K, class S, std::size_t kVectors, std::size_t kAll, std::size_t... v>
  HWY_INLINE HWY_ATTR void add_row(D d, std::int64_t i, const K (&k)[kVectors], S (&sums)[kAll],
                                   std::size_t sum, std::index_sequence<v...>) const {
    constexpr auto lanes = static_cast<std::int64_t>(hn::MaxLanes(D()));
    (body.add(d, i + static_cast<std::int64_t>(v) * lanes, k[v], sums[sum * kVectors + v]), ...);
  }
  template <class D, std::size_t... v, std::size_t... s, std::size_t... all>
  HWY_INLINE HWY_ATTR void walk(D d, std::int64_t c, std::index_sequence<v...> vectors,
                                std::index_sequence<s...>, std::index_sequence<all...>) const {
    constexpr auto lanes = static_cast<std::int64_t>(hn::MaxLanes(D()));
    constexpr std::size_t kVectors = sizeof...(v);
    const decltype(body.load(d, c)) k[kVectors] = {body.load(d, c + static_cast<std::int64_t>(v) * lanes)...};
    decltype(body.zero(d)) sums[sizeof...(all)] = {((void)all, body.zero(d))...};
    std::int64_t row = 0, i = c;
    for (; row + static_cast<std::int64_t>(kSums) <= rows; row += static_cast<std::int64_t>(kSums)) {
      (add_row(d, i + static_cast<std::int64_t>(s) * channels, k, sums, s, vectors), ...);
      i += static_cast<std::int64_t>(kSums) * channels;
    }
    for (; row < rows; ++row, i += channels) add_row(d, i, k, sums, 0, vectors);
    (store_column<kVectors, v>(d, c + static_cast<std::int64_t>(v) * lanes, sums,
                               std::make_index_sequence<kSums>()),
     ...);
  }
  template <std::size_t kVectors, std::size_t kColumn, class D, class S, std::size_t kAll, std::size_t... s>
  HWY_INLINE HWY_ATTR void store_column(D d, std::int64_t c, const S (&sums)[kAll],
                                        std::index_sequence<s...>) const {
    body.store(d, c, sums[s * kVectors + kColumn]...);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels
HWY_AFTER_NAMESPACE();

#endif
