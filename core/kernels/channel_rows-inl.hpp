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

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Runs `body` with full vectors over the channels and then, one lane at a time, over the rest.
template <class T, class Body>
HWY_INLINE void over_channels(std::int64_t channels, const Body& body) {
  const hn::ScalableTag<T> full;
  const hn::CappedTag<T, 1> one;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(full));
  std::int64_t c = 0;
  for (; c + lanes <= channels; c += lanes) body(full, c);
  for (; c < channels; ++c) body(one, c);
}

/// Runs body(tag, element, channel) for all elements of rows in the order of memory, a vector at a time.
template <class T, class Body>
HWY_INLINE void over_elements(std::int64_t rows, std::int64_t channels, const Body& body) {
  const hn::ScalableTag<T> full;
  const hn::CappedTag<T, 1> one;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(full));
  for (std::int64_t row = 0, i = 0; row < rows; ++row) {
    std::int64_t c = 0;
    for (; c + lanes <= channels; c += lanes, i += lanes) body(full, i, c);
    for (; c < channels; ++c, ++i) body(one, i, c);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels
HWY_AFTER_NAMESPACE();

#endif
