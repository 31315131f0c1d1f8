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
  const T *u, *gy, *y, *x, *mean;  // y null: no mask
  T *sum_u, *sum_ux, *sum_ug;      // [channels]
  std::int64_t rows, channels;
};

/// ggy = (a1 · u + r + b1 · x + c1) but 0 where y ≤ 0; gx = a2 · u + b2 · g + c2 · x + d2 + e2 · dg; the sum
/// of u g.
template <class T>
struct SecondRows {
  const T *u, *r, *dgy, *gy, *y, *x;  // u, r and dgy null: 0; gy null: no gx, no sum; y null: no mask
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
      const auto passed = [&](auto value) HWY_ATTR { return kMask ? past_relu(y, value) : value; };
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
                                 const Tensor& y, const Tensor& mean) {
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

}  // namespace

void second_pass(const Rows& rows, std::span<const SecondOrder> directions, const Tensor& gy, const Tensor& x,
                 const Tensor& y) {
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
    second_pass(rows, std::span(&pass, 1), gy, x, y);
    return NormSecondGradients{pass.ggy, pass.gx, to_tensor<T>(combine<T>(pass.sums_ug, rows.chunks(), n))};
  });
}

NormSecondGradients batch_norm_double_backward(const NormGradients& u, const NormGradients& first,
                                               const Tensor& gy, const Tensor& x, const Tensor& gamma,
                                               const Tensor& mean, const Tensor& inv_std, const Tensor& y) {
  constexpr std::string_view op = "batch_norm_double_backward";
  check_operands(gy, x, gamma, y, op);
  const Rows rows(x, op);
  check_statistics(mean, inv_std, rows, x, op);
  check_cotangents(u, rows, x, op);
  check_cotangents(first, rows, x, op);
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    const SecondOrderSums sums = second_pass_sums<T>(rows, u.x, gy, x, y, mean);
    const BatchNormSecond second = batch_norm_second(u, sums, first, gamma, mean, inv_std, rows.rows);
    const SecondOrder pass{.u = u.x,
                           .r = u.residual,
                           .dgy = {},
                           .coefficients = second.coefficients,
                           .ggy = Tensor::empty_like(x),
                           .gx = Tensor::empty_like(x),
                           .sums_ug = {}};
    second_pass(rows, std::span(&pass, 1), gy, x, y);
    return NormSecondGradients{pass.ggy, pass.gx, second.scale};
  });
}

}  // namespace goshawk::kernels
#endif
