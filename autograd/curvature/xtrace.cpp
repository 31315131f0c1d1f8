#include "autograd/curvature/xtrace.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace goshawk {
namespace {

double inner(const std::vector<double>& x, const std::vector<double>& y) {
  return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
}

Vector draw(const LinearOperator& a, const XTraceState& state, int probe) {
  Random random(state.seed, state.stream + static_cast<std::uint64_t>(probe));
  Vector v = normal_vector(a.shapes(), a.dtype(), random);
  rescale(v, std::sqrt(static_cast<double>(a.size())) / norm(v));
  return v;
}

void adopt_state(const LinearOperator& a, const XTraceOptions& options, XTraceState& state) {
  check(options.min_probes >= 2 && options.max_probes >= options.min_probes,
        "[xtrace] min_probes is {} and max_probes {}; give 2 or more, the larger as max_probes",
        options.min_probes, options.max_probes);
  check(options.relative_error >= 0 && options.absolute_error >= 0 && options.probes_per_pass >= 1,
        "[xtrace] relative_error is {}, absolute_error {} and probes_per_pass {}; give errors ≥ 0 and one "
        "probe "
        "or more",
        options.relative_error, options.absolute_error, options.probes_per_pass);
  if (state.triangle.empty()) {
    state = {};
    state.seed = options.seed;
    state.stream = options.stream;
    return;
  }
  check(state.seed == options.seed && state.stream == options.stream,
        "[xtrace] the state was drawn with seed {}, stream {} but the options say seed {}, stream {}; resume "
        "with the same or start with an empty state",
        state.seed, state.stream, options.seed, options.stream);
  bool whole = state.projected.size() == state.basis.size() && state.overlap.size() == state.basis.size();
  for (std::size_t j = 0; whole && j < state.basis.size(); ++j) {
    whole = state.projected[j].size() == j + 1 && state.overlap[j].size() == state.triangle.size();
  }
  for (const std::vector<double>& column : state.triangle)
    whole = whole && column.size() <= state.basis.size();
  check(whole, "[xtrace] the state is not whole: {} probes and {} basis vectors; start with an empty state",
        state.triangle.size(), state.basis.size());
  for (const Vector& q : state.basis) check_blocks(a, q, "xtrace");
}

// Draws `count` probes more, which are appended to `probes`.
// An error in a product leaves the caller's state as it was.
void extend(const LinearOperator& a, XTraceState& current, std::vector<Vector>& probes, int count) {
  XTraceState state = current;
  const std::size_t old_probes = probes.size(), old_rank = state.basis.size();
  for (int i = 0; i < count; ++i) probes.push_back(draw(a, state, static_cast<int>(probes.size())));
  std::vector<Vector> products = a.apply_many(std::span<const Vector>(probes).subspan(old_probes));
  for (const Vector& product : products) check_product(product, "xtrace");
  const double epsilon = a.dtype() == DType::f32 ? double{std::numeric_limits<float>::epsilon()}
                                                 : std::numeric_limits<double>::epsilon();
  for (Vector& product : products) {
    const double before = norm(product);
    std::vector<double>& column = state.triangle.emplace_back(project_out(product, state.basis));
    const double length = norm(product);
    // A product that adds nothing but rounding is left out: A has lower rank than the probes.
    if (!(length > 64 * epsilon * before)) continue;
    column.push_back(length);
    rescale(product, 1 / length);
    project_out(product, state.basis);
    rescale(product, 1 / norm(product));
    state.basis.push_back(std::move(product));
  }
  const std::vector<Vector> images = a.apply_many(std::span<const Vector>(state.basis).subspan(old_rank));
  for (const Vector& image : images) check_product(image, "xtrace");
  for (std::size_t j = old_rank; j < state.basis.size(); ++j) {
    std::vector<double>& row = state.projected.emplace_back();
    for (std::size_t i = 0; i <= j; ++i) row.push_back(dot(state.basis[i], images[j - old_rank]));
  }
  state.overlap.resize(state.basis.size());
  for (std::size_t j = 0; j < state.basis.size(); ++j) {
    std::vector<double>& row = state.overlap[j];
    for (std::size_t i = row.size(); i < probes.size(); ++i) row.push_back(dot(state.basis[j], probes[i]));
  }
  state.products += count + static_cast<int>(images.size());
  current = std::move(state);
}

// The estimates t_i of the probes.
std::vector<double> leave_one_out(const LinearOperator& a, const XTraceState& state) {
  const std::size_t rank = state.basis.size(), k = state.triangle.size();
  const auto n = static_cast<double>(a.size());
  const auto times_projected = [&](const std::vector<double>& x) {
    std::vector<double> y(rank, 0.0);
    for (std::size_t i = 0; i < rank; ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        y[i] += state.projected[i][j] * x[j];
        y[j] += state.projected[i][j] * x[i];
      }
      y[i] += state.projected[i][i] * x[i];
    }
    return y;
  };
  double trace = 0;
  for (std::size_t j = 0; j < rank; ++j) trace += state.projected[j][j];
  std::vector<double> estimates;
  for (std::size_t i = 0; i < k; ++i) {
    // The direction that Q loses without probe i: s ∝ R⁻ᵀ e_i, by forward substitution. Where A has lower
    // rank than there are probes, any one of them can be missed and nothing is lost (with probability 1).
    std::vector<double> lost(rank, 0.0);
    double kept = static_cast<double>(rank);
    if (rank == k) {
      for (std::size_t row = i; row < k; ++row) {
        double sum = row == i ? 1 : 0;
        for (std::size_t j = i; j < row; ++j) sum -= state.triangle[row][j] * lost[j];
        lost[row] = sum / state.triangle[row][row];
      }
      const double length = std::sqrt(inner(lost, lost));
      for (double& x : lost) x /= length;
      kept -= 1;
    }
    std::vector<double> column = state.triangle[i];  // Qᵀ A ω_i
    column.resize(rank, 0.0);
    std::vector<double> inside(rank);  // Q_iᵀ ω_i in the basis Q
    for (std::size_t j = 0; j < rank; ++j) inside[j] = state.overlap[j][i];
    const double part = inner(lost, inside);
    for (std::size_t j = 0; j < rank; ++j) inside[j] -= part * lost[j];
    // ωᵀ P A P ω = (ω − Qx)ᵀ (A ω − A Q x), written so that small differences are taken first.
    std::vector<double> rest = times_projected(inside);
    for (std::size_t j = 0; j < rank; ++j) rest[j] = column[j] - rest[j];
    const double form = part * inner(lost, column) - inner(inside, rest);
    const double outside = n - inner(inside, inside);
    const double scale = n > kept && outside > 0 ? (n - kept) / outside : 0;
    estimates.push_back(trace - inner(lost, times_projected(lost)) + scale * form);
  }
  return estimates;
}

}  // namespace

