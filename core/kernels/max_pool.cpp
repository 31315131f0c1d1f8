#include "core/kernels/max_pool.hpp"

#include <algorithm>

#include "core/kernels/both_types.hpp"
#include "core/kernels/window.hpp"
#include "core/parallel.hpp"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/max_pool.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#ifndef GOSHAWK_CORE_KERNELS_MAX_POOL_ARGS
#define GOSHAWK_CORE_KERNELS_MAX_POOL_ARGS
namespace goshawk::kernels {

/// Image and window sizes, and rows [begin, end) of the result: of all images, counted through.
struct WindowRows {
  std::int64_t h, w, oh, ow, channels;
  PoolParams p;
  std::int64_t begin, end;
};

/// `taps` point to bytes or to 32 bits each.
template <class T>
struct PoolTable {
  void (*maximum)(const WindowRows& r, const T* x, T* y, void* taps, bool bytes);
  void (*pick)(const WindowRows& r, const T* x, void* taps, bool bytes, T* y);
  void (*place)(const WindowRows& r, const T* gy, void* taps, bool bytes, T* gx);
};

}  // namespace goshawk::kernels
#endif

#include "core/kernels/channel_rows-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Tap numbers as integers of the width of D's lanes.
template <class D>
using TapLanes = hn::RebindToUnsigned<D>;

template <class D, class Tap>
HWY_INLINE hn::Vec<TapLanes<D>> load_taps(D d, const Tap* from) {
  const TapLanes<D> wide;
  const hn::Rebind<std::uint32_t, D> words;
  const auto as_words = [&]() HWY_ATTR {
    if constexpr (sizeof(Tap) == 1) {
      return hn::PromoteTo(words, hn::LoadU(hn::Rebind<Tap, D>(), from));
    } else {
      return hn::LoadU(words, from);
    }
  };
  if constexpr (sizeof(hn::TFromD<D>) == sizeof(std::uint32_t)) {
    (void)wide;
    (void)d;
    return as_words();
  } else {
    return hn::PromoteTo(wide, as_words());
  }
}

template <class D, class Tap>
HWY_INLINE void store_taps(D, hn::Vec<TapLanes<D>> taps, Tap* to) {
  const hn::Rebind<Tap, D> narrow;
  if constexpr (sizeof(hn::TFromD<D>) == sizeof(Tap)) {
    hn::StoreU(taps, narrow, to);
  } else {
    hn::StoreU(hn::TruncateTo(narrow, taps), narrow, to);
  }
}

/// One window: `x` is its (possibly padded) corner, of `channels`-long pixels in rows of x_row elements.
template <class T, class Tap>
struct MaximumBody {
  const T* x;
  T* y;
  Tap* taps;
  Inside rows, columns;
  std::int64_t kernel_w, x_row, channels;
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, std::int64_t c) const {
    const TapLanes<D> du;
    const auto at = [&](std::int64_t ky, std::int64_t kx)
                        HWY_ATTR { return hn::LoadU(d, x + ky * x_row + kx * channels + c); };
    const auto number = [&](std::int64_t ky, std::int64_t kx) HWY_ATTR {
      return hn::Set(du, static_cast<hn::TFromD<TapLanes<D>>>(ky * kernel_w + kx));
    };
    auto best = at(rows.first, columns.first);
    auto winner = number(rows.first, columns.first);
    for (std::int64_t ky = rows.first; ky < rows.last; ++ky) {
      for (std::int64_t kx = columns.first; kx < columns.last; ++kx) {
        const auto value = at(ky, kx);
        // Neither at most the best, as a NaN is not, nor after a NaN.
        const auto loses = hn::Or(hn::Le(value, best), hn::IsNaN(best));
        best = hn::IfThenElse(loses, best, value);
        winner = hn::IfThenElse(hn::RebindMask(du, loses), winner, number(ky, kx));
      }
    }
    hn::StoreU(best, d, y + c);
    store_taps(d, winner, taps + c);
  }
};

template <class T, class Tap>
struct PickBody {
  const T* x;
  const Tap* taps;
  T* y;
  Inside rows, columns;
  std::int64_t kernel_w, x_row, channels;
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, std::int64_t c) const {
    const TapLanes<D> du;
    const auto wanted = load_taps(d, taps + c);
    auto picked = hn::Zero(d);
    for (std::int64_t ky = rows.first; ky < rows.last; ++ky) {
      for (std::int64_t kx = columns.first; kx < columns.last; ++kx) {
        const auto number = hn::Set(du, static_cast<hn::TFromD<TapLanes<D>>>(ky * kernel_w + kx));
        picked = hn::IfThenElse(hn::RebindMask(d, hn::Eq(wanted, number)),
                                hn::LoadU(d, x + ky * x_row + kx * channels + c), picked);
      }
    }
    hn::StoreU(picked, d, y + c);
  }
};

