// How normalisations and their gradients move with their inputs, along several directions in one pass over
// what the directions share.
#include <algorithm>
#include <array>
#include <functional>

#include "core/kernels/norm.hpp"
#include "core/kernels/norm_passes.hpp"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/norm_tangent.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#ifndef GOSHAWK_CORE_KERNELS_NORM_TANGENT_ARGS
#define GOSHAWK_CORE_KERNELS_NORM_TANGENT_ARGS
namespace goshawk::kernels {

// Runs of rows of [rows, channels] operands; pointers that may be null say so.

/// gx = s · dg + ds · g, masked = dg, and sums of dg, dg (x − mean), u, u (x − mean) and u g.
template <class T>
struct TangentRows {
  const T *dgy, *u, *gy, *y, *x;  // dgy and u null: 0; y null: no mask
  const T *mean, *s, *ds;         // [channels]; null: 0
  const T *ms, *mt;               // as in BackwardRows
  T *gx, *masked;                 // null: not wanted
  T *sum_dg, *sum_dgx, *sum_u, *sum_ux, *sum_ug;
  std::int64_t rows, channels;
};

}  // namespace goshawk::kernels
#endif

#include "core/kernels/norm_rows-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {

template <class T, Mask kMask>
struct TangentBody {
  const TangentRows<T>& p;
  template <class D>
  struct Coefficients {
    hn::Vec<D> mean, s, ds, ms, mt;
  };
  template <class D>
  struct Sums {
    hn::Vec<D> dg, dgx, u, ux, ug;
  };
  template <class D>
  HWY_INLINE HWY_ATTR Coefficients<D> load(D d, std::int64_t c) const {
    const auto at = [&](const T* v) HWY_ATTR { return per_channel(d, v, c); };
    return {at(p.mean), at(p.s), at(p.ds), at(p.ms), at(p.mt)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR Sums<D> zero(D d) const {
    return {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  }
  template <class D>
  HWY_INLINE HWY_ATTR void add(D d, std::int64_t i, const Coefficients<D>& k, Sums<D>& sums) const {
    const auto x = hn::LoadU(d, p.x + i), centred = hn::Sub(x, k.mean);
    const auto y = relu_output<kMask>(d, p.y, i, x, k.ms, k.mt);
    const auto g = passed<kMask>(y, hn::LoadU(d, p.gy + i));
    const auto dg = p.dgy == nullptr ? hn::Zero(d) : passed<kMask>(y, hn::LoadU(d, p.dgy + i));
    if (p.masked != nullptr) hn::StoreU(dg, d, p.masked + i);
    if (p.gx != nullptr) hn::StoreU(hn::MulAdd(k.s, dg, hn::Mul(k.ds, g)), d, p.gx + i);
    sums.dg = hn::Add(sums.dg, dg);
    sums.dgx = hn::MulAdd(dg, centred, sums.dgx);
    if (p.u == nullptr) return;
    const auto u = hn::LoadU(d, p.u + i);
    sums.u = hn::Add(sums.u, u);
    sums.ux = hn::MulAdd(u, centred, sums.ux);
    sums.ug = hn::MulAdd(u, g, sums.ug);
  }
  template <class D>
  HWY_INLINE HWY_ATTR void store(D d, std::int64_t c, const Sums<D>& sums) const {
    hn::StoreU(sums.dg, d, p.sum_dg + c);
    hn::StoreU(sums.dgx, d, p.sum_dgx + c);
    hn::StoreU(sums.u, d, p.sum_u + c);
    hn::StoreU(sums.ux, d, p.sum_ux + c);
    hn::StoreU(sums.ug, d, p.sum_ug + c);
  }
};

template <class T>
void tangent(const TangentRows<T>& p) {
  with_mask(p, [&]<Mask kMask>() HWY_ATTR {
    const TangentBody<T, kMask> body{p};
    over_slabs<T, kSumVectors>(p.channels, SumSlab<1, TangentBody<T, kMask>>{body, p.rows, p.channels});
  });
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

HWY_EXPORT(TangentF32);
HWY_EXPORT(TangentF64);

void run(const TangentRows<float>& p) {
  HWY_DYNAMIC_DISPATCH(TangentF32)(p);
}
void run(const TangentRows<double>& p) {
  HWY_DYNAMIC_DISPATCH(TangentF64)(p);
}

/// A gradient moving along one direction: its argument along dgy, x along u and the slope along ds, where an
/// undefined one is zero. dg and s · dg + ds · g are written where they have a tensor.
struct Moving {
  Tensor dgy, u, ds;
  Tensor gx, masked;
};
struct MovingSums {
  FirstSums dg;
  SecondOrderSums u;
};

std::vector<MovingSums> tangent_pass(const Rows& rows, std::span<const Moving> directions, const Tensor& gy,
                                     const Tensor& x, const Tensor& y, const Tensor& mean, const Tensor& s,
                                     const NormMap& map) {
  const std::int64_t n = rows.channels;
  return dispatch_floating(x.dtype(), "norm", [&]<class T>() {
    using Partial = std::array<Tensor, 5>;
    std::vector<Partial> partial(directions.size());
    for (Partial& sums : partial) {
      for (Tensor& sum : sums) sum = Tensor::empty({rows.chunks(), n}, x.dtype());
    }
    parallel_for(rows.rows, rows.grain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t at = begin * n, chunk = begin / rows.grain * n;
      // A chunk is in the cache for all directions but the first.
      for (std::size_t d = 0; d < directions.size(); ++d) {
        const Moving& direction = directions[d];
        run(TangentRows<T>{.dgy = data_at<T>(direction.dgy, at),
                           .u = data_at<T>(direction.u, at),
                           .gy = gy.data<T>() + at,
                           .y = data_at<T>(y, at),
                           .x = x.data<T>() + at,
                           .mean = optional_data<T>(mean),
                           .s = optional_data<T>(s),
                           .ds = optional_data<T>(direction.ds),
                           .ms = optional_data<T>(map.s),
                           .mt = optional_data<T>(map.t),
                           .gx = data_at<T>(direction.gx, at),
                           .masked = data_at<T>(direction.masked, at),
                           .sum_dg = partial[d][0].template data<T>() + chunk,
                           .sum_dgx = partial[d][1].template data<T>() + chunk,
                           .sum_u = partial[d][2].template data<T>() + chunk,
                           .sum_ux = partial[d][3].template data<T>() + chunk,
                           .sum_ug = partial[d][4].template data<T>() + chunk,
                           .rows = end - begin,
                           .channels = n});
      }
    });
    std::vector<MovingSums> sums;
    for (const Partial& p : partial) {
      const auto total = [&](std::size_t which) { return combine<T>(p[which], rows.chunks(), n); };
      sums.push_back({{total(0), total(1)}, {total(2), total(3), total(4)}});
    }
    return sums;
  });
}

/// Where the moving gradient of the residual goes: nowhere if dgy is it already.
Tensor moving_residual(const NormWants& wants, const Tensor& dgy, const Tensor& y) {
  return wants.residual && dgy.defined() && y.defined() ? Tensor::empty_like(dgy) : Tensor();
}

/// The outputs' tangents: what multiplies the tangents of the inputs is what multiplies cotangents in the
/// second order, the map's Jacobian.
std::vector<Tensor> output_tangents(const Rows& rows, std::span<const NormGradients> tangents,
                                    const std::vector<Tensor>& coefficients, const Tensor& x, const Tensor& y,
                                    const NormMap& map) {
  std::vector<SecondOrder> passes;
  std::vector<Tensor> results;
  for (std::size_t d = 0; d < tangents.size(); ++d) {
    results.push_back(Tensor::empty_like(x));
    passes.push_back({.u = tangents[d].x,
                      .r = tangents[d].residual,
                      .dgy = {},
                      .coefficients = coefficients[d],
                      .ggy = results.back(),
                      .gx = {},
                      .sums_ug = {}});
  }
  second_pass(rows, passes, {}, x, y, map);
  return results;
}

}  // namespace

std::vector<Tensor> affine_tangents(std::span<const NormGradients> tangents, const Tensor& x, const Tensor& s,
                                    const Tensor& y) {
  constexpr std::string_view op = "affine_tangents";
  check_operands(x, x, s, y, op);
  const Rows rows(x, op);
  std::vector<Tensor> coefficients;
  for (const NormGradients& t : tangents) {
    check_cotangents(t, rows, x, op);
    coefficients.push_back(affine_coefficients(s, t.scale, t.shift));
  }
  return output_tangents(rows, tangents, coefficients, x, y, {});
}

std::vector<Tensor> batch_norm_tangents(std::span<const NormGradients> tangents, const Tensor& x,
                                        const Tensor& gamma, const Tensor& mean, const Tensor& inv_std,
                                        const Tensor& y, const NormMap& map) {
  constexpr std::string_view op = "batch_norm_tangents";
  check_operands(x, x, gamma, y, op);
  const Rows rows(x, op);
  check_statistics(mean, inv_std, rows, x, op);
  check_map(map, rows, x, op);
  // dy = γ s P(dx) + dγ x̂ + dβ + dr where the ReLU passed, with P from batch_norm_second.
  const std::int64_t n = rows.channels;
  const auto count = static_cast<double>(rows.rows);
  const std::vector<double> zeros(static_cast<std::size_t>(n));
  std::vector<Tensor> coefficients;
  for (const NormGradients& t : tangents) {
    check_cotangents(t, rows, x, op);
    const FirstSums sums =
        t.x.defined() ? first_pass(rows, t.x, x, {}, mean, {}, {}, {}, {}) : FirstSums{zeros, zeros};
    dispatch_floating(x.dtype(), op, [&]<class T>() {
      const Tensor slope = Tensor::empty_like(gamma), scale = Tensor::empty_like(gamma),
                   shift = Tensor::empty_like(gamma);
      for (std::int64_t c = 0; c < n; ++c) {
        const auto i = static_cast<std::size_t>(c);
        const double inv = value<T>(inv_std, c), gs = value<T>(gamma, c) * inv;
        const double along_x = inv * (value<T>(t.scale, c) - gs * sums.gx[i] * inv / count);
        slope.data<T>()[c] = static_cast<T>(gs);
        scale.data<T>()[c] = static_cast<T>(along_x);
        shift.data<T>()[c] =
            static_cast<T>(value<T>(t.shift, c) - gs * sums.g[i] / count - along_x * value<T>(mean, c));
      }
      coefficients.push_back(affine_coefficients(slope, scale, shift));
    });
  }
  return output_tangents(rows, tangents, coefficients, x, y, map);
}

std::vector<NormGradients> affine_backward_tangents(std::span<const NormMoves> moves, const Tensor& gy,
                                                    const Tensor& x, const Tensor& s, const Tensor& y,
                                                    const NormWants& wants) {
  constexpr std::string_view op = "affine_backward_tangents";
  check_operands(gy, x, s, y, op);
  const Rows rows(x, op);
  std::vector<Moving> passes;
  for (const NormMoves& m : moves) {
    check_cotangents({.x = m.x, .scale = m.scale, .shift = {}, .residual = m.gy}, rows, x, op);
    const bool gx = wants.x && (m.gy.defined() || m.scale.defined());
    passes.push_back(
        {m.gy, m.x, m.scale, gx ? Tensor::empty_like(x) : Tensor(), moving_residual(wants, m.gy, y)});
  }
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    // s · dg + ds · g, Σ dg x + Σ g dx, Σ dg and dg.
    std::vector<MovingSums> sums = tangent_pass(rows, passes, gy, x, y, {}, s, {});
    std::vector<NormGradients> results;
    for (std::size_t d = 0; d < moves.size(); ++d) {
      NormGradients& result = results.emplace_back();
      result.x = passes[d].gx;
      if (wants.residual) result.residual = passes[d].masked.defined() ? passes[d].masked : moves[d].gy;
      std::vector<double>& scale = sums[d].u.ug;
      std::transform(sums[d].dg.gx.begin(), sums[d].dg.gx.end(), scale.begin(), scale.begin(), std::plus<>());
      result.scale = to_tensor<T>(scale);
      result.shift = to_tensor<T>(sums[d].dg.g);
    }
    return results;
  });
}

