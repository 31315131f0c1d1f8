// The second derivative of normalisations.
#include "core/kernels/norm.hpp"
#include "core/kernels/norm_passes.hpp"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/norm_second.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#ifndef GOSHAWK_CORE_KERNELS_NORM_SECOND_ARGS
#define GOSHAWK_CORE_KERNELS_NORM_SECOND_ARGS
namespace goshawk::kernels {

// Runs of rows of [rows, channels] operands; pointers that may be null say so.

/// Sums of u, u (x − mean) and u g.
template <class T>
struct SecondSums {
  const T *u, *gy, *y, *x;     // y null: no mask
  const T* mean;               // [channels]
  const T *ms, *mt;            // as in BackwardRows
  T *sum_u, *sum_ux, *sum_ug;  // [channels]
  std::int64_t rows, channels;
};

/// ggy = (a1 · u + r + b1 · x + c1) but 0 where y ≤ 0; gx = a2 · u + b2 · g + c2 · x + d2 + e2 · dg; the sum
/// of u g.
template <class T>
struct SecondRows {
  const T *u, *r, *dgy, *gy, *y, *x;  // u, r and dgy null: 0; gy null: no gx, no sum; y null: no mask
  const T *ms, *mt;                   // as in BackwardRows
  const T *a1, *b1, *c1, *a2, *b2, *c2, *d2, *e2;
  T *ggy, *gx;  // null: not wanted
  T* sum_ug;    // [channels]; null: not wanted, else gx is
  std::int64_t rows, channels;
};

}  // namespace goshawk::kernels
#endif

#include "core/kernels/norm_rows-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {

