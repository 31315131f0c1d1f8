// From numbers to pixels along one axis, and where its ticks are.
#pragma once

#include <string>
#include <vector>

#include "apps/support/figure.hpp"

namespace goshawk {

struct AxisTick {
  double value = 0;
  std::string label;  ///< empty for a minor tick
};

/// An axis with its limits decided.
class AxisMap {
 public:
  /// `data` are the coordinates that must be seen when the axis leaves its limits open. On a log scale those
  /// that are not positive do not count.
  AxisMap(const FigureAxis& axis, const std::vector<double>& data);

  /// Pixels that the coordinates low() and high() are mapped to.
  void place(double low_pixel, double high_pixel);
  double low() const { return low_; }
  double high() const { return high_; }
  AxisScale scale() const { return scale_; }

  /// The pixel of a coordinate, no further out than a little beyond the limits.
  double operator()(double coordinate) const;
  /// Whether the coordinate lies within the limits.
  bool shows(double coordinate) const;

  /// About `wanted` ticks at round numbers, or all categories.
  std::vector<AxisTick> ticks(int wanted) const;

 private:
  double position(double coordinate) const;
  std::vector<AxisTick> linear_ticks(int wanted) const;
  std::vector<AxisTick> log_ticks(int wanted) const;

  AxisScale scale_;
  std::vector<std::string> categories_;
  double low_ = 0, high_ = 1;
  double low_pixel_ = 0, high_pixel_ = 1;
};

}  // namespace goshawk
