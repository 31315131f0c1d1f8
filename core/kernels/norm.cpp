#include "core/kernels/norm.hpp"

#include <array>

#include "core/kernels/channel_rows.hpp"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/norm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#ifndef GOSHAWK_CORE_KERNELS_NORM_ARGS
#define GOSHAWK_CORE_KERNELS_NORM_ARGS
namespace goshawk::kernels {

// Runs of rows of [rows, channels] operands; pointers that may be null say so.

/// g = gy where y > 0; gx = s · g, masked = g, and sums of g and g (x − mean).
template <class T>
struct BackwardRows {
  const T *gy, *y, *x;      // y null: no mask
  const T *ms, *mt;         // [channels]; not null: the mask is where x · ms + mt > 0, and y is not read
  const T *mean, *s;        // [channels]; mean null: 0
  T *gx, *masked;           // null: not wanted
  bool add_gx, add_masked;  // to what they hold
  T *sum_g, *sum_gx;        // [channels]
  std::int64_t rows, channels;
};

/// gx = a · g + b · x + c per channel.
template <class T>
struct CombineRows {
  const T *gy, *y, *x, *a, *b, *c;  // y null: no mask
  const T *ms, *mt;                 // as in BackwardRows
  T* gx;
  bool add;  // to what gx holds
  std::int64_t rows, channels;
};

/// Sums of u, u (x − mean) and u g.
template <class T>
struct SecondSums {
  const T *u, *gy, *y, *x, *mean;  // y null: no mask
  T *sum_u, *sum_ux, *sum_ug;      // [channels]
  std::int64_t rows, channels;
};

/// ggy = (a1 · u + r + b1 · x + c1) where y > 0; gx = a2 · u + b2 · g + c2 · x + d2 + e2 · dg; the sum of u
/// g.
template <class T>
struct SecondRows {
  const T *u, *r, *dgy, *gy, *y, *x;  // u, r and dgy null: 0; gy null: no gx, no sum; y null: no mask
  const T *a1, *b1, *c1, *a2, *b2, *c2, *d2, *e2;
  T *ggy, *gx;  // null: not wanted
  T* sum_ug;    // [channels]; null: not wanted, else gx is
  std::int64_t rows, channels;
};

/// gx = s · dg + ds · g, masked = dg, and sums of dg, dg (x − mean), u, u (x − mean) and u g.
template <class T>
struct TangentRows {
  const T *dgy, *u, *gy, *y, *x;  // dgy and u null: 0; y null: no mask
  const T *mean, *s, *ds;         // [channels]; null: 0
  T *gx, *masked;                 // null: not wanted
  T *sum_dg, *sum_dgx, *sum_u, *sum_ux, *sum_ug;
  std::int64_t rows, channels;
};

}  // namespace goshawk::kernels
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
    return hn::IfThenElseZero(hn::Gt(hn::LoadU(d, y + i), hn::Zero(d)), g);
  } else {
    return g;
  }
}

/// What of a gradient passed the ReLU.
enum class Mask : std::uint8_t {
  none,
  by_output,  ///< where the output is positive
  by_input,   ///< where the affine map of x is: by the same operations as in the forward pass, so the same
};

