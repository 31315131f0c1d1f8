// How the norm kernels read a gradient through a ReLU, and write. Included once per instruction set.

// The include guard of Highway's multiple inclusion.
#if defined(GOSHAWK_CORE_KERNELS_NORM_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSHAWK_CORE_KERNELS_NORM_ROWS_INL
#undef GOSHAWK_CORE_KERNELS_NORM_ROWS_INL
#else
#define GOSHAWK_CORE_KERNELS_NORM_ROWS_INL
#endif

#include "core/kernels/channel_rows-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// g at element i.
template <bool kMask, class D, class T>
HWY_INLINE hn::Vec<D> masked_load(D d, const T* gy, const T* y, std::int64_t i) {
  const auto g = hn::LoadU(d, gy + i);
  if constexpr (kMask) {
    return past_relu(hn::LoadU(d, y + i), g);
  } else {
    return g;
  }
}

/// What of a gradient passed the ReLU.
enum class Mask : std::uint8_t {
  none,
  by_output,  ///< not where the output is 0
  by_input,   ///< nor where the affine map of x is at most 0: by the forward pass's operations, so the same
};

template <Mask kMask, class D, class T>
HWY_INLINE hn::Vec<D> passed(D d, const T* gy, const T* y, std::int64_t i, hn::Vec<D> x, hn::Vec<D> ms,
                             hn::Vec<D> mt) {
  if constexpr (kMask == Mask::by_input) {
    return past_relu(hn::MulAdd(x, ms, mt), hn::LoadU(d, gy + i));
  } else {
    return masked_load<kMask == Mask::by_output>(d, gy, y, i);
  }
}

/// Stores, or adds to what is there.
template <class D, class T>
HWY_INLINE void store_or_add(hn::Vec<D> value, T* to, bool add) {
  const D d;
  hn::StoreU(add ? hn::Add(value, hn::LoadU(d, to)) : value, d, to);
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels
HWY_AFTER_NAMESPACE();

#endif
