#include "autograd/curvature/power_iteration.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
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

void adopt_state(const LinearOperator& a, const PowerIterationOptions& options, PowerIterationState& state) {
  if (state.found.empty() && state.next.empty()) {
    state = {};
    state.seed = options.seed;
    state.stream = options.stream;
    return;
  }
  check(
      state.seed == options.seed && state.stream == options.stream,
      "[power_iteration] the state was made with seed {}, stream {} but the options say seed {}, stream {}; "
      "resume with the same or start with an empty state",
      state.seed, state.stream, options.seed, options.stream);
  for (const Eigenpair& pair : state.found) check_blocks(a, pair.vector, "power_iteration");
  if (!state.next.empty()) check_blocks(a, state.next, "power_iteration");
}

struct Step {
  Eigenpair pair;  // as it stands now
  bool settled = false;
};

// One product for the pair under way. The state has the next vector.
Step step(const LinearOperator& a, const PowerIterationOptions& options, std::span<const Vector> found,
          double largest, PowerIterationState& state) {
  Step result;
  Eigenpair& pair = result.pair;
  pair.vector = state.next;
  Vector product = a.apply(pair.vector);
  check_product(product, "power_iteration");
  pair.value = dot(pair.vector, product);
  pair.iterations = ++state.iterations;
  const double error = residual_norm(product, pair.value, pair.vector);
  project_out(product, found);
  const double length = norm(product);
  // The first product is with a random vector, of which only 1/√n lies along any eigenvector.
  const double share = state.iterations == 1 ? 1 / std::sqrt(static_cast<double>(a.size())) : 1;
  if (length <= 64 * epsilon(a.dtype()) * largest * share) {
    // Nothing is left beside the pairs found but rounding errors, on which any stop rule would be luck.
    pair.converged = result.settled = true;
    pair.residual = 0;
    return result;
  }
  pair.residual = pair.value == 0 ? std::numeric_limits<double>::infinity() : error / std::abs(pair.value);
  // Errors of the pairs found leak into the product. The iteration cannot undo them, so it goes by what it
  // sees itself; but the pair is no better than its whole residual.
  const bool still = state.previous &&
                     std::abs(*state.previous - pair.value) < options.tolerance * std::abs(*state.previous);
  result.settled = still && residual_norm(product, pair.value, pair.vector) <=
                                options.residual_tolerance * std::abs(pair.value);
  pair.converged = result.settled && pair.residual <= options.residual_tolerance;
  state.previous = pair.value;
  rescale(product, 1 / length);
  state.next = std::move(product);
  return result;
}

}  // namespace

std::vector<Eigenpair> power_iteration(const LinearOperator& a, const PowerIterationOptions& options,
                                       PowerIterationState* state) {
  check(options.pairs >= 1 && options.pairs <= a.size(),
        "[power_iteration] {} eigenpairs were asked for; an operator with {} rows has between 1 and {}",
        options.pairs, a.size(), a.size());
  check(
      options.max_iterations >= 1 && options.tolerance > 0 && options.residual_tolerance > 0,
      "[power_iteration] max_iterations is {}, tolerance {} and residual_tolerance {}; all must be positive",
      options.max_iterations, options.tolerance, options.residual_tolerance);
  PowerIterationState fresh;
  PowerIterationState& current = state != nullptr ? *state : fresh;
  adopt_state(a, options, current);
  std::vector<Vector> vectors;  // of the pairs found
  double largest = 0;
  const auto enter = [&](const Eigenpair& pair) {
    largest = std::max(largest, std::abs(pair.value));
    vectors.push_back(pair.vector);
  };
  for (const Eigenpair& pair : current.found) enter(pair);
  while (current.found.size() < static_cast<std::size_t>(options.pairs)) {
    const auto p = static_cast<int>(current.found.size());
    if (current.next.empty()) {
      current.next =
          start_vector(a, vectors, Random(options.seed, options.stream + static_cast<std::uint64_t>(p)));
    }
    const auto [pair, settled] = step(a, options, vectors, largest, current);
    const bool done = settled || pair.iterations >= options.max_iterations;
    if (done) {
      enter(pair);
      current.found.push_back(pair);
      current.next.clear();
      current.previous.reset();
      current.iterations = 0;
    }
    if (options.progress && !options.progress(p, pair.iterations, pair.value)) {
      std::vector<Eigenpair> result = current.found;
      if (!done) result.push_back(pair);
      return result;
    }
  }
  return {current.found.begin(), current.found.begin() + options.pairs};
}

}  // namespace goshawk