template <Mask kMask, class D, class T>
HWY_INLINE hn::Vec<D> passed(D d, const T* gy, const T* y, std::int64_t i, hn::Vec<D> x, hn::Vec<D> ms,
                             hn::Vec<D> mt) {
  if constexpr (kMask == Mask::by_input) {
    return hn::IfThenElseZero(hn::Gt(hn::MulAdd(x, ms, mt), hn::Zero(d)), hn::LoadU(d, gy + i));
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

template <class T, Mask kMask>
struct BackwardBody {
  const BackwardRows<T>& p;
  template <class D>
  struct Coefficients {
    hn::Vec<D> mean, s, ms, mt;
  };
  template <class D>
  struct Sums {
    hn::Vec<D> g, gx;
  };
  template <class D>
  HWY_INLINE HWY_ATTR Coefficients<D> load(D d, std::int64_t c) const {
    const auto at = [&](const T* v) HWY_ATTR { return v == nullptr ? hn::Zero(d) : hn::LoadU(d, v + c); };
    return {at(p.mean), at(p.s), at(p.ms), at(p.mt)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR Sums<D> zero(D d) const {
    return {hn::Zero(d), hn::Zero(d)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR void add(D d, std::int64_t i, const Coefficients<D>& k, Sums<D>& sums) const {
    const auto x = hn::LoadU(d, p.x + i);
    const auto g = passed<kMask>(d, p.gy, p.y, i, x, k.ms, k.mt);
    if (p.masked != nullptr) store_or_add<D>(g, p.masked + i, p.add_masked);
    if (p.gx != nullptr) store_or_add<D>(hn::Mul(k.s, g), p.gx + i, p.add_gx);
    sums.g = hn::Add(sums.g, g);
    sums.gx = hn::MulAdd(g, hn::Sub(x, k.mean), sums.gx);
  }
  template <class D>
  HWY_INLINE HWY_ATTR void store(D d, std::int64_t c, const Sums<D>& even, const Sums<D>& odd) const {
    hn::StoreU(hn::Add(even.g, odd.g), d, p.sum_g + c);
    hn::StoreU(hn::Add(even.gx, odd.gx), d, p.sum_gx + c);
  }
};

template <class T, bool kMask>
struct SecondSumsBody {
  const SecondSums<T>& p;
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, std::int64_t c) const {
    const auto mean = hn::LoadU(d, p.mean + c);
    auto u0 = hn::Zero(d), u1 = u0, ux0 = u0, ux1 = u0, ug0 = u0, ug1 = u0;
    const auto step = [&](std::int64_t r, auto& sum_u, auto& sum_ux, auto& sum_ug) HWY_ATTR {
      const std::int64_t i = r * p.channels + c;
      const auto u = hn::LoadU(d, p.u + i);
      sum_u = hn::Add(sum_u, u);
      sum_ux = hn::MulAdd(u, hn::Sub(hn::LoadU(d, p.x + i), mean), sum_ux);
      sum_ug = hn::MulAdd(u, masked_load<kMask>(d, p.gy, p.y, i), sum_ug);
    };
    std::int64_t r = 0;
    for (; r + 2 <= p.rows; r += 2) {
      step(r, u0, ux0, ug0);
      step(r + 1, u1, ux1, ug1);
    }
    if (r < p.rows) step(r, u0, ux0, ug0);
    hn::StoreU(hn::Add(u0, u1), d, p.sum_u + c);
    hn::StoreU(hn::Add(ux0, ux1), d, p.sum_ux + c);
    hn::StoreU(hn::Add(ug0, ug1), d, p.sum_ug + c);
  }
};

template <class T, Mask kMask>
struct CombineBody {
  const CombineRows<T>& p;
  template <class D>
  struct Coefficients {
    hn::Vec<D> a, b, c, ms, mt;
  };
  template <class D>
  HWY_INLINE HWY_ATTR Coefficients<D> load(D d, std::int64_t c) const {
    const auto at = [&](const T* v) HWY_ATTR { return v == nullptr ? hn::Zero(d) : hn::LoadU(d, v + c); };
    return {at(p.a), at(p.b), at(p.c), at(p.ms), at(p.mt)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, std::int64_t i, const Coefficients<D>& k) const {
    const auto x = hn::LoadU(d, p.x + i);
    const auto g = passed<kMask>(d, p.gy, p.y, i, x, k.ms, k.mt);
    store_or_add<D>(hn::MulAdd(k.a, g, hn::MulAdd(k.b, x, k.c)), p.gx + i, p.add);
  }
};

template <class T, bool kMask, bool kU, bool kResidual>
struct SecondBody {
  const SecondRows<T>& p;
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, std::int64_t c) const {
    const auto at = [&](const T* v) HWY_ATTR { return hn::LoadU(d, v + c); };
    const auto a1 = at(p.a1), b1 = at(p.b1), c1 = at(p.c1);
    const auto a2 = at(p.a2), b2 = at(p.b2), c2 = at(p.c2), d2 = at(p.d2), e2 = at(p.e2);
    const bool first = p.ggy != nullptr, second = p.gx != nullptr, moving = p.dgy != nullptr;
    const auto step = [&](std::int64_t row, [[maybe_unused]] auto& sum_ug) HWY_ATTR {
      const std::int64_t i = row * p.channels + c;
      const auto x = hn::LoadU(d, p.x + i);
      const auto u = kU ? hn::LoadU(d, p.u + i) : hn::Zero(d);
      const auto y = kMask ? hn::LoadU(d, p.y + i) : hn::Zero(d);
      const auto passed = [&](auto value) HWY_ATTR {
        return kMask ? hn::IfThenElseZero(hn::Gt(y, hn::Zero(d)), value) : value;
      };
      if (first) {
        auto ggy = hn::MulAdd(b1, x, c1);
        if constexpr (kU) ggy = hn::MulAdd(a1, u, ggy);
        if constexpr (kResidual) ggy = hn::Add(ggy, hn::LoadU(d, p.r + i));
        hn::StoreU(passed(ggy), d, p.ggy + i);
      }
      if (second) {
        const auto g = passed(hn::LoadU(d, p.gy + i));
        auto gx = hn::MulAdd(c2, x, d2);
        if constexpr (kU) {
          gx = hn::MulAdd(a2, u, gx);
          sum_ug = hn::MulAdd(u, g, sum_ug);
        }
        if (moving) gx = hn::MulAdd(e2, passed(hn::LoadU(d, p.dgy + i)), gx);
        hn::StoreU(hn::MulAdd(b2, g, gx), d, p.gx + i);
      }
    };
    // Two independent sums hide the latency of the addition.
    auto ug0 = hn::Zero(d), ug1 = ug0;
    std::int64_t row = 0;
    for (; row + 2 <= p.rows; row += 2) {
      step(row, ug0);
      step(row + 1, ug1);
    }
    if (row < p.rows) step(row, ug0);
    if (p.sum_ug != nullptr) hn::StoreU(hn::Add(ug0, ug1), d, p.sum_ug + c);
  }
};

template <class T, bool kMask>
struct TangentBody {
  const TangentRows<T>& p;
  template <class D>
  HWY_INLINE HWY_ATTR void operator()(D d, std::int64_t c) const {
    const auto per_channel = [&](const T* v)
                                 HWY_ATTR { return v == nullptr ? hn::Zero(d) : hn::LoadU(d, v + c); };
    const auto mean = per_channel(p.mean), s = per_channel(p.s), ds = per_channel(p.ds);
    auto sum_dg = hn::Zero(d), sum_dgx = sum_dg, sum_u = sum_dg, sum_ux = sum_dg, sum_ug = sum_dg;
    for (std::int64_t r = 0; r < p.rows; ++r) {
      const std::int64_t i = r * p.channels + c;
      const auto g = masked_load<kMask>(d, p.gy, p.y, i);
      const auto dg = p.dgy == nullptr ? hn::Zero(d) : masked_load<kMask>(d, p.dgy, p.y, i);
      const auto x = hn::Sub(hn::LoadU(d, p.x + i), mean);
      if (p.masked != nullptr) hn::StoreU(dg, d, p.masked + i);
      if (p.gx != nullptr) hn::StoreU(hn::MulAdd(s, dg, hn::Mul(ds, g)), d, p.gx + i);
      sum_dg = hn::Add(sum_dg, dg);
      sum_dgx = hn::MulAdd(dg, x, sum_dgx);
      if (p.u == nullptr) continue;
      const auto u = hn::LoadU(d, p.u + i);
      sum_u = hn::Add(sum_u, u);
      sum_ux = hn::MulAdd(u, x, sum_ux);
      sum_ug = hn::MulAdd(u, g, sum_ug);
    }
    hn::StoreU(sum_dg, d, p.sum_dg + c);
    hn::StoreU(sum_dgx, d, p.sum_dgx + c);
    hn::StoreU(sum_u, d, p.sum_u + c);
    hn::StoreU(sum_ux, d, p.sum_ux + c);
    hn::StoreU(sum_ug, d, p.sum_ug + c);
  }
};

template <class T, Mask kMask>
void backward(const BackwardRows<T>& p) {
  // Two vectors at a time leave all coefficients and sums in registers.
  const BackwardBody<T, kMask> body{p};
  over_slabs<T, 2>(p.channels, SumSlab<2, BackwardBody<T, kMask>>{body, p.rows, p.channels});
}

template <class T>
void backward(const BackwardRows<T>& p) {
  if (p.ms != nullptr) {
    backward<T, Mask::by_input>(p);
  } else {
    p.y != nullptr ? backward<T, Mask::by_output>(p) : backward<T, Mask::none>(p);
  }
}

template <class T, Mask kMask>
void combine_rows(const CombineRows<T>& p) {
  over_element_slabs<T>(p.rows, p.channels, CombineBody<T, kMask>{p});
}

template <class T>
void combine_rows(const CombineRows<T>& p) {
  if (p.ms != nullptr) {
    combine_rows<T, Mask::by_input>(p);
  } else {
    p.y != nullptr ? combine_rows<T, Mask::by_output>(p) : combine_rows<T, Mask::none>(p);
  }
}

template <class T>
void second_sums(const SecondSums<T>& p) {
  if (p.y != nullptr) {
    over_channels<T>(p.channels, SecondSumsBody<T, true>{p});
  } else {
    over_channels<T>(p.channels, SecondSumsBody<T, false>{p});
  }
}

template <class T, bool kMask, bool kU>
void second(const SecondRows<T>& p) {
  if (p.r != nullptr) {
    over_channels<T>(p.channels, SecondBody<T, kMask, kU, true>{p});
  } else {
    over_channels<T>(p.channels, SecondBody<T, kMask, kU, false>{p});
  }
}

template <class T>
void second(const SecondRows<T>& p) {
  if (p.y != nullptr) {
    p.u != nullptr ? second<T, true, true>(p) : second<T, true, false>(p);
  } else {
    p.u != nullptr ? second<T, false, true>(p) : second<T, false, false>(p);
  }
}

template <class T>
void tangent(const TangentRows<T>& p) {
  if (p.y != nullptr) {
    over_channels<T>(p.channels, TangentBody<T, true>{p});
  } else {
    over_channels<T>(p.channels, TangentBody<T, false>{p});
  }
}

void BackwardF32(const BackwardRows<float>& p) {
  backward(p);
}
void BackwardF64(const BackwardRows<double>& p) {
  backward(p);
}
void CombineF32(const CombineRows<float>& p) {
  combine_rows(p);
}
void CombineF64(const CombineRows<double>& p) {
  combine_rows(p);
}
void SecondSumsF32(const SecondSums<float>& p) {
  second_sums(p);
}
void SecondSumsF64(const SecondSums<double>& p) {
  second_sums(p);
}
void SecondF32(const SecondRows<float>& p) {
  second(p);
}
void SecondF64(const SecondRows<double>& p) {
  second(p);
}
void TangentF32(const TangentRows<float>& p) {
  tangent(p);
}
void TangentF64(const TangentRows<double>& p) {
  tangent(p);
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk::kernels {
namespace {

HWY_EXPORT(BackwardF32);
HWY_EXPORT(BackwardF64);
HWY_EXPORT(CombineF32);
HWY_EXPORT(CombineF64);
HWY_EXPORT(SecondSumsF32);
HWY_EXPORT(SecondSumsF64);
HWY_EXPORT(SecondF32);
HWY_EXPORT(SecondF64);
HWY_EXPORT(TangentF32);
HWY_EXPORT(TangentF64);

void run(const BackwardRows<float>& p) {
  HWY_DYNAMIC_DISPATCH(BackwardF32)(p);
}
void run(const BackwardRows<double>& p) {
  HWY_DYNAMIC_DISPATCH(BackwardF64)(p);
}
void run(const CombineRows<float>& p) {
  HWY_DYNAMIC_DISPATCH(CombineF32)(p);
}
void run(const CombineRows<double>& p) {
  HWY_DYNAMIC_DISPATCH(CombineF64)(p);
}
void run(const SecondSums<float>& p) {
  HWY_DYNAMIC_DISPATCH(SecondSumsF32)(p);
}
void run(const SecondSums<double>& p) {
  HWY_DYNAMIC_DISPATCH(SecondSumsF64)(p);
}
void run(const SecondRows<float>& p) {
  HWY_DYNAMIC_DISPATCH(SecondF32)(p);
}
void run(const SecondRows<double>& p) {
  HWY_DYNAMIC_DISPATCH(SecondF64)(p);
}
void run(const TangentRows<float>& p) {
  HWY_DYNAMIC_DISPATCH(TangentF32)(p);
}
void run(const TangentRows<double>& p) {
  HWY_DYNAMIC_DISPATCH(TangentF64)(p);
}

/// `t` from element `at` on, or null where it is undefined.
template <class T>
T* data_at(const Tensor& t, std::int64_t at) {
  return t.defined() ? t.data<T>() + at : nullptr;
}

void check_operands(const Tensor& gy, const Tensor& x, const Tensor& scale, const Tensor& y,
                    std::string_view op) {
  check_same(gy, x, op);
  if (y.defined()) check_same(y, x, op);
  check_channels(scale, Rows(x, op), x, op);
}

/// A number per channel from a per-channel tensor; zero where it is undefined.
template <class T>
double value(const Tensor& t, std::int64_t channel) {
  return t.defined() ? static_cast<double>(t.data<T>()[channel]) : 0.0;
}

/// A gradient of x's size that a pass writes or adds to, if it is wanted.
struct Target {
  Tensor tensor;  // undefined: not wanted
  bool add = false;
};

Target target(bool wanted, const Tensor& sum, const Tensor& x, std::string_view op) {
  if (!wanted) return {};
  if (!sum.defined()) return {Tensor::empty_like(x), false};
  check_same(sum, x, op);
  return {sum, true};
}

/// Without a ReLU the residual's gradient is gy itself, and there is nothing to write unless it is to be
/// added.
Target residual_target(const NormWants& wants, const Tensor& y, const Tensor& x, std::string_view op) {
  return target(wants.residual && (y.defined() || wants.residual_sum.defined()), wants.residual_sum, x, op);
}

struct FirstSums {
  std::vector<double> g, gx;
};

/// Σ g, Σ g (x − mean) and, where they have a target, g itself and s · g.
template <class T>
FirstSums first_pass(const Rows& rows, const Tensor& gy, const Tensor& x, const Tensor& y, const Tensor& mean,
                     const Tensor& s, const Target& gx, const Target& masked, const NormMap& map) {
  const std::int64_t n = rows.channels;
  const Tensor sums_g = Tensor::empty({rows.chunks(), n}, x.dtype());
  const Tensor sums_gx = Tensor::empty({rows.chunks(), n}, x.dtype());
  parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t at = begin * n, chunk = begin / rows.grain * n;
    run(BackwardRows<T>{.gy = gy.data<T>() + at,
                        .y = data_at<T>(y, at),
                        .x = x.data<T>() + at,
                        .ms = optional_data<T>(map.s),
                        .mt = optional_data<T>(map.t),
                        .mean = optional_data<T>(mean),
                        .s = optional_data<T>(s),
                        .gx = data_at<T>(gx.tensor, at),
                        .masked = data_at<T>(masked.tensor, at),
                        .add_gx = gx.add,
                        .add_masked = masked.add,
                        .sum_g = sums_g.data<T>() + chunk,
                        .sum_gx = sums_gx.data<T>() + chunk,
                        .rows = end - begin,
                        .channels = n});
  });
  return {combine<T>(sums_g, rows.chunks(), n), combine<T>(sums_gx, rows.chunks(), n)};
}

/// Σ u, Σ u (x − mean), Σ u g; zeros where u is undefined.
struct Sums {
  std::vector<double> u, ux, ug;
};
template <class T>
Sums second_pass_sums(const Rows& rows, const Tensor& u, const Tensor& gy, const Tensor& x, const Tensor& y,
                      const Tensor& mean) {
  const std::int64_t n = rows.channels;
  const std::vector<double> zeros(static_cast<std::size_t>(n));
  if (!u.defined()) return {zeros, zeros, zeros};
  const Shape partial{rows.chunks(), n};
  const Tensor sums_u = Tensor::empty(partial, x.dtype()), sums_ux = Tensor::empty(partial, x.dtype()),
               sums_ug = Tensor::empty(partial, x.dtype());
  parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t at = begin * n, chunk = begin / rows.grain * n;
    run(SecondSums<T>{.u = u.data<T>() + at,
                      .gy = gy.data<T>() + at,
                      .y = data_at<T>(y, at),
                      .x = x.data<T>() + at,
                      .mean = mean.data<T>(),
                      .sum_u = sums_u.data<T>() + chunk,
                      .sum_ux = sums_ux.data<T>() + chunk,
                      .sum_ug = sums_ug.data<T>() + chunk,
                      .rows = end - begin,
                      .channels = n});
  });
  return {combine<T>(sums_u, rows.chunks(), n), combine<T>(sums_ux, rows.chunks(), n),
          combine<T>(sums_ug, rows.chunks(), n)};
}

/// The coefficients of SecondRows, [8, C].
enum Coefficient : std::uint8_t { A1, B1, C1, A2, B2, C2, D2, E2, kCoefficients };

/// One pass over the large operands; `dgy` is undefined unless the gradient's argument moves as well.
/// `sums_ug` receives Σ u g of each chunk [chunks, C], if defined; it needs gx.
template <class T>
void second_pass(const Rows& rows, const NormGradients& u, const Tensor& dgy, const Tensor& gy,
                 const Tensor& x, const Tensor& y, const Tensor& coefficients, const Tensor& ggy,
                 const Tensor& gx, const Tensor& sums_ug = {}) {
  const std::int64_t n = rows.channels;
  const T* k = coefficients.data<T>();
  parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t at = begin * n;
    run(SecondRows<T>{.u = data_at<T>(u.x, at),
                      .r = data_at<T>(u.residual, at),
                      .dgy = data_at<T>(dgy, at),
                      .gy = data_at<T>(gy, at),
                      .y = data_at<T>(y, at),
                      .x = x.data<T>() + at,
                      .a1 = k + A1 * n,
                      .b1 = k + B1 * n,
                      .c1 = k + C1 * n,
                      .a2 = k + A2 * n,
                      .b2 = k + B2 * n,
                      .c2 = k + C2 * n,
                      .d2 = k + D2 * n,
                      .e2 = k + E2 * n,
                      .ggy = data_at<T>(ggy, at),
                      .gx = data_at<T>(gx, at),
                      .sum_ug = data_at<T>(sums_ug, begin / rows.grain * n),
                      .rows = end - begin,
                      .channels = n});
  });
}

/// The sums of a moving gradient, whose argument moves along dgy and whose x along u.
struct TangentSums {
  FirstSums dg;
  Sums u;
};

/// These sums and, where they have a tensor, dg itself and s · dg + ds · g.
template <class T>
TangentSums tangent_pass(const Rows& rows, const Tensor& dgy, const Tensor& u, const Tensor& gy,
                         const Tensor& x, const Tensor& y, const Tensor& mean, const Tensor& s,
                         const Tensor& ds, const Tensor& gx, const Tensor& masked) {
  const std::int64_t n = rows.channels;
  std::array<Tensor, 5> partial;
  for (Tensor& sums : partial) sums = Tensor::empty({rows.chunks(), n}, x.dtype());
  parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t at = begin * n, chunk = begin / rows.grain * n;
    run(TangentRows<T>{.dgy = data_at<T>(dgy, at),
                       .u = data_at<T>(u, at),
                       .gy = gy.data<T>() + at,
                       .y = data_at<T>(y, at),
                       .x = x.data<T>() + at,
                       .mean = optional_data<T>(mean),
                       .s = optional_data<T>(s),
                       .ds = optional_data<T>(ds),
                       .gx = data_at<T>(gx, at),
                       .masked = data_at<T>(masked, at),
                       .sum_dg = partial[0].data<T>() + chunk,
                       .sum_dgx = partial[1].data<T>() + chunk,
                       .sum_u = partial[2].data<T>() + chunk,
                       .sum_ux = partial[3].data<T>() + chunk,
                       .sum_ug = partial[4].data<T>() + chunk,
                       .rows = end - begin,
                       .channels = n});
  });
  const auto total = [&](std::size_t which) { return combine<T>(partial[which], rows.chunks(), n); };
  return {{total(0), total(1)}, {total(2), total(3), total(4)}};
}

