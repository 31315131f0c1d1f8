#include "autograd/curvature/results.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/statistics.hpp"

namespace goshawk {

Estimate estimate_mean(std::span<const double> samples) {
  check(!samples.empty(), "[estimate_mean] there are no samples; draw at least one");
  const auto n = static_cast<double>(samples.size());
  double sum = 0;
  for (double x : samples) sum += x;
  const double mean = sum / n;
  double squares = 0, cubes = 0;
  for (double x : samples) {
    squares += (x - mean) * (x - mean);
    cubes += (x - mean) * (x - mean) * (x - mean);
  }
  const double error =
      samples.size() < 2 ? std::numeric_limits<double>::infinity() : std::sqrt(squares / (n - 1) / n);
  Estimate result;
  result.value = mean;
  result.standard_error = error;
  result.samples = static_cast<int>(samples.size());
  if (samples.size() >= 3 && squares > 0) {
    const double deviation = std::sqrt(squares / n);
    result.skewness = cubes / n / (deviation * deviation * deviation) * std::sqrt(n * (n - 1)) / (n - 2);
  }
  return result;
}

Interval confidence_interval(const Estimate& estimate, double level) {
  check(level > 0 && level < 1, "[confidence_interval] the level is {}; give a probability such as 0.95",
        level);
  if (estimate.standard_error == 0)
    return {.low = estimate.value, .high = estimate.value};  // nothing was drawn
  if (estimate.samples < 2) {
    const double infinity = std::numeric_limits<double>::infinity();
    return {.low = -infinity, .high = infinity};
  }
  const double n = estimate.samples;
  const double t = student_t_quantile((1 + level) / 2, n - 1);
  // (mean − exact value) / standard error at which Hall's cubic
  //   w + (g / 3√n) w² + (g² / 27n) w³ + g / 6√n,  g the skewness,
  // which is nearly Student's t, has the value x.
  const double bend = estimate.skewness / (3 * std::sqrt(n));
  const auto quantile = [bend](double x) {
    if (std::abs(bend) < 1e-6) return x;
    return (std::cbrt(1 + 3 * bend * (x - bend / 2)) - 1) / bend;
  };
  // The other end, which the transformation would move in, stays: measured, it covers better so.
  return {.low = estimate.value - std::max(t, quantile(t)) * estimate.standard_error,
          .high = estimate.value + std::max(t, -quantile(-t)) * estimate.standard_error};
}

}  // namespace goshawk