template <class T, Mask kMask>
struct SecondSumsBody {
  const SecondSums<T>& p;
  template <class D>
  struct Coefficients {
    hn::Vec<D> mean, ms, mt;
  };
  template <class D>
  struct Sums {
    hn::Vec<D> u, ux, ug;
  };
  template <class D>
  HWY_INLINE HWY_ATTR Coefficients<D> load(D d, std::int64_t c) const {
    return {per_channel(d, p.mean, c), per_channel(d, p.ms, c), per_channel(d, p.mt, c)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR Sums<D> zero(D d) const {
    return {hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR void add(D d, std::int64_t i, const Coefficients<D>& k, Sums<D>& sums) const {
    const auto u = hn::LoadU(d, p.u + i), x = hn::LoadU(d, p.x + i);
    const auto y = relu_output<kMask>(d, p.y, i, x, k.ms, k.mt);
    sums.u = hn::Add(sums.u, u);
    sums.ux = hn::MulAdd(u, hn::Sub(x, k.mean), sums.ux);
    sums.ug = hn::MulAdd(u, passed<kMask>(y, hn::LoadU(d, p.gy + i)), sums.ug);
  }
  template <class D>
  HWY_INLINE HWY_ATTR void store(D d, std::int64_t c, const Sums<D>& even, const Sums<D>& odd) const {
    hn::StoreU(hn::Add(even.u, odd.u), d, p.sum_u + c);
    hn::StoreU(hn::Add(even.ux, odd.ux), d, p.sum_ux + c);
    hn::StoreU(hn::Add(even.ug, odd.ug), d, p.sum_ug + c);
  }
};

template <class T, Mask kMask, bool kU, bool kResidual>
struct SecondBody {
  const SecondRows<T>& p;
  template <class D>
  struct Coefficients {
    hn::Vec<D> a1, b1, c1, a2, b2, c2, d2, e2, ms, mt;
  };
  template <class D>
  struct Sums {
    hn::Vec<D> ug;
  };
  template <class D>
  HWY_INLINE HWY_ATTR Coefficients<D> load(D d, std::int64_t c) const {
    const auto at = [&](const T* v) HWY_ATTR { return per_channel(d, v, c); };
    return {at(p.a1), at(p.b1), at(p.c1), at(p.a2), at(p.b2),
            at(p.c2), at(p.d2), at(p.e2), at(p.ms), at(p.mt)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR Sums<D> zero(D d) const {
    return {hn::Zero(d)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR void add(D d, std::int64_t i, const Coefficients<D>& k, Sums<D>& sums) const {
    const auto x = hn::LoadU(d, p.x + i);
    const auto u = kU ? hn::LoadU(d, p.u + i) : hn::Zero(d);
    const auto y = relu_output<kMask>(d, p.y, i, x, k.ms, k.mt);
    if (p.ggy != nullptr) {
      auto ggy = hn::MulAdd(k.b1, x, k.c1);
      if constexpr (kU) ggy = hn::MulAdd(k.a1, u, ggy);
      if constexpr (kResidual) ggy = hn::Add(ggy, hn::LoadU(d, p.r + i));
      hn::StoreU(passed<kMask>(y, ggy), d, p.ggy + i);
    }
    if (p.gx != nullptr) {
      const auto g = passed<kMask>(y, hn::LoadU(d, p.gy + i));
      auto gx = hn::MulAdd(k.c2, x, k.d2);
      if constexpr (kU) {
        gx = hn::MulAdd(k.a2, u, gx);
        sums.ug = hn::MulAdd(u, g, sums.ug);
      }
      if (p.dgy != nullptr) gx = hn::MulAdd(k.e2, passed<kMask>(y, hn::LoadU(d, p.dgy + i)), gx);
      hn::StoreU(hn::MulAdd(k.b2, g, gx), d, p.gx + i);
    }
  }
  template <class D>
  HWY_INLINE HWY_ATTR void store(D d, std::int64_t c, const Sums<D>& even, const Sums<D>& odd) const {
    if (p.sum_ug != nullptr) hn::StoreU(hn::Add(even.ug, odd.ug), d, p.sum_ug + c);
  }
};

template <class T>
void second_sums(const SecondSums<T>& p) {
  with_mask(p, [&]<Mask kMask>() HWY_ATTR {
    const SecondSumsBody<T, kMask> body{p};
    over_slabs<T, kSumVectors>(p.channels, SumSlab<2, SecondSumsBody<T, kMask>>{body, p.rows, p.channels});
  });
}

template <class T, Mask kMask, bool kU, bool kResidual>
void second(const SecondRows<T>& p) {
  const SecondBody<T, kMask, kU, kResidual> body{p};
  over_slabs<T, kSumVectors>(p.channels, SumSlab<2, decltype(body)>{body, p.rows, p.channels});
}

template <class T>
void second(const SecondRows<T>& p) {
  with_mask(p, [&]<Mask kMask>() HWY_ATTR {
    if (p.u != nullptr) {
      p.r != nullptr ? second<T, kMask, true, true>(p) : second<T, kMask, true, false>(p);
    } else {
      p.r != nullptr ? second<T, kMask, false, true>(p) : second<T, kMask, false, false>(p);
    }
  });
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

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk::kernels {
namespace {

HWY_EXPORT(SecondSumsF32);
HWY_EXPORT(SecondSumsF64);
HWY_EXPORT(SecondF32);
HWY_EXPORT(SecondF64);

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

/// Zeros where u is undefined.
template <class T>
SecondOrderSums second_pass_sums(const Rows& rows, const Tensor& u, const Tensor& gy, const Tensor& x,
                                 const Tensor& y, const Tensor& mean, const NormMap& map) {
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
                      .ms = optional_data<T>(map.s),
                      .mt = optional_data<T>(map.t),
                      .sum_u = sums_u.data<T>() + chunk,
                      .sum_ux = sums_ux.data<T>() + chunk,
                      .sum_ug = sums_ug.data<T>() + chunk,
                      .rows = end - begin,
                      .channels = n});
  });
  return {combine<T>(sums_u, rows.chunks(), n), combine<T>(sums_ux, rows.chunks(), n),
          combine<T>(sums_ug, rows.chunks(), n)};
}

}  // namespace

void second_pass(const Rows& rows, std::span<const SecondOrder> directions, const Tensor& gy, const Tensor& x,
                 const Tensor& y, const NormMap& map) {
  const std::int64_t n = rows.channels;
  dispatch_floating(x.dtype(), "norm", [&]<class T>() {
    parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t at = begin * n;
      // A chunk is in the cache for all directions but the first.
      for (const SecondOrder& direction : directions) {
        const T* k = direction.coefficients.template data<T>();
        run(SecondRows<T>{.u = data_at<T>(direction.u, at),
                          .r = data_at<T>(direction.r, at),
                          .dgy = data_at<T>(direction.dgy, at),
                          .gy = data_at<T>(gy, at),
                          .y = data_at<T>(y, at),
                          .x = x.data<T>() + at,
                          .ms = optional_data<T>(map.s),
                          .mt = optional_data<T>(map.t),
                          .a1 = k + A1 * n,
                          .b1 = k + B1 * n,
                          .c1 = k + C1 * n,
                          .a2 = k + A2 * n,
                          .b2 = k + B2 * n,
                          .c2 = k + C2 * n,
                          .d2 = k + D2 * n,
                          .e2 = k + E2 * n,
                          .ggy = data_at<T>(direction.ggy, at),
                          .gx = data_at<T>(direction.gx, at),
                          .sum_ug = data_at<T>(direction.sums_ug, begin / rows.grain * n),
                          .rows = end - begin,
                          .channels = n});
      }
    });
  });
}

Tensor affine_coefficients(const Tensor& slope, const Tensor& scale, const Tensor& shift) {
  const std::int64_t n = slope.numel();
  Tensor k = Tensor::zeros({kCoefficients, n}, slope.dtype());
  dispatch_floating(slope.dtype(), "norm", [&]<class T>() {
    for (std::int64_t c = 0; c < n; ++c) {
      T* const at = k.data<T>() + c;
      at[A1 * n] = slope.data<T>()[c];
      at[B1 * n] = static_cast<T>(value<T>(scale, c));
      at[C1 * n] = static_cast<T>(value<T>(shift, c));
    }
  });
  return k;
}

BatchNormSecond batch_norm_second(const NormGradients& u, const SecondOrderSums& sums,
                                  const NormGradients& first, const Tensor& gamma, const Tensor& mean,
                                  const Tensor& inv_std, std::int64_t row_count) {
  return dispatch_floating(gamma.dtype(), "norm", [&]<class T>() {
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
    return BatchNormSecond{k, scale};
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
    const Tensor k = affine_coefficients(s, u.scale, u.shift);
    std::copy_n(k.data<T>() + B1 * n, n, k.data<T>() + B2 * n);
    const SecondOrder pass{.u = u.x,
                           .r = u.residual,
                           .dgy = {},
                           .coefficients = k,
                           .ggy = Tensor::empty_like(x),
                           .gx = Tensor::empty_like(x),
                           .sums_ug = Tensor::empty({rows.chunks(), n}, x.dtype())};
    second_pass(rows, std::span(&pass, 1), gy, x, y, {});
    return NormSecondGradients{pass.ggy, pass.gx, to_tensor<T>(combine<T>(pass.sums_ug, rows.chunks(), n))};
  });
}

NormSecondGradients batch_norm_double_backward(const NormGradients& u, const NormGradients& first,
                                               const Tensor& gy, const Tensor& x, const Tensor& gamma,
                                               const Tensor& mean, const Tensor& inv_std, const Tensor& y,
                                               const NormMap& map) {
  constexpr std::string_view op = "batch_norm_double_backward";
  check_operands(gy, x, gamma, y, op);
  const Rows rows(x, op);
  check_statistics(mean, inv_std, rows, x, op);
  check_map(map, rows, x, op);
  check_cotangents(u, rows, x, op);
  check_cotangents(first, rows, x, op);
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    const SecondOrderSums sums = second_pass_sums<T>(rows, u.x, gy, x, y, mean, map);
    const BatchNormSecond second = batch_norm_second(u, sums, first, gamma, mean, inv_std, rows.rows);
    const SecondOrder pass{.u = u.x,
                           .r = u.residual,
                           .dgy = {},
                           .coefficients = second.coefficients,
                           .ggy = Tensor::empty_like(x),
                           .gx = Tensor::empty_like(x),
                           .sums_ug = {}};
    second_pass(rows, std::span(&pass, 1), gy, x, y, map);
    return NormSecondGradients{pass.ggy, pass.gx, second.scale};
  });
}

}  // namespace goshawk::kernels
#endif
