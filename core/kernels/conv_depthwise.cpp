#include "core/kernels/conv_depthwise.hpp"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "core/kernels/both_types.hpp"
#include "core/kernels/window.hpp"
#include "core/memory.hpp"
#include "core/parallel.hpp"
#include "core/tensor.hpp"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/conv_depthwise.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#ifndef GOSHAWK_CORE_KERNELS_CONV_DEPTHWISE_ARGS
#define GOSHAWK_CORE_KERNELS_CONV_DEPTHWISE_ARGS
namespace goshawk::kernels::depthwise {

/// Rows [begin, end) of the result, or of what the weights' gradient sums over.
template <class T>
struct RowsTable {
  void (*forward)(const Problem& p, const T* x, const T* w, const T* bias, T* y, bool add, std::int64_t begin,
                  std::int64_t end);
  void (*input_grad)(const Problem& p, const T* gy, const T* phases, T* gx, bool add, std::int64_t begin,
                     std::int64_t end);
  void (*weight_grad)(const Problem& p, const T* x, const T* gy, T* sums, std::int64_t begin,
                      std::int64_t end);
};

}  // namespace goshawk::kernels::depthwise
#endif

#include "core/kernels/channel_rows-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels::depthwise {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using Index = std::int64_t;
using kernels::HWY_NAMESPACE::over_channels;
using std::size_t;

constexpr size_t kPixels = 6;   // results of one register block
constexpr size_t kColumns = 3;  // weights of one register block of their gradient

// A pixel of the input meets every stride-th tap of the kernel: those of the phase its padded coordinate has,
// so each phase of pixels has a small kernel of its own, by which its gradient is a convolution without
// strides.

/// Taps of a phase.
Index phase_taps(Index kernel, Index stride, Index phase) {
  return phase < kernel ? (kernel - phase - 1) / stride + 1 : 0;
}

/// Taps of the phases before it.
Index phase_begin(Index kernel, Index stride, Index phase) {
  Index taps = 0;
  for (Index before = 0; before < phase; ++before) taps += phase_taps(kernel, stride, before);
  return taps;
}

/// Results p of [0, count) whose taps p * stride - pad + [0, kernel) all lie inside [0, size).
struct Interior {
  Index first, last;
  Interior(Index count, Index kernel, Index stride, Index pad, Index size) {
    first = std::min(count, pad <= 0 ? 0 : (pad + stride - 1) / stride);
    const Index room = size + pad - kernel;
    last = std::max(first, std::min(count, room < 0 ? 0 : room / stride + 1));
  }
};

/// kCount neighbouring results: sums over the kernel rows `ky` and columns `kx`.
template <class T, size_t kCount>
struct ResultBlock {
  const T *x, *w, *bias;
  T* y;
  Inside ky, kx;
  Index kernel_w, channels;
  Index x_row,
      x_step;    // elements from one row of the source to the next, and from one result's taps to the next
  Index y_step;  // elements from one result to the next
  bool add;

  template <class D, class V, size_t... p>
  HWY_INLINE void sum(D d, Index c, V (&sums)[kCount], std::index_sequence<p...>) const {
    for (Index i = ky.first; i < ky.last; ++i) {
      const T* HWY_RESTRICT weight = w + (i * kernel_w + kx.first) * channels + c;
      const T* HWY_RESTRICT from = x + i * x_row + kx.first * channels + c;
      for (Index j = kx.first; j < kx.last; ++j, weight += channels, from += channels) {
        const auto factor = hn::LoadU(d, weight);
        ((sums[p] = hn::MulAdd(hn::LoadU(d, from + static_cast<Index>(p) * x_step), factor, sums[p])), ...);
      }
    }
    ((hn::StoreU(add ? hn::Add(sums[p], hn::LoadU(d, y + static_cast<Index>(p) * y_step + c)) : sums[p], d,
                 y + static_cast<Index>(p) * y_step + c)),
     ...);
  }
  template <class D, size_t... p>
  HWY_INLINE void run(D d, Index c, std::index_sequence<p...> all) const {
    const auto begin = bias == nullptr ? hn::Zero(d) : hn::LoadU(d, bias + c);
    hn::Vec<D> sums[kCount] = {((void)p, begin)...};
    sum(d, c, sums, all);
  }
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, Index c) const {
    run(d, c, std::make_index_sequence<kCount>());
  }
};