void check_cotangents(const NormGradients& u, const Rows& rows, const Tensor& x, std::string_view op) {
  for (const Tensor* t : {&u.x, &u.residual}) {
    if (t->defined()) check_same(*t, x, op);
  }
  for (const Tensor* t : {&u.scale, &u.shift}) {
    if (t->defined()) check_channels(*t, rows, x, op);
  }
}

}  // namespace

NormGradients affine_backward(const Tensor& gy, const Tensor& x, const Tensor& s, const Tensor& y,
                              const NormWants& wants) {
  constexpr std::string_view op = "affine_backward";
  check_operands(gy, x, s, y, op);
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    NormGradients result;
    const Target gx = target(wants.x, wants.x_sum, x, op), masked = residual_target(wants, y, x, op);
    const FirstSums sums = first_pass<T>(Rows(x, op), gy, x, y, {}, s, gx, masked, {});
    result.x = gx.tensor;
    if (wants.residual) result.residual = masked.tensor.defined() ? masked.tensor : gy;
    result.scale = to_tensor<T>(sums.gx);
    result.shift = to_tensor<T>(sums.g);
    return result;
  });
}

namespace {

/// What batch norm's gradient is per channel: gx = γ s (g − mean(g) − x̂ mean(g x̂)) with s = inv_std, x̂ = (x −
/// μ) s, which is a · g + b · x + c.
struct BatchNormSlopes {
  double a, b, c;
};

template <class T>
BatchNormSlopes batch_norm_slopes(const FirstSums& sums, const Tensor& gamma, const Tensor& mean,
                                  const Tensor& inv_std, std::int64_t channel, double count) {
  const auto i = static_cast<std::size_t>(channel);
  const double s = value<T>(inv_std, channel);
  const double a = value<T>(gamma, channel) * s;
  const double b = -a * s * s * sums.gx[i] / count;
  return {a, b, -a * sums.g[i] / count - b * value<T>(mean, channel)};
}

}  // namespace

