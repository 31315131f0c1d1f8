// The arithmetic of a uniform quantizer, shared by every kernel so that all of them give the same bits.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/parallel.hpp"
#include "core/round_even.hpp"
#include "quant/quantizer.hpp"

namespace goshawk {

/// NaN stays NaN: a network that has diverged must not look like one that has not.
template <class T>
inline T clamp_between(T v, T low, T high) {
  v = v < low ? low : v;
  return v > high ? high : v;
}

/// The nearest-rank percentile, in [0, 100], of values that are not empty. Reorders them.
double nearest_rank(std::vector<double>& values, double percentile);

/// code(w) = round(clip((w − offset)/scale, code_min, code_max)) and value(w) = scale · code + offset.
template <class T>
class Rounding {
 public:
  Rounding(const CodeRange& range, T scale, T offset)
      : scale_(scale),
        offset_(offset),
        low_(static_cast<T>(range.code_min)),
        high_(static_cast<T>(range.code_max)) {}

  /// w in steps: (w − offset)/scale.
  T position(T w) const { return (w - offset_) / scale_; }
  T code(T w) const { return round_even(clamp_between(position(w), low_, high_)); }
  T level(T code) const { return scale_ * code + offset_; }
  T value(T w) const { return level(code(w)); }

 private:
  T scale_, offset_, low_, high_;
};

/// Throws Error naming `op` unless the grid is [1] or [channels of w], of w's dtype.
inline void check_grid(const Tensor& w, const WeightGrid& grid, std::string_view op) {
  check(grid.scale.defined() && grid.offset.defined(),
        "[{}] the grid has no scale or offset; make one with choose_grid", op);
  check_same(grid.scale, grid.offset, op);
  check(grid.scale.dtype() == w.dtype() && grid.scale.ndim() == 1 &&
            (grid.scale.numel() == 1 || grid.scale.numel() == w.dim(-1)),
        "[{}] a grid of {} {} does not fit weights of {} {}; it must be [1] or one step per output channel",
        op, grid.scale.dtype(), grid.scale.shape(), w.dtype(), w.shape());
}

/// Calls f(i, rounding of element i's group) for every element of w, in parallel over fixed chunks.
template <class T, class F>
void for_each_weight(const Tensor& w, const WeightGrid& grid, const CodeRange& range, const F& f) {
  const T* scale = grid.scale.data<T>();
  const T* offset = grid.offset.data<T>();
  if (grid.scale.numel() == 1) {
    const Rounding<T> q(range, *scale, *offset);
    parallel_for(w.numel(), kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) f(i, q);
    });
    return;
  }
  const std::int64_t channels = w.dim(-1);
  const std::int64_t grain = (kElementwiseGrain + channels - 1) / channels;
  parallel_for(w.numel() / channels, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t c = 0; c < channels; ++c)
        f(row * channels + c, Rounding<T>(range, scale[c], offset[c]));
    }
  });
}

}  // namespace goshawk
