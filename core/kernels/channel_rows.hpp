// How per-channel kernels see a tensor [..., C]: as rows of channels, in fixed chunks of rows whose partial
// sums are combined in f64 in chunk order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/parallel.hpp"
#include "core/tensor.hpp"

namespace goshawk::kernels {

// The rows and channels of a tensor, and how many rows make a chunk (about 64 KiB of f32, so a second pass
// over the chunk is served by the cache).
struct Rows {
  explicit Rows(const Tensor& x, std::string_view op) {
    check(x.ndim() >= 1, "[{}] needs a tensor with a channel dimension but was given a scalar", op);
    channels = x.shape().back();
    rows = channels == 0 ? 0 : x.numel() / channels;
    grain = row_grain(channels);
  }
  std::int64_t chunks() const { return (rows + grain - 1) / grain; }
  std::int64_t rows, channels, grain;
};

inline void check_channels(const Tensor& v, const Rows& rows, const Tensor& x, std::string_view op) {
  check(v.ndim() == 1 && v.dim(0) == rows.channels && v.dtype() == x.dtype(),
        "[{}] a per-channel operand must be {} [{}] to match {}, not {} {}", op, x.dtype(), rows.channels,
        x.shape(), v.dtype(), v.shape());
}

template <class T>
T* optional_data(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

// Adds the chunks' partial results [chunks, width] in chunk order, in f64.
template <class T>
std::vector<double> combine(const Tensor& partial, std::int64_t chunks, std::int64_t width) {
  std::vector<double> sums(static_cast<std::size_t>(width));
  const T* from = partial.data<T>();
  for (std::int64_t k = 0; k < chunks; ++k) {
    for (std::int64_t c = 0; c < width; ++c) sums[static_cast<std::size_t>(c)] += from[k * width + c];
  }
  return sums;
}

template <class T>
Tensor to_tensor(const std::vector<double>& values) {
  Tensor t = Tensor::empty({static_cast<std::int64_t>(values.size())}, dtype_of<T>);
  std::transform(values.begin(), values.end(), t.data<T>(), [](double v) { return static_cast<T>(v); });
  return t;
}

}  // namespace goshawk::kernels
