// The loss along straight lines and over planes through the weights.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "autograd/curvature/block_vector.hpp"
#include "autograd/variable.hpp"

namespace goshawk {

/// A random direction with the scale of the weights: independent N(0, 1) elements, then each filter (last
/// index of a tensor of two or more dimensions: an output channel) rescaled to the norm that it has in the
/// weights; zero in tensors of one dimension (biases, normalisation), as in Li et al., "Visualizing the loss
/// landscape of neural nets", NeurIPS 2018 (arXiv 1712.09913, section 4). Drawn from the random stream
/// (seed, stream).
Vector filter_normalised_direction(std::span<const Variable> parameters, std::uint64_t seed,
                                   std::uint64_t stream);

struct LandscapeOptions {
  /// Called after each evaluation with how many are done, of how many; returning false ends with an Error.
  std::function<bool(std::size_t done, std::size_t total)> progress = {};
};

/// L(w + a d) for every step a. `loss` evaluates the loss at the parameters' present values, under a
/// MeasuringGuard, which it must take itself on other threads that it uses; while this runs
/// they hold w + a d, and afterwards exactly the w from before, also when something is thrown. Throws Error
/// unless the direction has the parameters' shapes and dtype and is finite. A loss that is not finite is
/// returned as it is.
std::vector<double> loss_along(std::span<const Variable> parameters, const Vector& direction,
                               std::span<const double> steps, const std::function<double()>& loss,
                               const LandscapeOptions& options = {});

/// L(w + a d + b e): row i, column k has the step a = first_steps[i] along d = `first` and b =
/// second_steps[k] along e = `second`. Otherwise as loss_along.
std::vector<std::vector<double>> loss_over(std::span<const Variable> parameters, const Vector& first,
                                           const Vector& second, std::span<const double> first_steps,
                                           std::span<const double> second_steps,
                                           const std::function<double()>& loss,
                                           const LandscapeOptions& options = {});

/// `points` equally spaced numbers from −range to range, the middle one exactly 0. Throws Error unless
/// `points` is odd and at least 3 and the range is positive and finite.
std::vector<double> landscape_steps(int points, double range);

}  // namespace goshawk