NormGradients batch_norm_backward(const Tensor& gy, const Tensor& x, const Tensor& gamma, const Tensor& mean,
                                  const Tensor& inv_std, const Tensor& y, const NormWants& wants,
                                  const NormMap& map) {
  constexpr std::string_view op = "batch_norm_backward";
  check_operands(gy, x, gamma, y, op);
  if (map.s.defined()) {
    check_channels(map.s, Rows(x, op), x, op);
    check_channels(map.t, Rows(x, op), x, op);
  }
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    const Rows rows(x, op);
    const std::int64_t n = rows.channels;
    NormGradients result;
    const Target masked = residual_target(wants, y, x, op);
    FirstSums sums = first_pass<T>(rows, gy, x, y, mean, {}, {}, masked, map);
    if (wants.residual) result.residual = masked.tensor.defined() ? masked.tensor : gy;

    const Tensor a = Tensor::empty({n}, x.dtype()), b = Tensor::empty({n}, x.dtype()),
                 c = Tensor::empty({n}, x.dtype());
    const auto count = static_cast<double>(rows.rows);
    for (std::int64_t k = 0; k < n; ++k) {
      const BatchNormSlopes slopes = batch_norm_slopes<T>(sums, gamma, mean, inv_std, k, count);
      a.data<T>()[k] = static_cast<T>(slopes.a);
      b.data<T>()[k] = static_cast<T>(slopes.b);
      c.data<T>()[k] = static_cast<T>(slopes.c);
      sums.gx[static_cast<std::size_t>(k)] *= value<T>(inv_std, k);
    }
    result.scale = to_tensor<T>(sums.gx);
    result.shift = to_tensor<T>(sums.g);
    if (!wants.x) return result;
    const Target gx = target(true, wants.x_sum, x, op);
    result.x = gx.tensor;
    // The masked gradient, where it was written by itself, saves reading the mask again.
    const bool written = masked.tensor.defined() && !masked.add;
    const Tensor& g = written ? result.residual : gy;
    const Tensor mask = written ? Tensor() : y;
    parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t at = begin * n;
      run(CombineRows<T>{.gy = g.data<T>() + at,
                         .y = data_at<T>(mask, at),
                         .x = x.data<T>() + at,
                         .a = a.data<T>(),
                         .b = b.data<T>(),
                         .c = c.data<T>(),
                         .ms = written ? nullptr : optional_data<T>(map.s),
                         .mt = written ? nullptr : optional_data<T>(map.t),
                         .gx = gx.tensor.template data<T>() + at,
                         .add = gx.add,
                         .rows = end - begin,
                         .channels = n});
    });
    return result;
  });
}