/// Results in a row: what they read of a source image, and where they go.
struct ResultRow {
  Index h, w, c;         // of the source image
  Index kh, kw;          // of the kernel
  Index top, pad, step;  // its taps begin in the source's row `top` and, for result i, column i * step - pad
  Index count, y_step;   // results, and the elements from one to the next
};

template <class T>
void result_row(const ResultRow& r, const T* x, const T* w, const T* bias, T* y, bool add) {
  const Inside ky(r.top, r.kh, r.h);
  const Interior interior(r.count, r.kw, r.step, r.pad, r.w);
  const auto block = [&]<size_t kCount>(Index i, std::integral_constant<size_t, kCount>) HWY_ATTR {
    const Index left = i * r.step - r.pad;
    over_channels<T>(r.c, ResultBlock<T, kCount>{x + (r.top * r.w + left) * r.c, w, bias, y + i * r.y_step,
                                                 ky, Inside(left, r.kw, r.w), r.kw, r.c, r.w * r.c,
                                                 r.step * r.c, r.y_step, add});
  };
  Index i = 0;
  for (; i < interior.first; ++i) block(i, std::integral_constant<size_t, 1>());
  for (; i + static_cast<Index>(kPixels) <= interior.last; i += static_cast<Index>(kPixels)) {
    block(i, std::integral_constant<size_t, kPixels>());
  }
  for (; i < r.count; ++i) block(i, std::integral_constant<size_t, 1>());
}

/// Rows [begin, end) of the results of all images, counted through.
template <class T>
void forward_rows(const Problem& p, const T* x, const T* w, const T* bias, T* y, bool add, Index begin,
                  Index end) {
  ResultRow r{p.h, p.w, p.c, p.kh, p.kw, 0, p.pad_w, p.stride_w, p.ow, p.c};
  for (Index row = begin; row < end; ++row) {
    r.top = row % p.oh * p.stride_h - p.pad_h;
    result_row(r, x + row / p.oh * p.h * p.w * p.c, w, bias, y + row * p.ow * p.c, add);
  }
}

/// Rows [begin, end) of the input's gradient of all images, counted through. w: the kernel in phases, turned
/// around.
template <class T>
void input_grad_rows(const Problem& p, const T* gy, const T* w, T* gx, bool add, Index begin, Index end) {
  ResultRow r{p.oh, p.ow, p.c, 0, 0, 0, 0, 1, 0, p.stride_w * p.c};
  for (Index row = begin; row < end; ++row) {
    const Index y = row % p.h + p.pad_h;
    r.kh = phase_taps(p.kh, p.stride_h, y % p.stride_h);
    r.top = y / p.stride_h - r.kh + 1;
    const T* kernel = w + phase_begin(p.kh, p.stride_h, y % p.stride_h) * p.kw * p.c;
    for (Index phase = 0; phase < p.stride_w; ++phase) {
      r.kw = phase_taps(p.kw, p.stride_w, phase);
      // The first column that this phase of the kernel gives to.
      const Index first = (phase + p.stride_w - p.pad_w % p.stride_w) % p.stride_w;
      r.pad = r.kw - 1 - (first + p.pad_w) / p.stride_w;
      r.count = first < p.w ? (p.w - first - 1) / p.stride_w + 1 : 0;
      result_row<T>(r, gy + row / p.h * p.oh * p.ow * p.c, kernel, nullptr, gx + (row * p.w + first) * p.c,
                    add);
      kernel += r.kh * r.kw * p.c;
    }
  }
}

/// kCount neighbouring weights of a kernel row, summed over the output rows [begin, end) of all images.
template <class T, size_t kCount>
struct WeightBlock {
  const Problem& p;
  const T *x, *gy;
  T* sums;  // [kh, kw, c]
  Index ky, kx, begin, end;

