#include "autograd/curvature/spectral_density.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "autograd/curvature/probe.hpp"
#include "core/kernels/symmetric_eigen.hpp"

namespace goshawk {
namespace {

void check_options(const LinearOperator& a, const SpectralDensityOptions& options) {
  check(options.steps >= 1, "[spectral_density] steps is {}; give 1 or more", options.steps);
  check(options.min_probes >= 2 && options.max_probes >= options.min_probes,
        "[spectral_density] min_probes is {} and max_probes {}; give 2 or more, the larger as max_probes",
        options.min_probes, options.max_probes);
  check(options.probes_per_pass >= 1, "[spectral_density] probes_per_pass is {}; give 1 or more",
        options.probes_per_pass);
  check(
      options.relative_error >= 0 && options.smoothing >= 0 && options.points >= 2,
      "[spectral_density] relative_error is {}, smoothing {} and points {}; give numbers ≥ 0 and 2 points or "
      "more",
      options.relative_error, options.smoothing, options.points);
  check(a.size() >= 1, "[spectral_density] the operator has no rows");
}

void adopt_state(const LinearOperator& a, const SpectralDensityOptions& options,
                 SpectralDensityState& state) {
  if (state.quadratures.empty() && state.running.empty()) {
    state = {.probe = options.probe,
             .seed = options.seed,
             .stream = options.stream,
             .steps = options.steps,
             .quadratures = {},
             .running = {}};
    return;
  }
  check(
      state.probe == options.probe && state.seed == options.seed && state.stream == options.stream &&
          state.steps == options.steps,
      "[spectral_density] the state was made with probe {}, seed {}, stream {}, {} steps but the options say "
      "probe {}, seed {}, stream {}, {} steps; resume with the same or start with an empty state",
      static_cast<int>(state.probe), state.seed, state.stream, state.steps, static_cast<int>(options.probe),
      options.seed, options.stream, options.steps);
  for (const LanczosProcess& process : state.running) {
    for (const Vector& v : process.basis) check_blocks(a, v, "spectral_density");
  }
}

bool finished(const LinearOperator& a, const LanczosProcess& process, int steps) {
  const auto limit = static_cast<std::size_t>(std::min<std::int64_t>(steps, a.size()));
  // Without a next vector the space is exhausted and the quadrature is exact.
  return process.diagonal.size() == limit || process.basis.size() == process.diagonal.size();
}

void start_pass(const LinearOperator& a, SpectralDensityState& state, int count) {
  for (Vector& v : draw_probes(a, state.probe, state.seed, state.stream + state.quadratures.size(), count)) {
    rescale(v, 1 / norm(v));
    state.running.emplace_back().basis.push_back(std::move(v));
  }
}

void extend(LanczosProcess& process, Vector product) {
  process.diagonal.push_back(project_out(product, process.basis).back());
  double scale = 0;
  for (double x : process.diagonal) scale = std::max(scale, std::abs(x));
  for (double x : process.off_diagonal) scale = std::max(scale, x);
  const double length = norm(product);
  if (!(length > 64 * epsilon(product.front().dtype()) * scale)) return;
  rescale(product, 1 / length);
  project_out(product, process.basis);
  rescale(product, 1 / norm(product));
  process.off_diagonal.push_back(length);
  process.basis.push_back(std::move(product));
}

Quadrature quadrature(const LanczosProcess& process) {
  const std::size_t n = process.diagonal.size();
  kernels::SymmetricEigen eigen =
      kernels::tridiagonal_eigen(process.diagonal, std::span(process.off_diagonal).first(n - 1));
  Quadrature q{.nodes = std::move(eigen.values), .weights = {}};
  for (const std::vector<double>& v : eigen.vectors) q.weights.push_back(v.front() * v.front());
  return q;
}

// One step of every running probe that has not finished.
void step(const LinearOperator& a, SpectralDensityState& state) {
  std::vector<LanczosProcess*> active;
  std::vector<Vector> vectors;
  for (LanczosProcess& process : state.running) {
    if (finished(a, process, state.steps)) continue;
    active.push_back(&process);
    vectors.push_back(process.basis.back());
  }
  std::vector<Vector> products = a.apply_many(vectors);
  for (const Vector& product : products) check_product(product, "spectral_density");
  for (std::size_t i = 0; i < active.size(); ++i) extend(*active[i], std::move(products[i]));
  state.products += static_cast<int>(active.size());
  const auto done = [&](const LanczosProcess& process) { return finished(a, process, state.steps); };
  if (!std::all_of(state.running.begin(), state.running.end(), done)) return;
  for (const LanczosProcess& process : state.running) state.quadratures.push_back(quadrature(process));
  state.running.clear();
}

std::pair<double, double> range_of(std::span<const Quadrature> quadratures) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const Quadrature& q : quadratures) {
    low = std::min(low, q.nodes.front());
    high = std::max(high, q.nodes.back());
  }
  return {low, high};
}

}  // namespace

