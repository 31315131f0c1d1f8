#include "autograd/curvature/diagonal.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/curvature/probe.hpp"
#include "core/parallel.hpp"

namespace goshawk {
namespace {

void check_options(const DiagonalOptions& options) {
  check(options.min_samples >= 2 && options.max_samples >= options.min_samples,
        "[diagonal] min_samples is {} and max_samples {}; give 2 or more, the larger as max_samples",
        options.min_samples, options.max_samples);
  check(options.relative_error >= 0 && options.probes_per_pass >= 1,
        "[diagonal] relative_error is {} and probes_per_pass {}; give a number ≥ 0 and 1 or more",
        options.relative_error, options.probes_per_pass);
}

void adopt_state(const LinearOperator& a, const DiagonalOptions& options, DiagonalState& state) {
  if (state.samples == 0) {
    state = {.seed = options.seed,
             .stream = options.stream,
             .mean = zero_vector(a.shapes(), DType::f64),
             .squares = zero_vector(a.shapes(), DType::f64)};
    return;
  }
  check(
      state.seed == options.seed && state.stream == options.stream,
      "[diagonal] the state was drawn with seed {}, stream {} but the options say seed {}, stream {}; resume "
      "with the same or start with an empty state",
      state.seed, state.stream, options.seed, options.stream);
  const auto fits = [&](const Vector& v) {
    return std::equal(v.begin(), v.end(), a.shapes().begin(), a.shapes().end(),
                      [](const Tensor& block, const Shape& shape) {
                        return block.defined() && block.shape() == shape && block.dtype() == DType::f64;
                      });
  };
  check(fits(state.mean) && fits(state.squares),
        "[diagonal] the state does not fit an operator with {} blocks; start with an empty state",
        a.shapes().size());
}

// Welford's update of mean and squares with the sample z ⊙ product.
void add_sample(const Tensor& z, const Tensor& product, int count, const Tensor& mean,
                const Tensor& squares) {
  dispatch_floating(z.dtype(), "diagonal", [&]<class T>() {
    const T* signs = z.data<T>();
    const T* values = product.data<T>();
    double* m = mean.data<double>();
    double* s = squares.data<double>();
    parallel_for(z.numel(), kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const double sample = static_cast<double>(signs[i]) * static_cast<double>(values[i]);
        const double step = sample - m[i];
        m[i] += step / count;
        s[i] += step * (sample - m[i]);
      }
    });
  });
}

void draw(const LinearOperator& a, DiagonalState& state, int count) {
  const std::vector<Vector> probes = draw_probes(
      a, Probe::rademacher, state.seed, state.stream + static_cast<std::uint64_t>(state.samples), count);
  const std::vector<Vector> products = a.apply_many(probes);
  for (const Vector& product : products) check_product(product, "diagonal");
  for (std::size_t l = 0; l < state.mean.size(); ++l) {
    // A copy of the state that someone kept must not change.
    if (!state.mean[l].unique()) state.mean[l] = state.mean[l].clone();
    if (!state.squares[l].unique()) state.squares[l] = state.squares[l].clone();
    for (int i = 0; i < count; ++i) {
      const auto k = static_cast<std::size_t>(i);
      add_sample(probes[k][l], products[k][l], state.samples + i + 1, state.mean[l], state.squares[l]);
    }
  }
  state.samples += count;
}

// ‖standard errors‖ / ‖diagonal‖; 0 for a diagonal that is known to be zero.
double relative_error(const DiagonalState& state) {
  if (state.samples < 2) return std::numeric_limits<double>::infinity();
  double squares = 0;
  for (const Tensor& block : state.squares) {
    squares += block_dot(block, Tensor::full(block.shape(), DType::f64, 1));
  }
  const double n = state.samples;
  const double error = std::sqrt(squares / (n - 1) / n);
  return error == 0 ? 0 : error / norm(state.mean);
}

}  // namespace

DiagonalEstimate diagonal(const LinearOperator& a, const DiagonalOptions& options, DiagonalState* state) {
  check_options(options);
  DiagonalState fresh;
  DiagonalState& current = state != nullptr ? *state : fresh;
  adopt_state(a, options, current);
  double error = relative_error(current);
  const auto enough = [&] {
    return current.samples >= options.min_samples && error <= options.relative_error;
  };
  while (const int count = next_pass(current.samples, options.probes_per_pass, options.max_samples, enough)) {
    draw(a, current, count);
    error = relative_error(current);
    if (options.progress && !options.progress(current, error)) break;
  }
  DiagonalEstimate result;
  result.value = clone(current.mean);
  result.standard_error = clone(current.squares);
  result.relative_error = error;
  result.samples = current.samples;
  result.converged = enough();
  const double n = current.samples;
  for (const Tensor& block : result.standard_error) {
    for (double& x : block.span<double>()) {
      x = n < 2 ? std::numeric_limits<double>::infinity() : std::sqrt(x / (n - 1) / n);
    }
  }
  return result;
}

}  // namespace goshawk