NormSecondGradients affine_double_backward(const NormGradients& u, const Tensor& gy, const Tensor& x,
                                           const Tensor& s, const Tensor& y) {
  constexpr std::string_view op = "affine_double_backward";
  check_operands(gy, x, s, y, op);
  const Rows rows(x, op);
  check_cotangents(u, rows, x, op);
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    // ⟨u, s g⟩ + ⟨v, Σ g x⟩ + ⟨w, Σ g⟩ + ⟨r, g⟩ is linear in g: ggy = s u + v x + w + r where the ReLU
    // passed. It depends on x through v g x, and on s through s Σ u g.
    const std::int64_t n = rows.channels;
    const Tensor k = Tensor::zeros({kCoefficients, n}, x.dtype());
    for (std::int64_t c = 0; c < n; ++c) {
      T* const at = k.data<T>() + c;
      at[A1 * n] = s.data<T>()[c];
      at[B1 * n] = at[B2 * n] = static_cast<T>(value<T>(u.scale, c));
      at[C1 * n] = static_cast<T>(value<T>(u.shift, c));
    }
    NormSecondGradients result{Tensor::empty_like(x), Tensor::empty_like(x), {}};
    const Tensor sums_ug = Tensor::empty({rows.chunks(), n}, x.dtype());
    second_pass<T>(rows, u, {}, gy, x, y, k, result.gy, result.x, sums_ug);
    result.scale = to_tensor<T>(combine<T>(sums_ug, rows.chunks(), n));
    return result;
  });
}