  template <class D, size_t... j>
  HWY_INLINE void run(D d, Index c, std::index_sequence<j...>) const {
    using V = hn::Vec<D>;
    // Two sums of each hide the latency of the addition.
    V even[kCount] = {((void)j, hn::Zero(d))...}, odd[kCount] = {((void)j, hn::Zero(d))...};
    const Index x_step = p.stride_w * p.c;
    // Columns where all, or some, of the taps are inside.
    const Interior interior(p.ow, static_cast<Index>(kCount), p.stride_w, p.pad_w - kx, p.w);
    for (Index row = begin; row < end; ++row) {
      const Index y = row % p.oh * p.stride_h - p.pad_h + ky;
      if (y < 0 || y >= p.h) continue;
      const T* HWY_RESTRICT g = gy + row * p.ow * p.c + c;
      const T* HWY_RESTRICT from = x + ((row / p.oh * p.h + y) * p.w - p.pad_w + kx) * p.c + c;
      const auto add_edge = [&](Index ox) HWY_ATTR {
        const auto value = hn::LoadU(d, g + ox * p.c);
        const Index column = ox * p.stride_w - p.pad_w + kx;
        const auto inside = [&](size_t k) HWY_ATTR {
          return column + static_cast<Index>(k) >= 0 && column + static_cast<Index>(k) < p.w;
        };
        ((even[j] =
              inside(j)
                  ? hn::MulAdd(value, hn::LoadU(d, from + ox * x_step + static_cast<Index>(j) * p.c), even[j])
                  : even[j]),
         ...);
      };
      Index ox = 0;
      for (; ox < interior.first; ++ox) add_edge(ox);
      const T* HWY_RESTRICT at = from + ox * x_step;
      const T* HWY_RESTRICT value = g + ox * p.c;
      for (; ox + 2 <= interior.last; ox += 2, at += 2 * x_step, value += 2 * p.c) {
        const auto g0 = hn::LoadU(d, value), g1 = hn::LoadU(d, value + p.c);
        ((even[j] = hn::MulAdd(g0, hn::LoadU(d, at + static_cast<Index>(j) * p.c), even[j])), ...);
        ((odd[j] = hn::MulAdd(g1, hn::LoadU(d, at + x_step + static_cast<Index>(j) * p.c), odd[j])), ...);
      }
      for (; ox < p.ow; ++ox) add_edge(ox);
    }
    ((hn::StoreU(hn::Add(even[j], odd[j]), d, sums + (ky * p.kw + kx + static_cast<Index>(j)) * p.c + c)),
     ...);
  }
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, Index c) const {
    run(d, c, std::make_index_sequence<kCount>());
  }
};

template <class T>
void weight_grad_rows(const Problem& p, const T* x, const T* gy, T* sums, Index begin, Index end) {
  for (Index ky = 0; ky < p.kh; ++ky) {
    Index kx = 0;
    for (; kx + static_cast<Index>(kColumns) <= p.kw; kx += static_cast<Index>(kColumns)) {
      over_channels<T>(p.c, WeightBlock<T, kColumns>{p, x, gy, sums, ky, kx, begin, end});
    }
    for (; kx < p.kw; ++kx) over_channels<T>(p.c, WeightBlock<T, 1>{p, x, gy, sums, ky, kx, begin, end});
  }
}

