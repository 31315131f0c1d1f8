#include "core/kernels/clip.hpp"

#include <algorithm>
#include <vector>

#include "core/parallel.hpp"
#include "core/round_even.hpp"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/clip.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#ifndef GOSHAWK_CORE_KERNELS_CLIP_ARGS
#define GOSHAWK_CORE_KERNELS_CLIP_ARGS
namespace goshawk::kernels {

// Runs of `count` elements.
template <class T>
struct RoundRun {
  const T* x;
  T* y;
  std::int64_t count;
  T low, high, to_code, to_value;
};

template <class T>
struct GradientRun {
  const T *g, *x;
  T* gx;
  std::int64_t count;
  T low, high;
};

struct EdgeSums {
  double high = 0, low = 0;
};

}  // namespace goshawk::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
void round_run(const RoundRun<T>& run) {
  const auto body = [&](auto d, std::int64_t i) HWY_ATTR {
    const auto low = hn::Set(d, run.low), high = hn::Set(d, run.high);
    // Comparisons, as Min and Max may return the limit for a NaN.
    auto x = hn::LoadU(d, run.x + i);
    x = hn::IfThenElse(hn::Lt(x, low), low, x);
    x = hn::IfThenElse(hn::Gt(x, high), high, x);
    const auto scaled = hn::Mul(x, hn::Set(d, run.to_code));
    const auto code = hn::Sub(hn::Add(scaled, hn::Set(d, kRoundEven<T>)), hn::Set(d, kRoundEven<T>));
    hn::StoreU(hn::Mul(code, hn::Set(d, run.to_value)), d, run.y + i);
  };
  const hn::ScalableTag<T> d;
  constexpr auto lanes = static_cast<std::int64_t>(hn::MaxLanes(hn::ScalableTag<T>()));
  std::int64_t i = 0;
  for (; i + lanes <= run.count; i += lanes) body(d, i);
  for (; i < run.count; ++i) body(hn::CappedTag<T, 1>(), i);
}

template <class T>
EdgeSums gradient_run(const GradientRun<T>& run) {
  const hn::ScalableTag<T> d;
  constexpr auto lanes = static_cast<std::int64_t>(hn::MaxLanes(hn::ScalableTag<T>()));
  // Short sums in T, and those in f64: accurate enough for any size.
  constexpr std::int64_t kBlock = 1024;
  EdgeSums total;
  for (std::int64_t begin = 0; begin < run.count; begin += kBlock) {
    const std::int64_t end = std::min(run.count, begin + kBlock);
    auto high = hn::Zero(d), low = hn::Zero(d);
    std::int64_t i = begin;
    for (; i + lanes <= end; i += lanes) {
      const auto g = hn::LoadU(d, run.g + i), x = hn::LoadU(d, run.x + i);
      const auto above = hn::Ge(x, hn::Set(d, run.high)), below = hn::Le(x, hn::Set(d, run.low));
      high = hn::Add(high, hn::IfThenElseZero(above, g));
      low = hn::Add(low, hn::IfThenElseZero(below, g));
      hn::StoreU(hn::IfThenZeroElse(hn::Or(above, below), g), d, run.gx + i);
    }
    T sums[2][lanes];
    hn::StoreU(high, d, sums[0]);
    hn::StoreU(low, d, sums[1]);
    for (const T sum : sums[0]) total.high += static_cast<double>(sum);
    for (const T sum : sums[1]) total.low += static_cast<double>(sum);
    for (; i < end; ++i) {
      const bool above = run.x[i] >= run.high, below = run.x[i] <= run.low;
      total.high += above ? static_cast<double>(run.g[i]) : 0;
      total.low += below ? static_cast<double>(run.g[i]) : 0;
      run.gx[i] = above || below ? T{0} : run.g[i];
    }
  }
  return total;
}

void RoundF32(const RoundRun<float>& run) {
  round_run(run);
}
void RoundF64(const RoundRun<double>& run) {
  round_run(run);
}
EdgeSums GradientF32(const GradientRun<float>& run) {
  return gradient_run(run);
}
EdgeSums GradientF64(const GradientRun<double>& run) {
  return gradient_run(run);
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk::kernels {
namespace {

HWY_EXPORT(RoundF32);
HWY_EXPORT(RoundF64);
HWY_EXPORT(GradientF32);
HWY_EXPORT(GradientF64);

void run(const RoundRun<float>& r) {
  HWY_DYNAMIC_DISPATCH(RoundF32)(r);
}
void run(const RoundRun<double>& r) {
  HWY_DYNAMIC_DISPATCH(RoundF64)(r);
}
EdgeSums run(const GradientRun<float>& r) {
  return HWY_DYNAMIC_DISPATCH(GradientF32)(r);
}
EdgeSums run(const GradientRun<double>& r) {
  return HWY_DYNAMIC_DISPATCH(GradientF64)(r);
}

}  // namespace

Tensor clip_round(const Tensor& x, const ClipGrid& grid) {
  Tensor y = Tensor::empty_like(x);
  dispatch_floating(x.dtype(), "clip_round", [&]<class T>() {
    const T* from = x.data<T>();
    T* to = y.data<T>();
    parallel_for(x.numel(), kElementwiseGrain, [&, from, to](std::int64_t begin, std::int64_t end) {
      run(RoundRun<T>{from + begin, to + begin, end - begin, static_cast<T>(grid.low),
                      static_cast<T>(grid.high), static_cast<T>(grid.to_code),
                      static_cast<T>(grid.to_value)});
    });
  });
  return y;
}

ClipGradient clip_gradient(const Tensor& g, const Tensor& x, double low, double high) {
  check_same(g, x, "clip_gradient");
  ClipGradient result{Tensor::empty_like(x)};
  dispatch_floating(x.dtype(), "clip_gradient", [&]<class T>() {
    const T *from = g.data<T>(), *at = x.data<T>();
    T* to = result.input.data<T>();
    std::vector<EdgeSums> partial(
        static_cast<std::size_t>((x.numel() + kElementwiseGrain - 1) / kElementwiseGrain));
    parallel_for(x.numel(), kElementwiseGrain, [&, from, at, to](std::int64_t begin, std::int64_t end) {
      partial[static_cast<std::size_t>(begin / kElementwiseGrain)] = run(GradientRun<T>{
          from + begin, at + begin, to + begin, end - begin, static_cast<T>(low), static_cast<T>(high)});
    });
    for (const EdgeSums& sums : partial) {
      result.high += sums.high;
      result.low += sums.low;
    }
  });
  return result;
}

}  // namespace goshawk::kernels
#endif