Estimate spectral_mean(std::span<const Quadrature> quadratures, const std::function<double(double)>& f) {
  std::vector<double> samples;
  for (const Quadrature& q : quadratures) {
    double sum = 0;
    for (std::size_t i = 0; i < q.nodes.size(); ++i) sum += q.weights[i] * f(q.nodes[i]);
    samples.push_back(sum);
  }
  return estimate_mean(samples);
}

DensityCurve density_curve(std::span<const Quadrature> quadratures, double smoothing, int points) {
  check(!quadratures.empty() && points >= 2 && smoothing >= 0,
        "[density_curve] {} quadratures, {} points and smoothing {}; give one quadrature, two points and "
        "smoothing ≥ 0 at least",
        quadratures.size(), points, smoothing);
  const auto [low, high] = range_of(quadratures);
  if (smoothing == 0) {
    // An operator with a single eigenvalue has no width of its own.
    smoothing = high > low ? (high - low) / 100 : std::max(std::abs(high), 1.0) / 100;
  }
  const double first = low - 6 * smoothing, last = high + 6 * smoothing;
  std::vector<double> grid;
  for (int i = 0; i < points; ++i) grid.push_back(first + (last - first) * i / (points - 1));
  return density_curve(quadratures, std::move(grid), smoothing);
}

DensityCurve density_curve(std::span<const Quadrature> quadratures, std::vector<double> grid,
                           double smoothing) {
  check(!quadratures.empty() && smoothing > 0,
        "[density_curve] {} quadratures and smoothing {}; give at least one and a positive width",
        quadratures.size(), smoothing);
  DensityCurve curve;
  const double height = 1 / (smoothing * std::sqrt(2 * std::acos(-1.0)));
  for (double x : grid) {
    const Estimate e = spectral_mean(quadratures, [&](double node) {
      const double z = (x - node) / smoothing;
      return height * std::exp(-z * z / 2);
    });
    curve.density.push_back(e.value);
    curve.standard_error.push_back(e.standard_error);
  }
  curve.grid = std::move(grid);
  curve.smoothing = smoothing;
  return curve;
}

SpectralDensity spectral_density(const LinearOperator& a, const SpectralDensityOptions& options,
                                 SpectralDensityState* state) {
  check_options(a, options);
  SpectralDensityState fresh;
  SpectralDensityState& current = state != nullptr ? *state : fresh;
  adopt_state(a, options, current);
  const auto report = [&] {
    SpectralDensity result;
    result.products = current.products;
    if (current.quadratures.empty()) return result;
    result.quadratures = current.quadratures;
    result.curve = density_curve(current.quadratures, options.smoothing, options.points);
    result.mean = spectral_mean(current.quadratures, [](double x) { return x; });
    const auto rows = static_cast<double>(a.size());
    const auto [low, high] = range_of(current.quadratures);
    result.lowest = low;
    result.highest = high;
    const DensityCurve& curve = result.curve;
    result.converged =
        static_cast<int>(current.quadratures.size()) >= options.min_probes &&
        *std::max_element(curve.standard_error.begin(), curve.standard_error.end()) <=
            options.relative_error * *std::max_element(curve.density.begin(), curve.density.end());
    result.mean.converged = result.converged;
    result.trace = result.mean;
    result.trace.value *= rows;
    result.trace.standard_error *= rows;
    return result;
  };
  SpectralDensity result = report();
  for (;;) {
    if (current.running.empty()) {
      const int count = next_pass(static_cast<int>(current.quadratures.size()), options.probes_per_pass,
                                  options.max_probes, [&] { return result.converged; });
      if (count == 0) break;
      start_pass(a, current, count);
    }
    step(a, current);
    if (current.running.empty()) result = report();
    if (options.progress && !options.progress(current)) break;
  }
  result.products = current.products;
  return result;
}

}  // namespace goshawk
