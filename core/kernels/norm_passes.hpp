// The passes over memory that the norm kernels are made of, and the per-channel numbers between them.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "core/kernels/channel_rows.hpp"
#include "core/kernels/norm.hpp"

namespace goshawk::kernels {

/// `t` from element `at` on, or null where it is undefined.
template <class T>
T* data_at(const Tensor& t, std::int64_t at) {
  return t.defined() ? t.data<T>() + at : nullptr;
}

/// A number per channel from a per-channel tensor; zero where it is undefined.
template <class T>
double value(const Tensor& t, std::int64_t channel) {
  return t.defined() ? static_cast<double>(t.data<T>()[channel]) : 0.0;
}

/// Throw Error naming `op` unless the operands fit to x.
void check_operands(const Tensor& gy, const Tensor& x, const Tensor& scale, const Tensor& y,
                    std::string_view op);
void check_statistics(const Tensor& mean, const Tensor& inv_std, const Rows& rows, const Tensor& x,
                      std::string_view op);
void check_map(const NormMap& map, const Rows& rows, const Tensor& x, std::string_view op);
void check_cotangents(const NormGradients& u, const Rows& rows, const Tensor& x, std::string_view op);

/// A gradient of x's size that a pass writes or adds to, if it is wanted.
struct NormTarget {
  Tensor tensor;  // undefined: not wanted
  bool add = false;
};

struct FirstSums {
  std::vector<double> g, gx;
};

/// Σ g, Σ g (x − mean) and, where they have a target, g itself and s · g. mean, s and map may be undefined.
FirstSums first_pass(const Rows& rows, const Tensor& gy, const Tensor& x, const Tensor& y, const Tensor& mean,
                     const Tensor& s, const NormTarget& gx, const NormTarget& masked, const NormMap& map);

/// What batch norm's gradient is per channel: gx = γ s (g − mean(g) − x̂ mean(g x̂)) with s = inv_std, x̂ = (x −
/// μ) s, which is a · g + b · x + c.
struct BatchNormSlopes {
  double a, b, c;
};
BatchNormSlopes batch_norm_slopes(const FirstSums& sums, const Tensor& gamma, const Tensor& mean,
                                  const Tensor& inv_std, std::int64_t channel, double count);

/// Σ u, Σ u (x − mean), Σ u g.
struct SecondOrderSums {
  std::vector<double> u, ux, ug;
};

/// The coefficients of second_pass, [8, C].
enum Coefficient : std::uint8_t { A1, B1, C1, A2, B2, C2, D2, E2, kCoefficients };

/// What second_pass does along one direction: ggy = (a1 · u + r + b1 · x + c1) where the ReLU passed, and
/// gx = a2 · u + b2 · g + c2 · x + d2 + e2 · dg. An undefined u, r or dgy is zero; an undefined result is not
/// wanted. `sums_ug` receives Σ u g of each chunk [chunks, C]; it needs gx.
struct SecondOrder {
  Tensor u, r, dgy;
  Tensor coefficients;
  Tensor ggy, gx, sums_ug;
};
/// One pass over what the directions share; gy is only read for gx.
void second_pass(const Rows& rows, std::span<const SecondOrder> directions, const Tensor& gy, const Tensor& x,
                 const Tensor& y, const NormMap& map);

/// The coefficients of how an affine map's output, or its gradient in g, moves with (x, s, t): a1 = slope,
/// b1 and c1 from the channels of `scale` and `shift`.
Tensor affine_coefficients(const Tensor& slope, const Tensor& scale, const Tensor& shift);

/// The second order of batch norm: the coefficients of its pass, except E2, and the gradient in gamma.
struct BatchNormSecond {
  Tensor coefficients, scale;
};
BatchNormSecond batch_norm_second(const NormGradients& u, const SecondOrderSums& sums,
                                  const NormGradients& first, const Tensor& gamma, const Tensor& mean,
                                  const Tensor& inv_std, std::int64_t row_count);

}  // namespace goshawk::kernels