std::vector<NormGradients> batch_norm_backward_tangents(std::span<const NormMoves> moves,
                                                        const NormGradients& first, const Tensor& gy,
                                                        const Tensor& x, const Tensor& gamma,
                                                        const Tensor& mean, const Tensor& inv_std,
                                                        const Tensor& y, const NormWants& wants,
                                                        const NormMap& map) {
  constexpr std::string_view op = "batch_norm_backward_tangents";
  check_operands(gy, x, gamma, y, op);
  const Rows rows(x, op);
  check_statistics(mean, inv_std, rows, x, op);
  check_map(map, rows, x, op);
  check_cotangents(first, rows, x, op);
  std::vector<Moving> passes;
  for (const NormMoves& m : moves) {
    check_cotangents({.x = m.x, .scale = m.scale, .shift = {}, .residual = m.gy}, rows, x, op);
    passes.push_back({m.gy, m.x, {}, {}, moving_residual(wants, m.gy, y)});
  }
  return dispatch_floating(x.dtype(), op, [&]<class T>() {
    // In gy the gradient is linear. In (x, gamma) its Jacobian is the Hessian of ⟨gy, y⟩, which is symmetric:
    // what it makes of tangents is what the second order makes of cotangents.
    const std::vector<MovingSums> sums = tangent_pass(rows, passes, gy, x, y, mean, {}, map);
    std::vector<NormGradients> results;
    std::vector<SecondOrder> second_passes;
    const std::int64_t n = rows.channels;
    for (std::size_t d = 0; d < moves.size(); ++d) {
      NormGradients& result = results.emplace_back();
      if (wants.residual) result.residual = passes[d].masked.defined() ? passes[d].masked : moves[d].gy;
      const BatchNormSecond second =
          batch_norm_second({.x = moves[d].x, .scale = moves[d].scale, .shift = {}, .residual = {}},
                            sums[d].u, first, gamma, mean, inv_std, rows.rows);
      const Tensor& k = second.coefficients;
      for (std::int64_t c = 0; c < n; ++c) {
        const BatchNormSlopes slopes =
            batch_norm_slopes(sums[d].dg, gamma, mean, inv_std, c, static_cast<double>(rows.rows));
        T* const at = k.data<T>() + c;
        at[E2 * n] = static_cast<T>(slopes.a);
        at[C2 * n] += static_cast<T>(slopes.b);
        at[D2 * n] += static_cast<T>(slopes.c);
        second.scale.data<T>()[c] +=
            static_cast<T>(value<T>(inv_std, c) * sums[d].dg.gx[static_cast<std::size_t>(c)]);
      }
      result.scale = second.scale;
      result.shift = to_tensor<T>(sums[d].dg.g);
      if (!wants.x) continue;
      result.x = Tensor::empty_like(x);
      second_passes.push_back({.u = moves[d].x,
                               .r = {},
                               .dgy = moves[d].gy,
                               .coefficients = k,
                               .ggy = {},
                               .gx = result.x,
                               .sums_ug = {}});
    }
    if (wants.x) second_pass(rows, second_passes, gy, x, y, map);
    return results;
  });
}

}  // namespace goshawk::kernels
#endif
