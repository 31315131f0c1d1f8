#include "autograd/curvature/repeated_eigenvalues.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "autograd/curvature/operator_views.hpp"

namespace goshawk {
namespace {

constexpr std::uint64_t kStreamsEach = std::uint64_t{1} << 20;

// The size of the numbers in A, whatever is wanted of it: a wanted zero would not show it.
double scale_of(const LanczosState& search) {
  double scale = 0;
  for (const std::vector<double>& row : search.projected) {
    for (double element : row) scale = std::max(scale, std::abs(element));
  }
  return scale;
}

template <class Use>
void for_each_pair(const LanczosResult& found, const Use& use) {
  for (const std::vector<Eigenpair>* pairs : {&found.largest, &found.smallest}) {
    for (const Eigenpair& pair : *pairs) use(pair);
  }
}

// A value that is not at an end that is wanted.
double between(const LanczosResult& found, double scale) {
  if (found.smallest.empty()) return found.largest.back().value - 2 * scale;
  if (found.largest.empty()) return found.smallest.back().value + 2 * scale;
  return (found.largest.back().value + found.smallest.back().value) / 2;
}

// The tolerance of a search that sees the eigenvalues less mu, where it bounds residuals by |λ − mu| instead
// of |λ|. Half of what is asked for, as the pairs found, which are not exact, add theirs. A missing copy may
// be of any of them.
double seen_from(double mu, double tolerance, const LanczosResult& found, double epsilon) {
  double factor = 0.5;
  for_each_pair(found, [&](const Eigenpair& pair) {
    const double size = std::abs(pair.value), seen = std::abs(pair.value - mu);
    if (size < seen) factor = std::min(factor, size / seen / 2);
  });
  // Below rounding lanczos does not look for more, but it wants a positive number.
  return std::max(tolerance * factor, epsilon);
}

// The tolerance with which the errors of all pairs, of up to `scale`, leave the smallest half of its own.
double close_for_all(const LanczosResult& found, double tolerance, double scale, double epsilon) {
  double smallest = scale, count = 0;
  for_each_pair(found, [&](const Eigenpair& pair) {
    smallest = std::min(smallest, std::abs(pair.value));
    ++count;
  });
  return std::max(tolerance * (scale > 0 ? smallest / scale : 0) / (2 * std::sqrt(count)), epsilon);
}

// Whether `value` lies beyond the last pair of one end by more than `noise`: `sign` is 1 for the largest and
// −1 for the smallest.
bool belongs(const std::vector<Eigenpair>& pairs, double value, double sign, double tolerance, double noise) {
  const double last = pairs.back().value;
  return sign * (value - last) > std::max(tolerance * std::max(std::abs(value), std::abs(last)), noise);
}

// What a pair of the complement of `found` pairs is to A itself: its value, its residual, and whether that is
// small enough.
void measure(const LinearOperator& a, Eigenpair& pair, double tolerance, double scale, std::size_t found) {
  const Vector product = a.apply(pair.vector);
  pair.value = dot(pair.vector, product);
  axpy(-pair.value, pair.vector, product);
  const double rounding = epsilon(a.dtype()) * scale, magnitude = std::abs(pair.value);
  const double error = norm(product) + rounding;
  // lanczos takes residuals up to 64 ε‖A‖ for rounding. In the complement ‖A − μ‖ ≤ 2‖A‖ stands for ‖A‖, and
  // along each pair that was found so the product has that pair's residual.
  const double allowance = (65 + 64 * (1 + std::sqrt(static_cast<double>(found)))) * rounding;
  pair.converged = error <= std::max(tolerance * magnitude, allowance);
  const bool zero = pair.converged && magnitude <= 64 * rounding;
  pair.residual = zero ? 0 : magnitude > 0 ? error / magnitude : std::numeric_limits<double>::infinity();
}

void insert(std::vector<Eigenpair>& pairs, Eigenpair pair, double sign) {
  const auto beyond = [&](const Eigenpair& other) { return sign * (pair.value - other.value) > 0; };
  const auto place = std::find_if(pairs.begin(), pairs.end(), beyond);
  pairs.insert(place, std::move(pair));
  pairs.pop_back();
}

// One run through all searches.
class Searches {
 public:
  Searches(const LinearOperator& a, const LanczosOptions& options, RepeatedLanczosState& state)
      : a_(a), options_(options), search_(options), state_(state) {
    if (!options.progress) return;
    search_.progress = [this](const LanczosState& at, std::span<const RitzValue> largest,
                              std::span<const RitzValue> smallest) {
      stopped_ = !options_.progress(at, largest, smallest);
      return !stopped_;
    };
  }

