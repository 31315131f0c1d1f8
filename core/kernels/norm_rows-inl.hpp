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

// Vectors of a slab that is summed: with their coefficients they fit into AVX-512's registers.
constexpr std::size_t kSumVectors = 2;

/// The numbers of the channels from c on; zero where `v` is null.
template <class D, class T>
HWY_INLINE hn::Vec<D> per_channel(D d, const T* v, std::int64_t c) {
  return v == nullptr ? hn::Zero(d) : hn::LoadU(d, v + c);
}

/// How it is known what of a gradient passed the ReLU.
enum class Mask : std::uint8_t {
  none,       ///< there is no ReLU
  by_output,  ///< not where the output y is at most 0
  by_input,   ///< the same, with y = x · ms + mt, in the forward pass's operations and so with its bits
};

/// Calls f<mask>() with the mask that the operands `p` ask for.
template <class Operands, class F>
HWY_INLINE void with_mask(const Operands& p, const F& f) {
  if (p.ms != nullptr) {
    f.template operator()<Mask::by_input>();
  } else {
    p.y != nullptr ? f.template operator()<Mask::by_output>() : f.template operator()<Mask::none>();
  }
}

/// The ReLU's output at element i; nothing to be used without one.
template <Mask kMask, class D, class T>
HWY_INLINE hn::Vec<D> relu_output(D d, const T* y, std::int64_t i, hn::Vec<D> x, hn::Vec<D> ms,
                                  hn::Vec<D> mt) {
  if constexpr (kMask == Mask::by_output) return hn::LoadU(d, y + i);
  return kMask == Mask::by_input ? hn::MulAdd(x, ms, mt) : hn::Zero(d);
}

/// `value` where the ReLU with output y let it pass.
template <Mask kMask, class V>
HWY_INLINE V passed(V y, V value) {
  return kMask == Mask::none ? value : past_relu(y, value);
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