Estimate xtrace(const LinearOperator& a, const XTraceOptions& options, XTraceState* state) {
  XTraceState fresh;
  XTraceState& current = state != nullptr ? *state : fresh;
  adopt_state(a, options, current);
  const int most = static_cast<int>(std::min<std::int64_t>(options.max_probes, a.size()));
  const auto report = [&] {
    Estimate estimate;
    if (current.probes() == 0) {
      estimate.standard_error = std::numeric_limits<double>::infinity();
      return estimate;
    }
    estimate = estimate_mean(leave_one_out(a, current));
    estimate.converged =
        estimate.samples >= std::min(options.min_probes, most) &&
        estimate.standard_error <=
            std::max(options.relative_error * std::abs(estimate.value), options.absolute_error);
    return estimate;
  };
  std::vector<Vector> probes;  // not part of the state, since they can be drawn again
  for (int i = 0; i < current.probes(); ++i) probes.push_back(draw(a, current, i));
  Estimate estimate = report();
  for (;;) {
    const int done = current.probes();
    // Stopping only between whole passes, as in hutchinson.
    if (done >= most || (done % options.probes_per_pass == 0 && estimate.converged)) break;
    const int next = (done / options.probes_per_pass + 1) * options.probes_per_pass;
    extend(a, current, probes, std::min(next, most) - done);
    estimate = report();
    if (options.progress && !options.progress(current, estimate)) break;
  }
  return estimate;
}

}  // namespace goshawk
