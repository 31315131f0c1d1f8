// Lines of equal value over a grid, by marching squares.
#pragma once

#include <utility>
#include <vector>

namespace goshawk {

/// Points (x, y) from one end to the other; a closed line ends where it began.
using ContourLine = std::vector<std::pair<double, double>>;

/// The lines on which a function is `level`. values[i * ys.size() + k] is the function at (xs[i], ys[k]),
/// both growing; between neighbours it is taken to be linear. A square with a corner that is not finite has
/// no line: lines end at its border. Throws Error when there are fewer than two xs or ys, or not a value for
/// each pair.
std::vector<ContourLine> contour_lines(const std::vector<double>& xs, const std::vector<double>& ys,
                                       const std::vector<double>& values, double level);

}  // namespace goshawk