BothTypes<RowsTable> rows_table() {
  return {{forward_rows<float>, input_grad_rows<float>, weight_grad_rows<float>},
          {forward_rows<double>, input_grad_rows<double>, weight_grad_rows<double>}};
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels::depthwise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk::kernels::depthwise {
namespace {

using Index = std::int64_t;

HWY_EXPORT(rows_table);

template <class T>
RowsTable<T> kernels_of() {
  return HWY_DYNAMIC_DISPATCH(rows_table)().of<T>();
}

template <class T>
void run_forward(const Problem& p, const T* x, const T* w, const T* bias, T* y, bool add) {
  parallel_for(p.n * p.oh, row_grain(p.ow * p.c),
               [&](Index begin, Index end) { kernels_of<T>().forward(p, x, w, bias, y, add, begin, end); });
}

/// The kernel as input_grad_rows reads it: [row phase][column phase][row][column][c], each phase turned
/// around.
template <class T>
std::vector<T> phases_of(const Problem& p, const T* w) {
  std::vector<T> phases;
  phases.reserve(static_cast<std::size_t>(p.kh * p.kw * p.c));
  const auto last = [](Index kernel, Index stride, Index phase) {
    return phase + (kernel - 1 - phase) / stride * stride;
  };
  for (Index row_phase = 0; row_phase < std::min(p.kh, p.stride_h); ++row_phase) {
    for (Index column_phase = 0; column_phase < std::min(p.kw, p.stride_w); ++column_phase) {
      for (Index ky = last(p.kh, p.stride_h, row_phase); ky >= 0; ky -= p.stride_h) {
        for (Index kx = last(p.kw, p.stride_w, column_phase); kx >= 0; kx -= p.stride_w) {
          const T* tap = w + (ky * p.kw + kx) * p.c;
          phases.insert(phases.end(), tap, tap + p.c);
        }
      }
    }
  }
  return phases;
}

template <class T>
void run_input_grad(const Problem& p, const T* gy, const T* w, T* gx, bool add) {
  const std::vector<T> phases = phases_of(p, w);
  parallel_for(p.n * p.h, row_grain(p.w * p.c), [&](Index begin, Index end) {
    kernels_of<T>().input_grad(p, gy, phases.data(), gx, add, begin, end);
  });
}

/// to[i] = the sum of parts[part * size + i], part by part, so that memory is read in its order.
template <class T>
void sum_parts(const T* parts, Index count, T* to, Index size) {
  constexpr Index kBlock = 256;
  parallel_for(size, row_grain(count), [&](Index begin, Index end) {
    for (Index first = begin; first < end; first += kBlock) {
      const Index width = std::min(kBlock, end - first);
      double sums[kBlock] = {};
      for (Index part = 0; part < count; ++part) {
        const T* from = parts + part * size + first;
        for (Index i = 0; i < width; ++i) sums[i] += static_cast<double>(from[i]);
      }
      for (Index i = 0; i < width; ++i) to[first + i] = static_cast<T>(sums[i]);
    }
  });
}

template <class T>
void run_weight_grad(const Problem& p, const T* x, const T* gy, T* gw) {
  const Index rows = p.n * p.oh, size = p.kh * p.kw * p.c;
  // Enough rows that a task's sums are few beside what it reads.
  const Index grain = std::max(row_grain(p.ow * p.c), std::max<Index>(1, 16 * p.kh * p.kw / p.ow));
  const Index tasks = (rows + grain - 1) / grain;
  const auto memory = allocate(tasks * size * static_cast<Index>(sizeof(T)));
  T* const sums = reinterpret_cast<T*>(memory.get());
  parallel_for(rows, grain, [&](Index begin, Index end) {
    T* const to = sums + begin / grain * size;
    kernels_of<T>().weight_grad(p, x, gy, to, begin, end);
  });
  sum_parts<T>(sums, tasks, gw, size);
}

}  // namespace

void forward(const Problem& p, const float* x, const float* w, const float* bias, float* y, bool add) {
  run_forward(p, x, w, bias, y, add);
}
void forward(const Problem& p, const double* x, const double* w, const double* bias, double* y, bool add) {
  run_forward(p, x, w, bias, y, add);
}
void input_grad(const Problem& p, const float* gy, const float* w, float* gx, bool add) {
  run_input_grad(p, gy, w, gx, add);
}
void input_grad(const Problem& p, const double* gy, const double* w, double* gx, bool add) {
  run_input_grad(p, gy, w, gx, add);
}
void weight_grad(const Problem& p, const float* x, const float* gy, float* gw) {
  run_weight_grad(p, x, gy, gw);
}
void weight_grad(const Problem& p, const double* x, const double* gy, double* gw) {
  run_weight_grad(p, x, gy, gw);
}

}  // namespace goshawk::kernels::depthwise
#endif