namespace {

/// The second order of batch norm: the coefficients of its pass, except E2, and the gradient in gamma.
struct BatchNormSecond {
  Tensor coefficients, scale;
};

template <class T>
BatchNormSecond batch_norm_second(const NormGradients& u, const Sums& sums, const NormGradients& first,
                                  const Tensor& gamma, const Tensor& mean, const Tensor& inv_std,
                                  std::int64_t row_count) {
  // With P(g) = g − mean(g) − x̂ mean(g x̂), which is self-adjoint, the first order is gx = γ s P(g), Σ g x̂,
  // Σ g and g. Its product with the cotangents (u, v, w, r) is
  //   F = γ s ⟨u, P g⟩ + v Σ g x̂ + w Σ g + ⟨r, g⟩.
  // In g:  γ s P(u) + v x̂ + w + r where the ReLU passed.
  // In γ:  s ⟨u, P g⟩.
  // In x̂:  h = −γ s mean(g x̂) u + (v − γ s mean(u x̂)) g. A change of x changes x̂ by s P(·), which is
  // self-adjoint,
  //        and s by −s² mean(x̂ ·), so the gradient in x is s P(h) − s² γ ⟨u, P g⟩ x̂ / N.
  const std::int64_t n = gamma.numel();
  const auto count = static_cast<double>(row_count);
  const Tensor k = Tensor::zeros({kCoefficients, n}, gamma.dtype());
  const Tensor scale = Tensor::empty_like(gamma);
  for (std::int64_t c = 0; c < n; ++c) {
    const auto i = static_cast<std::size_t>(c);
    const double s = value<T>(inv_std, c), mu = value<T>(mean, c), gs = value<T>(gamma, c) * s;
    const double v = value<T>(u.scale, c), w = value<T>(u.shift, c);
    const double mean_u = sums.u[i] / count, mean_ux = sums.ux[i] * s / count;
    const double mean_g = value<T>(first.shift, c) / count, mean_gx = value<T>(first.scale, c) / count;
    const double u_pg = sums.ug[i] - count * (mean_u * mean_g + mean_ux * mean_gx);
    scale.data<T>()[c] = static_cast<T>(s * u_pg);

    const double along_x = s * (v - gs * mean_ux);
    const double h_u = -gs * mean_gx, h_g = v - gs * mean_ux;
    const double mean_h = h_u * mean_u + h_g * mean_g, mean_hx = h_u * mean_ux + h_g * mean_gx;
    const double x_slope = -s * (s * mean_hx + s * gs * u_pg / count);
    const auto set = [&](Coefficient which, double number) {
      k.data<T>()[which * n + c] = static_cast<T>(number);
    };
    set(A1, gs);
    set(B1, along_x);
    set(C1, w - gs * mean_u - along_x * mu);
    set(A2, s * h_u);
    set(B2, s * h_g);
    set(C2, x_slope);
    set(D2, -s * mean_h - x_slope * mu);
  }
  return {k, scale};
}

}  // namespace

