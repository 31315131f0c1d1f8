#include "core/statistics.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <string_view>

#include "core/error.hpp"

namespace goshawk {
namespace {

// From this many degrees of freedom on the asymptotic series is good to the last digits.
constexpr double kManyDegrees = 40;

// The continued fraction of the incomplete beta function (Abramowitz & Stegun 26.5.8), evaluated forwards
// (Lentz); converges fast for x < (a + 1) / (a + b + 2), and slowly, in √max(a, b) steps, only near that.
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  const auto nonzero = [](double y) { return std::abs(y) < kTiny ? kTiny : y; };
  double c = 1;
  double d = 1 / nonzero(1 - (a + b) * x / (a + 1));
  double result = d;
  // What comes from student_t_tail takes about 25 steps at the most.
  for (int m = 1; m <= 200; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / nonzero(1 + even * d);
    c = nonzero(1 + even / c);
    result *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / nonzero(1 + odd * d);
    c = nonzero(1 + odd / c);
    result *= d * c;
    if (std::abs(d * c - 1) <= std::numeric_limits<double>::epsilon()) break;
  }
  return result;
}

// Γ(a + ½) / Γ(a). For a large a the logarithms would be large, and their difference without digits.
double gamma_ratio(double a) {
  if (a < kManyDegrees / 2) return std::tgamma(a + 0.5) / std::tgamma(a);
  const auto stirling = [](double x) {  // ln Γ(x) − (x − ½) ln x + x − ½ ln 2π
    const double y = 1 / (x * x);
    return (1.0 / 12 - y * (1.0 / 360 - y * (1.0 / 1260 - y * (1.0 / 1680 - y / 1188)))) / x;
  };
  return std::sqrt(a) * std::exp(a * std::log1p(0.5 / a) - 0.5 + stirling(a + 0.5) - stirling(a));
}

// P(T > t) by the incomplete beta function.
double tail_by_fraction(double t, double degrees) {
  const double a = degrees / 2, total = degrees + t * t;
  const double x = degrees / total, y = t * t / total;
  if (x <= 0) return 0;
  const double front =
      gamma_ratio(a) * std::numbers::inv_sqrtpi * std::exp(-a * std::log1p(t * t / degrees)) * std::sqrt(y);
  if (x < (a + 1) / (a + 2.5)) return front * beta_fraction(a, 0.5, x) / (2 * a);
  return 0.5 - front * beta_fraction(0.5, a, y);
}

// P(T > t) by the asymptotic series of DiDonato and Morris ("Significant digit computation of the incomplete
// beta function ratios", ACM TOMS 18, 1992, their BGRAT) for I_x(a, ½), x = e^−l: with n = a − ¼,
//   Γ(a + ½) / (Γ(a) √n) · Σ d_k J_k,  J_k = ∫ over z > n l of (z / 2n)^2k z^−½ e^−z / √π,
// where d_k are the coefficients of (sinh z / z)^−½ in z².
double tail_by_series(double t, double degrees) {
  constexpr std::array<double, 12> d{1,
                                     -0.083333333333333333,
                                     0.00625,
                                     -5.0429894179894180e-4,
                                     4.3437224426807760e-5,
                                     -3.8963857323232323e-6,
                                     3.5833354634507908e-7,
                                     -3.3497470720605779e-8,
                                     3.1675854343161148e-9,
                                     -3.0210368517370962e-10,
                                     2.9004157876692530e-11,
                                     -2.7993967483752693e-12};
  const double n = degrees / 2 - 0.25, l = std::log1p(t * t / degrees), z = n * l;
  double boundary = std::sqrt(z) * std::numbers::inv_sqrtpi * std::exp(-z);
  double integral = std::erfc(std::sqrt(z)), sum = integral, power = 0.5;
  for (std::size_t k = 1; k < d.size(); ++k, power += 2) {
    // By parts, twice.
    integral = (power * (power + 1) * integral + (z + power + 1) * boundary) / (4 * n * n);
    boundary *= l * l / 4;
    sum += d[k] * integral;
  }
  return gamma_ratio(degrees / 2) / std::sqrt(n) * sum / 2;
}

// P(T > t) for t ≥ 0.
double student_t_tail(double t, double degrees) {
  // The series wants l < 2π, and the fewer terms the smaller l is; where l is large the fraction is fast.
  const bool series = degrees >= kManyDegrees && t * t < 1.5 * degrees;
  return series ? tail_by_series(t, degrees) : tail_by_fraction(t, degrees);
}

void check_degrees(double degrees, std::string_view op) {
  check(degrees > 0 && std::isfinite(degrees), "[{}] {} degrees of freedom; give a positive number", op,
        degrees);
}

}  // namespace

double student_t_cdf(double t, double degrees) {
  check_degrees(degrees, "student_t_cdf");
  const double tail = student_t_tail(std::abs(t), degrees);
  return t < 0 ? tail : 1 - tail;
}

double student_t_quantile(double p, double degrees) {
  check(p > 0 && p < 1, "[student_t_quantile] the probability is {}; give one between 0 and 1", p);
  check_degrees(degrees, "student_t_quantile");
  // By the smaller tail, which keeps its digits however small it is.
  const double tail = std::min(p, 1 - p);
  double low = 0, high = 1;
  while (student_t_tail(high, degrees) > tail) high *= 2;
  double middle = low + (high - low) / 2;
  while (middle > low && middle < high) {
    (student_t_tail(middle, degrees) > tail ? low : high) = middle;
    middle = low + (high - low) / 2;
  }
  return p < 0.5 ? -middle : middle;
}

}  // namespace goshawk
