#include "autograd/curvature/xtrace.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "autograd/curvature/probe.hpp"

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
  for (Vector& product : products) {
    const double before = norm(product);
    std::vector<double>& column = state.triangle.emplace_back(project_out(product, state.basis));
    const double length = norm(product);
    // A product that adds nothing but rounding is left out: A has lower rank than the probes.
    if (!(length > 64 * epsilon(a.dtype()) * before)) continue;
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

// Hutch++ estimates with one probe as the sample and all others, or all but one, as the sketch, in
// coordinates of the basis Q.
class LeaveOut {
 public:
  LeaveOut(const LinearOperator& a, const XTraceState& state)
      : state_(state), rows_(static_cast<double>(a.size())) {
    const std::size_t rank = state.basis.size(), probes = state.triangle.size();
    for (std::size_t j = 0; j < rank; ++j) {
      captured_ += state.projected[j][j];
      rounding_ += 8 * epsilon(a.dtype()) * std::abs(state.projected[j][j]);
    }
    for (std::size_t i = 0; i < probes; ++i) {
      std::vector<double>& sample = samples_.emplace_back(rank);
      for (std::size_t j = 0; j < rank; ++j) sample[j] = state.overlap[j][i];
      images_.push_back(times_projected(sample));
      columns_.push_back(state.triangle[i]);
      columns_.back().resize(rank, 0.0);
      if (rank == probes) lost_.push_back(lost_without(i));
    }
  }

  std::size_t probes() const { return samples_.size(); }
  // Where A has lower rank than there are probes, any one of them can be missed and nothing is lost (with
  // probability 1); every estimate is exact then, as it is with as many probes as rows.
  bool exact() const { return lost_.empty() || static_cast<double>(probes()) >= rows_; }
  // What the captured part of the trace may be wrong by.
  double rounding() const { return rounding_; }

  // t_i
  double without(std::size_t i) const {
    return lost_.empty() ? estimate(i, {}) : estimate(i, std::span(&lost_[i], 1));
  }
  // t_{i|j}, with a sketch that lacks probe j too; not for exact().
  double without(std::size_t i, std::size_t j) const {
    // Of the plane that is lost, the direction beside that of i.
    Direction other = lost_[j];
    const double along = inner(lost_[i].vector, other.vector);
    for (std::size_t k = 0; k < other.vector.size(); ++k) {
      other.vector[k] -= along * lost_[i].vector[k];
      other.image[k] -= along * lost_[i].image[k];
    }
    const double length = std::sqrt(inner(other.vector, other.vector));
    if (length == 0) return without(i);  // R is singular to working precision
    for (double& x : other.vector) x /= length;
    for (double& x : other.image) x /= length;
    return estimate(i, std::array{lost_[i], std::move(other)});
  }

 private:
  // A unit vector, and its image under H = Qᵀ A Q.
  struct Direction {
    std::vector<double> vector, image;
  };

  std::vector<double> times_projected(const std::vector<double>& x) const {
    std::vector<double> y(x.size(), 0.0);
    for (std::size_t i = 0; i < x.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        y[i] += state_.projected[i][j] * x[j];
        y[j] += state_.projected[i][j] * x[i];
      }
      y[i] += state_.projected[i][i] * x[i];
    }
    return y;
  }

  // The direction that Q loses without probe i: s ∝ R⁻ᵀ e_i, by forward substitution.
  Direction lost_without(std::size_t i) const {
    std::vector<double> lost(samples_[i].size(), 0.0);
    for (std::size_t row = i; row < lost.size(); ++row) {
      double sum = row == i ? 1 : 0;
      for (std::size_t j = i; j < row; ++j) sum -= state_.triangle[row][j] * lost[j];
      lost[row] = sum / state_.triangle[row][row];
    }
    const double length = std::sqrt(inner(lost, lost));
    for (double& x : lost) x /= length;
    std::vector<double> image = times_projected(lost);
    return {std::move(lost), std::move(image)};
  }

  // The estimate from sample i with a sketch that spans what is orthogonal to the `lost` directions in Q.
  double estimate(std::size_t i, std::span<const Direction> lost) const {
    const std::vector<double>& column = columns_[i];  // Qᵀ A ω_i
    std::vector<double> inside = samples_[i];         // the sketch's part of ω_i
    std::vector<double> rest = column;                // Qᵀ A (ω_i − inside)
    for (std::size_t j = 0; j < rest.size(); ++j) rest[j] -= images_[i][j];
    double trace = captured_, form = 0;
    for (const Direction& d : lost) {
      const double part = inner(d.vector, samples_[i]);
      for (std::size_t j = 0; j < rest.size(); ++j) {
        inside[j] -= part * d.vector[j];
        rest[j] += part * d.image[j];
      }
      trace -= inner(d.vector, d.image);
      form += part * inner(d.vector, column);
    }
    // ωᵀ P A P ω = (ω − Qx)ᵀ (A ω − A Q x), written so that small differences are taken first.
    form -= inner(inside, rest);
    const double kept = static_cast<double>(inside.size()) - static_cast<double>(lost.size());
    const double outside = rows_ - inner(inside, inside);
    const double scale = rows_ > kept && outside > 0 ? (rows_ - kept) / outside : 0;
    return trace + scale * form;
  }

  const XTraceState& state_;
  double rows_;
  double captured_ = 0, rounding_ = 0;                           // tr H
  std::vector<std::vector<double>> samples_, images_, columns_;  // Qᵀ ω_i, H Qᵀ ω_i and Qᵀ A ω_i
  std::vector<Direction> lost_;
};

Estimate mean_estimate(const LeaveOut& leave_out) {
  const std::size_t k = leave_out.probes();
  std::vector<double> estimates;
  for (std::size_t i = 0; i < k; ++i) estimates.push_back(leave_out.without(i));
  Estimate result = estimate_mean(estimates);
  if (k < 2) {  // no spread to tell an error from; an operator with one row needs none
    if (leave_out.exact()) result.standard_error = leave_out.rounding();
    return result;
  }
  double covariance = 0;  // of two of the estimates
  for (std::size_t i = 0; i < k && !leave_out.exact(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      covariance += (estimates[i] - leave_out.without(i, j)) * (estimates[j] - leave_out.without(j, i));
    }
  }
  covariance /= static_cast<double>(k) * static_cast<double>(k - 1) / 2;
  const double spread = result.standard_error;
  result.standard_error =
      std::max(std::sqrt(spread * spread + std::max(0.0, covariance)), leave_out.rounding());
  // As far as the error is not from the spread, the tail of the spread is not that of the error.
  if (spread > 0) result.skewness *= std::pow(spread / result.standard_error, 3);
  return result;
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
    estimate = mean_estimate(LeaveOut(a, current));
    estimate.converged =
        estimate.samples >= std::min(options.min_probes, most) &&
        estimate.standard_error <=
            std::max(options.relative_error * std::abs(estimate.value), options.absolute_error);
    return estimate;
  };
  std::vector<Vector> probes;  // not part of the state, since they can be drawn again
  for (int i = 0; i < current.probes(); ++i) probes.push_back(draw(a, current, i));
  Estimate estimate = report();
  while (const int count =
             next_pass(current.probes(), options.probes_per_pass, most, [&] { return estimate.converged; })) {
    extend(a, current, probes, count);
    estimate = report();
    if (options.progress && !options.progress(current, estimate)) break;
  }
  return estimate;
}

}  // namespace goshawk