/// Windows [first, last) along one axis that hold position `at`.
struct Windows {
  std::int64_t first, last;
  Windows(std::int64_t at, std::int64_t kernel, std::int64_t stride, std::int64_t pad, std::int64_t count)
      : first(std::max(std::int64_t{0}, (at + pad - kernel + stride) / stride)),
        last(std::min(count, (at + pad) / stride + 1)) {}
};

/// One position of an image: the sum of what all windows that chose it have to give.
template <class T, class Tap>
struct PlaceBody {
  const T* gy;      // of this image
  const Tap* taps;  // likewise
  T* gx;            // of this position
  Windows rows, columns;
  std::int64_t y, x;  // of this position in the padded image
  std::int64_t ow, channels;
  const PoolParams& p;
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, std::int64_t c) const {
    const TapLanes<D> du;
    auto sum = hn::Zero(d);
    for (std::int64_t oy = rows.first; oy < rows.last; ++oy) {
      for (std::int64_t ox = columns.first; ox < columns.last; ++ox) {
        const std::int64_t tap = (y - oy * p.stride_h) * p.kernel_w + x - ox * p.stride_w;
        const std::int64_t i = (oy * ow + ox) * channels + c;
        const auto chosen =
            hn::Eq(load_taps(d, taps + i), hn::Set(du, static_cast<hn::TFromD<TapLanes<D>>>(tap)));
        sum = hn::Add(sum, hn::IfThenElseZero(hn::RebindMask(d, chosen), hn::LoadU(d, gy + i)));
      }
    }
    hn::StoreU(sum, d, gx + c);
  }
};

template <class T, class Tap>
void maximum_rows(const WindowRows& r, const T* x, T* y, Tap* taps) {
  const std::int64_t x_row = r.w * r.channels;
  for (std::int64_t row = r.begin; row < r.end; ++row) {
    const std::int64_t top = row % r.oh * r.p.stride_h - r.p.pad_h;
    const Inside rows(top, r.p.kernel_h, r.h);
    for (std::int64_t ox = 0; ox < r.ow; ++ox) {
      const std::int64_t left = ox * r.p.stride_w - r.p.pad_w;
      const std::int64_t at = (row * r.ow + ox) * r.channels;
      over_channels<T>(
          r.channels,
          MaximumBody<T, Tap>{x + (row / r.oh * r.h + top) * x_row + left * r.channels, y + at, taps + at,
                              rows, Inside(left, r.p.kernel_w, r.w), r.p.kernel_w, x_row, r.channels});
    }
  }
}

template <class T, class Tap>
void pick_rows(const WindowRows& r, const T* x, const Tap* taps, T* y) {
  const std::int64_t x_row = r.w * r.channels;
  for (std::int64_t row = r.begin; row < r.end; ++row) {
    const std::int64_t top = row % r.oh * r.p.stride_h - r.p.pad_h;
    const Inside rows(top, r.p.kernel_h, r.h);
    for (std::int64_t ox = 0; ox < r.ow; ++ox) {
      const std::int64_t left = ox * r.p.stride_w - r.p.pad_w;
      const std::int64_t at = (row * r.ow + ox) * r.channels;
      over_channels<T>(r.channels, PickBody<T, Tap>{x + (row / r.oh * r.h + top) * x_row + left * r.channels,
                                                    taps + at, y + at, rows, Inside(left, r.p.kernel_w, r.w),
                                                    r.p.kernel_w, x_row, r.channels});
    }
  }
}

template <class T, class Tap>
void place_rows(const WindowRows& r, const T* gy, const Tap* taps, T* gx) {
  const PoolParams& p = r.p;
  for (std::int64_t row = r.begin; row < r.end; ++row) {
    const std::int64_t image = row / r.h * r.oh * r.ow * r.channels, y = row % r.h;
    const Windows rows(y, p.kernel_h, p.stride_h, p.pad_h, r.oh);
    for (std::int64_t x = 0; x < r.w; ++x) {
      over_channels<T>(r.channels,
                       PlaceBody<T, Tap>{gy + image, taps + image, gx + (row * r.w + x) * r.channels, rows,
                                         Windows(x, p.kernel_w, p.stride_w, p.pad_w, r.ow), y + p.pad_h,
                                         x + p.pad_w, r.ow, r.channels, p});
    }
  }
}

