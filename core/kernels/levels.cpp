#include "core/kernels/levels.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/parallel.hpp"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/levels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#ifndef GOSHAWK_CORE_KERNELS_LEVELS_ARGS
#define GOSHAWK_CORE_KERNELS_LEVELS_ARGS
namespace goshawk::kernels {

template <class T>
struct FewLevels {
  std::array<T, kFewLevels> values{}, thresholds{};
  std::size_t count = 0;
};

// `count` elements; sums, of each level, may be null.
template <class T>
struct LevelRun {
  const T* x;
  T* y;
  std::int64_t count;
  const FewLevels<T>* levels;
  LevelSum* sums;
};

}  // namespace goshawk::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
void round_block(const LevelRun<T>& run) {
  const FewLevels<T>& levels = *run.levels;
  const auto body = [&](auto d, std::int64_t i) HWY_ATTR {
    const auto x = hn::LoadU(d, run.x + i);
    auto y = hn::Set(d, levels.values[0]);
    for (std::size_t k = 1; k < levels.count; ++k) {
      y = hn::IfThenElse(hn::Gt(x, hn::Set(d, levels.thresholds[k - 1])), hn::Set(d, levels.values[k]), y);
    }
    hn::StoreU(hn::IfThenElse(hn::IsNaN(x), x, y), d, run.y + i);
  };
  const hn::ScalableTag<T> d;
  constexpr auto lanes = static_cast<std::int64_t>(hn::MaxLanes(hn::ScalableTag<T>()));
  std::int64_t i = 0;
  for (; i + lanes <= run.count; i += lanes) body(d, i);
  for (; i < run.count; ++i) body(hn::CappedTag<T, 1>(), i);
}

// The elements above `low` (all but those above `high`, if there is no `low`) and not above `high`.
template <bool has_low, class T>
void add_level(const LevelRun<T>& run, T low, T high, LevelSum& to) {
  const hn::ScalableTag<T> d;
  constexpr auto lanes = static_cast<std::int64_t>(hn::MaxLanes(hn::ScalableTag<T>()));
  auto sum = hn::Zero(d);
  std::size_t count = 0;
  std::int64_t i = 0;
  for (; i + lanes <= run.count; i += lanes) {
    const auto x = hn::LoadU(d, run.x + i);
    auto here = hn::Not(hn::Gt(x, hn::Set(d, high)));
    if constexpr (has_low) here = hn::And(here, hn::Gt(x, hn::Set(d, low)));
    sum = hn::Add(sum, hn::IfThenElseZero(here, x));
    count += hn::CountTrue(d, here);
  }
  T parts[lanes];
  hn::StoreU(sum, d, parts);
  for (const T part : parts) to.sum += static_cast<double>(part);
  for (; i < run.count; ++i) {
    const T x = run.x[i];
    if (x > high || (has_low && !(x > low))) continue;
    to.sum += static_cast<double>(x);
    ++count;
  }
  to.count += static_cast<double>(count);
}

template <class T>
void level_run(const LevelRun<T>& run) {
  // Short sums in T, and those in f64; a block stays in the first-level cache for one pass a level.
  constexpr std::int64_t kBlock = 1024;
  const FewLevels<T>& levels = *run.levels;
  for (std::int64_t begin = 0; begin < run.count; begin += kBlock) {
    const LevelRun<T> block{run.x + begin, run.y + begin, std::min(kBlock, run.count - begin), &levels,
                            run.sums};
    if (run.sums != nullptr) {
      add_level<false>(block, T{}, levels.thresholds[0], run.sums[0]);
      for (std::size_t k = 1; k < levels.count; ++k)
        add_level<true>(block, levels.thresholds[k - 1], levels.thresholds[k], run.sums[k]);
    }
    round_block(block);
  }
}

void LevelsF32(const LevelRun<float>& run) {
  level_run(run);
}
void LevelsF64(const LevelRun<double>& run) {
  level_run(run);
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <limits>

namespace goshawk::kernels {
namespace {

HWY_EXPORT(LevelsF32);
HWY_EXPORT(LevelsF64);

void run(const LevelRun<float>& r) {
  HWY_DYNAMIC_DISPATCH(LevelsF32)(r);
}
void run(const LevelRun<double>& r) {
  HWY_DYNAMIC_DISPATCH(LevelsF64)(r);
}

}  // namespace

Tensor round_to_levels(const Tensor& x, std::span<const double> values, std::span<const double> thresholds,
                       std::vector<LevelSum>* sums) {
  const std::size_t n = values.size();
  check(n >= 1 && n <= kFewLevels && thresholds.size() == n - 1,
        "[round_to_levels] {} levels and {} thresholds; there must be 1 to {} levels and a threshold between "
        "each two",
        n, thresholds.size(), kFewLevels);
  Tensor y = Tensor::empty_like(x);
  dispatch_floating(x.dtype(), "round_to_levels", [&]<class T>() {
    FewLevels<T> levels;
    levels.count = n;
    levels.thresholds.fill(std::numeric_limits<T>::infinity());
    std::transform(values.begin(), values.end(), levels.values.begin(),
                   [](double v) { return static_cast<T>(v); });
    std::transform(thresholds.begin(), thresholds.end(), levels.thresholds.begin(),
                   [](double t) { return static_cast<T>(t); });
    const T* from = x.data<T>();
    T* to = y.data<T>();
    const std::int64_t chunks = (x.numel() + kElementwiseGrain - 1) / kElementwiseGrain;
    std::vector<LevelSum> partial(sums != nullptr ? static_cast<std::size_t>(chunks) * n : 0);
    parallel_for(x.numel(), kElementwiseGrain, [&, from, to](std::int64_t begin, std::int64_t end) {
      LevelSum* const own = sums != nullptr
                                ? partial.data() + static_cast<std::size_t>(begin / kElementwiseGrain) * n
                                : nullptr;
      run(LevelRun<T>{from + begin, to + begin, end - begin, &levels, own});
    });
    if (sums == nullptr) return;
    sums->assign(n, {});
    for (std::size_t i = 0; i < partial.size(); ++i) {
      (*sums)[i % n].count += partial[i].count;
      (*sums)[i % n].sum += partial[i].sum;
    }
  });
  return y;
}

}  // namespace goshawk::kernels
#endif