NormSecondGradients batch_norm_double_backward(const NormGradients& u, const NormGradients& first,
                                               const Tensor& gy, const Tensor& x, const Tensor& gamma,
                                               const Tensor& mean, const Tensor& inv_std, const Tensor& y) {
  constexpr std::string_view op = "batch_norm_double_backward";
  check_operands(gy, x, gamma, y, op);
  const Rows rows(x, op);
  check_cotangents(u, rows, x, op);
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    const Sums sums = second_pass_sums<T>(rows, u.x, gy, x, y, mean);
    const BatchNormSecond second = batch_norm_second<T>(u, sums, first, gamma, mean, inv_std, rows.rows);
    NormSecondGradients result{Tensor::empty_like(x), Tensor::empty_like(x), second.scale};
    second_pass<T>(rows, u, {}, gy, x, y, second.coefficients, result.gy, result.x);
    return result;
  });
}

Tensor affine_tangent(const NormGradients& tangents, const Tensor& x, const Tensor& s, const Tensor& y) {
  constexpr std::string_view op = "affine_tangent";
  check_operands(x, x, s, y, op);
  const Rows rows(x, op);
  check_cotangents(tangents, rows, x, op);
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    // What multiplies the tangents is what multiplies cotangents in the second order: the map's Jacobian.
    const std::int64_t n = rows.channels;
    const Tensor k = Tensor::zeros({kCoefficients, n}, x.dtype());
    for (std::int64_t c = 0; c < n; ++c) {
      T* const at = k.data<T>() + c;
      at[A1 * n] = s.data<T>()[c];
      at[B1 * n] = static_cast<T>(value<T>(tangents.scale, c));
      at[C1 * n] = static_cast<T>(value<T>(tangents.shift, c));
    }
    Tensor dy = Tensor::empty_like(x);
    second_pass<T>(rows, tangents, {}, {}, x, y, k, dy, {});
    return dy;
  });
}

