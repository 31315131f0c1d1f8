// The evenly spaced values that sums of one number an item can take, where there are such. Internal to the
// solver.
#pragma once

#include <vector>

#include "quant/lagrangian.hpp"

namespace goshawk::detail {

/// All sums are origin + n · unit with whole n; a unit of 0 promises nothing.
struct Grid {
  double origin = 0;
  double unit = 0;

  /// No sum lies strictly between value and this: the least point that is ≥ value − rounding, or value
  /// itself.
  double up(double value, double rounding) const;
  /// The greatest point that is ≤ value + rounding, or value itself.
  double down(double value, double rounding) const;
};

/// Of sums of one number of each set. The unit is the greatest common divisor of all differences within sets,
/// or 0 when that is no more than a few times `rounding`, the error of the sums: of numbers that share no
/// unit the divisor is as small as their last binary digits.
Grid sums_grid(const std::vector<std::vector<double>>& sets, double rounding);

/// Of the costs of assignments.
Grid costs_grid(const Items& items, double rounding);

}  // namespace goshawk::detail