// The entry points pick the type of the taps.
template <class F>
HWY_INLINE void with_taps(void* taps, bool bytes, const F& f) {
  if (bytes) {
    f(static_cast<std::uint8_t*>(taps));
  } else {
    f(static_cast<std::uint32_t*>(taps));
  }
}
template <class T>
void maximum(const WindowRows& r, const T* x, T* y, void* taps, bool bytes) {
  with_taps(taps, bytes, [&](auto* t) { maximum_rows(r, x, y, t); });
}
template <class T>
void pick(const WindowRows& r, const T* x, void* taps, bool bytes, T* y) {
  with_taps(taps, bytes, [&](auto* t) { pick_rows(r, x, t, y); });
}
template <class T>
void place(const WindowRows& r, const T* gy, void* taps, bool bytes, T* gx) {
  with_taps(taps, bytes, [&](auto* t) { place_rows(r, gy, t, gx); });
}

BothTypes<PoolTable> pool_table() {
  return {{maximum<float>, pick<float>, place<float>}, {maximum<double>, pick<double>, place<double>}};
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk::kernels {
namespace {

HWY_EXPORT(pool_table);

template <class T>
PoolTable<T> kernels_of() {
  return HWY_DYNAMIC_DISPATCH(pool_table)().of<T>();
}

constexpr std::int64_t kByteTaps = 256;

DType taps_dtype(const PoolParams& p) {
  return p.kernel_h * p.kernel_w <= kByteTaps ? DType::u8 : DType::i32;
}

/// Calls f(rows) for chunks of result rows of about kElementwiseGrain elements.
template <class F>
void over_rows(const Shape& x, const Shape& windows, const PoolParams& p, const Shape& result, const F& f) {
  parallel_for(result[0] * result[1], row_grain(result[2] * result[3]),
               [&](std::int64_t begin, std::int64_t end) {
                 f(WindowRows{x[1], x[2], windows[1], windows[2], x[3], p, begin, end});
               });
}

/// The shape of the windows' results, after checking that the taps belong to them.
Shape checked_windows(const Shape& x, const Tensor& taps, const PoolParams& p, std::string_view op) {
  const Shape windows = pool_output_shape(x, p, op);
  check(taps.shape() == windows && taps.dtype() == taps_dtype(p),
        "[{}] images of shape {} have windows {} with taps in {}, not the given {} {}", op, x, windows,
        taps_dtype(p), taps.dtype(), taps.shape());
  return windows;
}

}  // namespace

MaxPool max_pool2d(const Tensor& x, const PoolParams& p) {
  constexpr std::string_view op = "max_pool2d";
  const Shape windows = pool_output_shape(x.shape(), p, op);
  const MaxPool result{Tensor::empty(windows, x.dtype()), Tensor::empty(windows, taps_dtype(p))};
  const bool bytes = result.taps.dtype() == DType::u8;
  dispatch_floating(x.dtype(), op, [&]<class T>() {
    over_rows(x.shape(), windows, p, windows, [&](const WindowRows& r) {
      kernels_of<T>().maximum(r, x.data<T>(), result.y.data<T>(), result.taps.raw(), bytes);
    });
  });
  return result;
}

Tensor window_pick(const Tensor& x, const Tensor& taps, const PoolParams& p) {
  constexpr std::string_view op = "window_pick";
  const Shape windows = checked_windows(x.shape(), taps, p, op);
  Tensor y = Tensor::empty(windows, x.dtype());
  const bool bytes = taps.dtype() == DType::u8;
  dispatch_floating(x.dtype(), op, [&]<class T>() {
    over_rows(x.shape(), windows, p, windows, [&](const WindowRows& r) {
      kernels_of<T>().pick(r, x.data<T>(), taps.raw(), bytes, y.data<T>());
    });
  });
  return y;
}

Tensor window_place(const Tensor& gy, const Tensor& taps, const Shape& x_shape, const PoolParams& p) {
  constexpr std::string_view op = "window_place";
  const Shape windows = checked_windows(x_shape, taps, p, op);
  check(gy.shape() == windows, "[{}] images of shape {} have windows {}, not the given {}", op, x_shape,
        windows, gy.shape());
  Tensor gx = Tensor::empty(x_shape, gy.dtype());
  const bool bytes = taps.dtype() == DType::u8;
  dispatch_floating(gy.dtype(), op, [&]<class T>() {
    over_rows(x_shape, windows, p, x_shape, [&](const WindowRows& r) {
      kernels_of<T>().place(r, gy.data<T>(), taps.raw(), bytes, gx.data<T>());
    });
  });
  return gx;
}

}  // namespace goshawk::kernels
#endif
