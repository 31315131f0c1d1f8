#include "core/kernels/conv_depthwise.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/parallel.hpp"
#include "core/tensor.hpp"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/conv_depthwise.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

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

/// The part [first, last) of the `kernel` taps that begin at `start` and lie inside [0, size).
struct Inside {
  Index first, last;
  Inside(Index start, Index kernel, Index size)
      : first(std::max(Index{0}, -start)), last(std::min(kernel, size - start)) {}
};

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
  Index kernel_w, x_row, x_step, channels;  // x_step: elements from the input of one result to the next
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
    ((hn::StoreU(add ? hn::Add(sums[p], hn::LoadU(d, y + static_cast<Index>(p) * channels + c)) : sums[p], d,
                 y + static_cast<Index>(p) * channels + c)),
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

/// Rows [begin, end) of the results of all images, counted through.
template <class T>
void forward_rows(const Problem& p, const T* x, const T* w, const T* bias, T* y, bool add, Index begin,
                  Index end) {
  const Index x_row = p.w * p.c, x_step = p.stride_w * p.c;
  const Interior interior(p.ow, p.kw, p.stride_w, p.pad_w, p.w);
  for (Index row = begin; row < end; ++row) {
    const Index top = row % p.oh * p.stride_h - p.pad_h;
    const Inside ky(top, p.kh, p.h);
    const auto block = [&]<size_t kCount>(Index ox, std::integral_constant<size_t, kCount>) HWY_ATTR {
      const Index left = ox * p.stride_w - p.pad_w;
      over_channels<T>(p.c, ResultBlock<T, kCount>{x + (row / p.oh * p.h + top) * x_row + left * p.c, w, bias,
                                                   y + (row * p.ow + ox) * p.c, ky, Inside(left, p.kw, p.w),
                                                   p.kw, x_row, x_step, p.c, add});
    };
    Index ox = 0;
    for (; ox < interior.first; ++ox) block(ox, std::integral_constant<size_t, 1>());
    for (; ox + static_cast<Index>(kPixels) <= interior.last; ox += static_cast<Index>(kPixels)) {
      block(ox, std::integral_constant<size_t, kPixels>());
    }
    for (; ox < p.ow; ++ox) block(ox, std::integral_constant<size_t, 1>());
  }
}

/// One pixel of the input's gradient, of a convolution with strides.
template <class T>
struct InputBlock {
  const Problem& p;
  const T *gy, *w;  // gy: of this image
  T* gx;
  Index y, x;  // in the padded image
  bool add;
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, Index c) const {
    auto sum = hn::Zero(d);
    // Kernel rows that meet an output row: y - ky is a multiple of the stride.
    for (Index ky = y % p.stride_h; ky < p.kh && ky <= y; ky += p.stride_h) {
      const Index oy = (y - ky) / p.stride_h;
      if (oy >= p.oh) continue;
      for (Index kx = x % p.stride_w; kx < p.kw && kx <= x; kx += p.stride_w) {
        const Index ox = (x - kx) / p.stride_w;
        if (ox >= p.ow) continue;
        sum = hn::MulAdd(hn::LoadU(d, gy + (oy * p.ow + ox) * p.c + c),
                         hn::LoadU(d, w + (ky * p.kw + kx) * p.c + c), sum);
      }
    }
    hn::StoreU(add ? hn::Add(sum, hn::LoadU(d, gx + c)) : sum, d, gx + c);
  }
};

