// Rounding to a few levels at any distance from each other, such as LQ-Nets'. f32 and f64.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/tensor.hpp"

namespace goshawk::kernels {

/// For more levels a search is faster than to compare with each threshold.
inline constexpr std::size_t kFewLevels = 16;

/// What was rounded to one level.
struct LevelSum {
  double count = 0, sum = 0;
};

/// values[k] for each element of x, k being the number of thresholds below it; a NaN stays one. `thresholds`
/// are one fewer than `values`, do not fall, and may be infinite; both are rounded to x's type. With `sums`,
/// which is resized to the number of levels, also how many elements each level has and their sum: taken in
/// fixed blocks, so they do not depend on the number of threads. Throws Error unless there are 1 to
/// kFewLevels levels.
Tensor round_to_levels(const Tensor& x, std::span<const double> values, std::span<const double> thresholds,
                       std::vector<LevelSum>* sums = nullptr);

}  // namespace goshawk::kernels
