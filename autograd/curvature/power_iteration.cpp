#include "autograd/curvature/power_iteration.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

namespace goshawk {
namespace {

// ‖product − λ v‖
double residual_norm(const Vector& product, double value, const Vector& v) {
  const Vector difference = clone(product);
  axpy(-value, v, difference);
  return norm(difference);
}

Vector start_vector(const LinearOperator& a, std::span<const Vector> found, Random random) {
  Vector v = normal_vector(a.shapes(), a.dtype(), random);
  // The last directions left are a small part of a random vector: cleaned again once they are at full length.
  for (int pass = 0; pass < 2; ++pass) {
    project_out(v, found);
    rescale(v, 1 / norm(v));
  }
  return v;
}

}  // namespace

std::vector<Eigenpair> power_iteration(const LinearOperator& a, const PowerIterationOptions& options) {
  check(options.pairs >= 1 && options.pairs <= a.size(),
        "[power_iteration] {} eigenpairs were asked for; an operator with {} rows has between 1 and {}",
        options.pairs, a.size(), a.size());
  check(
      options.max_iterations >= 1 && options.tolerance > 0 && options.residual_tolerance > 0,
      "[power_iteration] max_iterations is {}, tolerance {} and residual_tolerance {}; all must be positive",
      options.max_iterations, options.tolerance, options.residual_tolerance);
  std::vector<Eigenpair> found;
  std::vector<Vector> vectors;  // of the pairs found
  double largest = 0;
  for (int p = 0; p < options.pairs; ++p) {
    Vector v = start_vector(a, vectors, Random(options.seed, options.stream + static_cast<std::uint64_t>(p)));
    Eigenpair pair;
    std::optional<double> previous;
    bool go_on = true;
    for (int iteration = 1; go_on && !pair.converged; ++iteration) {
      Vector product = a.apply(v);
      check_product(product, "power_iteration");
      const double value = dot(v, product);
      const double error = residual_norm(product, value, v);
      project_out(product, vectors);
      const double length = norm(product);
      pair.value = value;
      pair.vector = v;
      pair.iterations = iteration;
      if (length <= 64 * epsilon(a.dtype()) * largest) {
        // Nothing is left beside the pairs found but rounding errors, on which any stop rule would be luck.
        pair.converged = true;
        pair.residual = 0;
      } else {
        pair.residual = value == 0 ? std::numeric_limits<double>::infinity() : error / std::abs(value);
        // Errors of the pairs found leak into the product; what matters here is what the iteration itself
        // sees.
        const bool settled =
            previous && std::abs(*previous - value) < options.tolerance * std::abs(*previous);
        pair.converged =
            settled && residual_norm(product, value, v) <= options.residual_tolerance * std::abs(value);
        rescale(product, 1 / length);
        v = std::move(product);
      }
      previous = value;
      go_on = iteration < options.max_iterations;
      if (options.progress && !options.progress(p, iteration, value)) {
        found.push_back(std::move(pair));
        return found;
      }
    }
    largest = std::max(largest, std::abs(pair.value));
    vectors.push_back(pair.vector);
    found.push_back(std::move(pair));
  }
  return found;
}

}  // namespace goshawk
