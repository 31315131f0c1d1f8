#include "core/statistics.hpp"

#include <cmath>

#include "core/error.hpp"

namespace goshawk {
namespace {

// The continued fraction of the incomplete beta function (Abramowitz & Stegun 26.5.8), evaluated forwards
// (Lentz); converges fast for x < (a + 1) / (a + b + 2).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  const auto nonzero = [](double y) { return std::abs(y) < kTiny ? kTiny : y; };
  double c = 1;
  double d = 1 / nonzero(1 - (a + b) * x / (a + 1));
  double result = d;
  for (int m = 1; m <= 10000; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / nonzero(1 + even * d);
    c = nonzero(1 + even / c);
    result *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / nonzero(1 + odd * d);
    c = nonzero(1 + odd / c);
    result *= d * c;
    if (std::abs(d * c - 1) < 1e-16) break;
  }
  return result;
}

// I_x(a, b), the regularised incomplete beta function; y = 1 − x, given apart for its digits.
double regularised_beta(double a, double b, double x, double y) {
  if (x <= 0) return 0;
  if (y <= 0) return 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log(y));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, y) / b;
}

// P(T > t) for t ≥ 0.
double student_t_tail(double t, double degrees) {
  const double total = degrees + t * t;
  return regularised_beta(degrees / 2, 0.5, degrees / total, t * t / total) / 2;
}

}  // namespace

double student_t_cdf(double t, double degrees) {
  check(degrees > 0, "[student_t_cdf] {} degrees of freedom; give a positive number", degrees);
  const double tail = student_t_tail(std::abs(t), degrees);
  return t < 0 ? tail : 1 - tail;
}

double student_t_quantile(double p, double degrees) {
  check(p > 0 && p < 1, "[student_t_quantile] the probability is {}; give one between 0 and 1", p);
  check(degrees > 0, "[student_t_quantile] {} degrees of freedom; give a positive number", degrees);
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