  LanczosResult run() {
    LanczosResult result = first();
    scale_ = scale_of(state_.searches[0]);
    for (std::size_t s = 1; result.converged && !complete_ && !stopped_; ++s) {
      if (result.products >= options_.max_products) break;
      if (!find_more(s, result)) break;
    }
    result.converged = result.converged && complete_;
    for_each_pair(result, [&](const Eigenpair& pair) { result.converged &= pair.converged; });
    return result;
  }

  // No copy of an eigenvalue found can be missing.
  bool complete() const { return complete_; }
  bool stopped() const { return stopped_; }

 private:
  LanczosState* search_state(std::size_t s) {
    if (state_.searches.size() <= s) state_.searches.resize(s + 1);
    return &state_.searches[s];
  }

  LanczosResult first() {
    if (state_.closer > 0) search_.tolerance = state_.closer;
    search_.max_products = std::max(1, options_.max_products - state_.dropped);
    LanczosResult result = lanczos(a_, search_, search_state(0));
    result.products += state_.dropped;
    for (std::vector<Eigenpair>* pairs : {&result.largest, &result.smallest}) {
      for (Eigenpair& pair : *pairs) {
        pair.converged = pair.converged || pair.residual <= options_.tolerance;
        found_.push_back(pair.vector);
      }
    }
    search_.largest = std::min(options_.largest, 1);
    search_.smallest = std::min(options_.smallest, 1);
    return result;
  }

  // Search s: whether there may be more.
  bool find_more(std::size_t s, LanczosResult& result) {
    const double mu = between(result, scale_);
    const AffineOperator moved = shifted(a_, mu);
    const DeflatedOperator complement(moved, found_);
    if (static_cast<std::int64_t>(complement.basis().size()) == a_.size()) {  // there is nothing else
      complete_ = true;
      return false;
    }
    search_.tolerance = seen_from(mu, options_.tolerance, result, epsilon(a_.dtype()));
    search_.stream = options_.stream + s * kStreamsEach;
    search_.max_products = options_.max_products - result.products;
    LanczosResult more = lanczos(complement, search_, search_state(s));
    result.products += more.products;
    result.restarts += more.restarts;
    bool added = false, looked_at_all = more.converged;
    const double noise = 64 * epsilon(a_.dtype()) * scale_;
    const auto merge = [&](std::vector<Eigenpair>& pairs, std::vector<Eigenpair>& others, double sign) {
      for (Eigenpair& pair : others) {
        if (!belongs(pairs, pair.value + mu, sign, options_.tolerance, noise)) continue;
        if (result.products >= options_.max_products) {
          looked_at_all = false;
          continue;
        }
        orthonormalise(pair.vector, complement.basis());
        measure(a_, pair, options_.tolerance, scale_, found_.size());
        ++result.products;
        if (!belongs(pairs, pair.value, sign, options_.tolerance, noise)) continue;
        found_.push_back(pair.vector);
        added = true;
        insert(pairs, std::move(pair), sign);
      }
    };
    merge(result.largest, more.largest, 1);
    merge(result.smallest, more.smallest, -1);
    complete_ = looked_at_all && !added;
    return looked_at_all && added;
  }

  const LinearOperator& a_;
  const LanczosOptions& options_;
  LanczosOptions search_;
  RepeatedLanczosState& state_;
  std::vector<Vector> found_;
  double scale_ = 0;
  bool stopped_ = false, complete_ = false;
};

}  // namespace

LanczosResult lanczos_repeated(const LinearOperator& a, const LanczosOptions& options,
                               RepeatedLanczosState* state) {
  RepeatedLanczosState fresh;
  RepeatedLanczosState& current = state != nullptr ? *state : fresh;
  Searches searches(a, options, current);
  LanczosResult result = searches.run();
  if (result.converged || !searches.complete() || searches.stopped() || current.closer > 0) return result;
  // Some copies inherit more from the pairs found than their own size allows: all again, with closer pairs.
  current.closer =
      close_for_all(result, options.tolerance, scale_of(current.searches[0]), epsilon(a.dtype()));
  current.dropped = result.products - current.searches[0].products;
  current.searches.resize(1);
  Searches closer(a, options, current);
  LanczosResult again = closer.run();
  if (closer.complete()) return again;
  result.products = again.products;
  result.restarts = again.restarts;
  return result;
}

}  // namespace goshawk