template <class T>
void input_grad_rows(const Problem& p, const T* gy, const T* w, T* gx, bool add, Index begin, Index end) {
  for (Index row = begin; row < end; ++row) {
    for (Index x = 0; x < p.w; ++x) {
      over_channels<T>(p.c, InputBlock<T>{p, gy + row / p.h * p.oh * p.ow * p.c, w,
                                          gx + (row * p.w + x) * p.c, row % p.h + p.pad_h, x + p.pad_w, add});
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

void ForwardF32(const Problem& p, const float* x, const float* w, const float* bias, float* y, bool add,
                Index begin, Index end) {
  forward_rows(p, x, w, bias, y, add, begin, end);
}
void ForwardF64(const Problem& p, const double* x, const double* w, const double* bias, double* y, bool add,
                Index begin, Index end) {
  forward_rows(p, x, w, bias, y, add, begin, end);
}
void InputGradF32(const Problem& p, const float* gy, const float* w, float* gx, bool add, Index begin,
                  Index end) {
  input_grad_rows(p, gy, w, gx, add, begin, end);
}
void InputGradF64(const Problem& p, const double* gy, const double* w, double* gx, bool add, Index begin,
                  Index end) {
  input_grad_rows(p, gy, w, gx, add, begin, end);
}
void WeightGradF32(const Problem& p, const float* x, const float* gy, float* sums, Index begin, Index end) {
  weight_grad_rows(p, x, gy, sums, begin, end);
}
void WeightGradF64(const Problem& p, const double* x, const double* gy, double* sums, Index begin,
                   Index end) {
  weight_grad_rows(p, x, gy, sums, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels::depthwise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk::kernels::depthwise {
namespace {

using Index = std::int64_t;

HWY_EXPORT(ForwardF32);
HWY_EXPORT(ForwardF64);
HWY_EXPORT(InputGradF32);
HWY_EXPORT(InputGradF64);
HWY_EXPORT(WeightGradF32);
HWY_EXPORT(WeightGradF64);

template <class T>
constexpr bool kSingle = sizeof(T) == sizeof(float);

/// Rows of `row` elements that make a task of the size of an elementwise one.
Index task_rows(Index row) {
  return std::max<Index>(1, kElementwiseGrain / std::max<Index>(1, row));
}

template <class T>
void run_forward(const Problem& p, const T* x, const T* w, const T* bias, T* y, bool add) {
  parallel_for(p.n * p.oh, task_rows(p.ow * p.c), [&](Index begin, Index end) {
    if constexpr (kSingle<T>) {
      HWY_DYNAMIC_DISPATCH(ForwardF32)(p, x, w, bias, y, add, begin, end);
    } else {
      HWY_DYNAMIC_DISPATCH(ForwardF64)(p, x, w, bias, y, add, begin, end);
    }
  });
}

template <class T>
void run_input_grad(const Problem& p, const T* gy, const T* w, T* gx, bool add) {
  if (p.stride_h == 1 && p.stride_w == 1) {
    // The convolution of gy with the kernel turned around.
    const Problem turned{
        p.n, p.oh, p.ow, p.c, p.kh, p.kw, p.h, p.w, 1, 1, p.kh - 1 - p.pad_h, p.kw - 1 - p.pad_w};
    std::vector<T> kernel(static_cast<std::size_t>(p.kh * p.kw * p.c));
    for (Index tap = 0; tap < p.kh * p.kw; ++tap) {
      std::copy_n(w + tap * p.c, p.c, kernel.data() + (p.kh * p.kw - 1 - tap) * p.c);
    }
    run_forward<T>(turned, gy, kernel.data(), nullptr, gx, add);
    return;
  }
  parallel_for(p.n * p.h, task_rows(p.w * p.c), [&](Index begin, Index end) {
    if constexpr (kSingle<T>) {
      HWY_DYNAMIC_DISPATCH(InputGradF32)(p, gy, w, gx, add, begin, end);
    } else {
      HWY_DYNAMIC_DISPATCH(InputGradF64)(p, gy, w, gx, add, begin, end);
    }
  });
}

template <class T>
void run_weight_grad(const Problem& p, const T* x, const T* gy, T* gw) {
  const Index rows = p.n * p.oh, size = p.kh * p.kw * p.c;
  // Enough rows that a task's sums are few beside what it reads.
  const Index grain = std::max(task_rows(p.ow * p.c), std::max<Index>(1, 4 * p.kh * p.kw / p.ow));
  const Index tasks = (rows + grain - 1) / grain;
  std::vector<T> sums(static_cast<std::size_t>(tasks * size));
  parallel_for(rows, grain, [&](Index begin, Index end) {
    T* const to = sums.data() + begin / grain * size;
    if constexpr (kSingle<T>) {
      HWY_DYNAMIC_DISPATCH(WeightGradF32)(p, x, gy, to, begin, end);
    } else {
      HWY_DYNAMIC_DISPATCH(WeightGradF64)(p, x, gy, to, begin, end);
    }
  });
  for (Index i = 0; i < size; ++i) {
    double sum = 0;
    for (Index task = 0; task < tasks; ++task) {
      sum += static_cast<double>(sums[static_cast<std::size_t>(task * size + i)]);
    }
    gw[i] = static_cast<T>(sum);
  }
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
