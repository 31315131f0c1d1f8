#include "core/kernels/product_sum.hpp"

#include <array>
#include <cstddef>
#include <type_traits>
#include <utility>

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/product_sum.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kSums = 8;

template <class D, class T>
HWY_INLINE hn::Vec<D> load_double(D d, const T* from) {
  if constexpr (std::is_same_v<T, double>) {
    return hn::LoadU(d, from);
  } else {
    return hn::PromoteTo(d, hn::LoadU(hn::Rebind<T, D>(), from));
  }
}

// Not a fused multiplication: it would round otherwise than where there is none.
template <class D, class T, class V, std::size_t kVectors, std::size_t... v>
HWY_INLINE void add_products(D d, const T* a, const T* b, V (&sums)[kVectors], std::index_sequence<v...>) {
  constexpr std::size_t lanes = hn::MaxLanes(D());
  ((sums[v] = hn::Add(sums[v], hn::Mul(load_double(d, a + v * lanes), load_double(d, b + v * lanes)))), ...);
}

template <class D, class V, std::size_t kVectors, std::size_t... v>
HWY_INLINE void clear(D d, V (&sums)[kVectors], std::index_sequence<v...>) {
  ((sums[v] = hn::Zero(d)), ...);
}
template <class D, class V, std::size_t kVectors, std::size_t... v>
HWY_INLINE void store(D d, const V (&sums)[kVectors], double* to, std::index_sequence<v...>) {
  (hn::StoreU(sums[v], d, to + v * hn::MaxLanes(D())), ...);
}

template <class T>
double sum_products(const T* HWY_RESTRICT a, const T* HWY_RESTRICT b, std::int64_t n) {
  const hn::CappedTag<double, kSums> d;
  using V = hn::Vec<decltype(d)>;
  constexpr std::size_t vectors = kSums / hn::MaxLanes(decltype(d)());
  constexpr auto all = std::make_index_sequence<vectors>();
  V sums[vectors];
  clear(d, sums, all);
  constexpr auto step = static_cast<std::int64_t>(kSums);
  std::int64_t i = 0;
  for (; i + step <= n; i += step) add_products(d, a + i, b + i, sums, all);
  std::array<double, kSums> s{};
  store(d, sums, s.data(), all);
  for (; i < n; ++i) s[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

double SumProductsF32(const float* a, const float* b, std::int64_t n) {
  return sum_products(a, b, n);
}
double SumProductsF64(const double* a, const double* b, std::int64_t n) {
  return sum_products(a, b, n);
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk::kernels {

HWY_EXPORT(SumProductsF32);
HWY_EXPORT(SumProductsF64);

double product_sum(const float* a, const float* b, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(SumProductsF32)(a, b, n);
}
double product_sum(const double* a, const double* b, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(SumProductsF64)(a, b, n);
}

}  // namespace goshawk::kernels
#endif
