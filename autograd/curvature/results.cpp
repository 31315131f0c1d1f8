#include "autograd/curvature/results.hpp"

#include <cmath>
#include <limits>

namespace goshawk {

Estimate estimate_mean(std::span<const double> samples) {
  check(!samples.empty(), "[estimate_mean] there are no samples; draw at least one");
  const auto n = static_cast<double>(samples.size());
  double sum = 0;
  for (double x : samples) sum += x;
  const double mean = sum / n;
  double squares = 0;
  for (double x : samples) squares += (x - mean) * (x - mean);
  const double error =
      samples.size() < 2 ? std::numeric_limits<double>::infinity() : std::sqrt(squares / (n - 1) / n);
  Estimate result;
  result.value = mean;
  result.standard_error = error;
  result.samples = static_cast<int>(samples.size());
  return result;
}

}  // namespace goshawk