Tensor batch_norm_tangent(const NormGradients& tangents, const Tensor& x, const Tensor& gamma,
                          const Tensor& mean, const Tensor& inv_std, const Tensor& y) {
  constexpr std::string_view op = "batch_norm_tangent";
  check_operands(x, x, gamma, y, op);
  const Rows rows(x, op);
  check_cotangents(tangents, rows, x, op);
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    // dy = γ s P(dx) + dγ x̂ + dβ + dr where the ReLU passed, with P from batch_norm_second.
    const std::int64_t n = rows.channels;
    const auto count = static_cast<double>(rows.rows);
    const std::vector<double> zeros(static_cast<std::size_t>(n));
    const FirstSums sums = tangents.x.defined() ? first_pass<T>(rows, tangents.x, x, {}, mean, {}, {}, {}, {})
                                                : FirstSums{zeros, zeros};
    const Tensor k = Tensor::zeros({kCoefficients, n}, x.dtype());
    for (std::int64_t c = 0; c < n; ++c) {
      const auto i = static_cast<std::size_t>(c);
      const double s = value<T>(inv_std, c), gs = value<T>(gamma, c) * s;
      const double along_x = s * (value<T>(tangents.scale, c) - gs * sums.gx[i] * s / count);
      T* const at = k.data<T>() + c;
      at[A1 * n] = static_cast<T>(gs);
      at[B1 * n] = static_cast<T>(along_x);
      at[C1 * n] =
          static_cast<T>(value<T>(tangents.shift, c) - gs * sums.g[i] / count - along_x * value<T>(mean, c));
    }
    Tensor dy = Tensor::empty_like(x);
    second_pass<T>(rows, tangents, {}, {}, x, y, k, dy, {});
    return dy;
  });
}

namespace {

/// Where the moving gradient of the residual goes: nowhere if dgy is it already.
Tensor moving_residual(const NormWants& wants, const Tensor& dgy, const Tensor& y) {
  return wants.residual && dgy.defined() && y.defined() ? Tensor::empty_like(dgy) : Tensor();
}

}  // namespace

NormGradients affine_backward_tangent(const Tensor& dgy, const Tensor& dx, const Tensor& ds, const Tensor& gy,
                                      const Tensor& x, const Tensor& s, const Tensor& y,
                                      const NormWants& wants) {
  constexpr std::string_view op = "affine_backward_tangent";
  check_operands(gy, x, s, y, op);
  const Rows rows(x, op);
  check_cotangents({.x = dx, .scale = ds, .shift = {}, .residual = dgy}, rows, x, op);
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    // s · dg + ds · g, Σ dg x + Σ g dx, Σ dg and dg.
    NormGradients result;
    if (wants.x && (dgy.defined() || ds.defined())) result.x = Tensor::empty_like(x);
    const Tensor masked = moving_residual(wants, dgy, y);
    TangentSums sums = tangent_pass<T>(rows, dgy, dx, gy, x, y, {}, s, ds, result.x, masked);
    if (wants.residual) result.residual = masked.defined() ? masked : dgy;
    std::transform(sums.dg.gx.begin(), sums.dg.gx.end(), sums.u.ug.begin(), sums.u.ug.begin(), std::plus<>());
    result.scale = to_tensor<T>(sums.u.ug);
    result.shift = to_tensor<T>(sums.dg.g);
    return result;
  });
}

NormGradients batch_norm_backward_tangent(const Tensor& dgy, const Tensor& dx, const Tensor& dgamma,
                                          const NormGradients& first, const Tensor& gy, const Tensor& x,
                                          const Tensor& gamma, const Tensor& mean, const Tensor& inv_std,
                                          const Tensor& y, const NormWants& wants) {
  constexpr std::string_view op = "batch_norm_backward_tangent";
  check_operands(gy, x, gamma, y, op);
  const Rows rows(x, op);
  const NormGradients moved{.x = dx, .scale = dgamma, .shift = {}, .residual = {}};
  check_cotangents(moved, rows, x, op);
  if (dgy.defined()) check_same(dgy, x, op);
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    // In gy the gradient is linear. In (x, gamma) its Jacobian is the Hessian of ⟨gy, y⟩, which is symmetric:
    // what it makes of tangents is what the second order makes of cotangents.
    NormGradients result;
    const Tensor masked = moving_residual(wants, dgy, y);
    const TangentSums sums = tangent_pass<T>(rows, dgy, dx, gy, x, y, mean, {}, {}, {}, masked);
    if (wants.residual) result.residual = masked.defined() ? masked : dgy;
    const BatchNormSecond second =
        batch_norm_second<T>(moved, sums.u, first, gamma, mean, inv_std, rows.rows);
    const Tensor& k = second.coefficients;
    const std::int64_t n = rows.channels;
    for (std::int64_t c = 0; c < n; ++c) {
      const BatchNormSlopes slopes =
          batch_norm_slopes<T>(sums.dg, gamma, mean, inv_std, c, static_cast<double>(rows.rows));
      T* const at = k.data<T>() + c;
      at[E2 * n] = static_cast<T>(slopes.a);
      at[C2 * n] += static_cast<T>(slopes.b);
      at[D2 * n] += static_cast<T>(slopes.c);
      second.scale.data<T>()[c] +=
          static_cast<T>(value<T>(inv_std, c) * sums.dg.gx[static_cast<std::size_t>(c)]);
    }
    result.scale = second.scale;
    result.shift = to_tensor<T>(sums.dg.g);
    if (!wants.x) return result;
    result.x = Tensor::empty_like(x);
    second_pass<T>(rows, moved, dgy, gy, x, y, k, {}, result.x);
    return result;
  });
}

}  // namespace goshawk::kernels
#endif
