#include "autograd/curvature/repeated_eigenvalues.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "autograd/curvature/operator_views.hpp"

namespace goshawk {
namespace {

constexpr std::uint64_t kStreamsEach = std::uint64_t{1} << 20;

double largest_magnitude(const LanczosResult& found) {
  double scale = 0;
  for (const std::vector<Eigenpair>* pairs : {&found.largest, &found.smallest}) {
    for (const Eigenpair& pair : *pairs) scale = std::max(scale, std::abs(pair.value));
  }
  return scale;
}

// A value that is not at an end that is wanted.
double between(const LanczosResult& found) {
  const double scale = largest_magnitude(found);
  if (found.smallest.empty()) return found.largest.back().value - 2 * scale;
  if (found.largest.empty()) return found.smallest.back().value + 2 * scale;
  return (found.largest.back().value + found.smallest.back().value) / 2;
}

// The tolerance of a search that sees the eigenvalues less mu, where it bounds residuals by |λ − mu| instead
// of |λ|. Half of what is asked for, as the pairs found, which are not exact, add theirs.
double seen_from(double mu, double tolerance, const LanczosResult& found, double epsilon) {
  double factor = 0.5;
  for (const std::vector<Eigenpair>* pairs : {&found.largest, &found.smallest}) {
    if (pairs->empty()) continue;
    const double last = std::abs(pairs->back().value), seen = std::abs(pairs->back().value - mu);
    if (last < seen) factor = std::min(factor, last / seen / 2);
  }
  // Below rounding lanczos does not look for more, but it wants a positive number.
  return std::max(tolerance * factor, epsilon);
}

// Whether `value` lies beyond the last pair of one end: `sign` is 1 for the largest and −1 for the smallest.
bool belongs(const std::vector<Eigenpair>& pairs, double value, double sign, double tolerance) {
  const double last = pairs.back().value;
  return sign * (value - last) > tolerance * std::max(std::abs(value), std::abs(last));
}

// What a pair of the complement is to A itself: its value, its residual, and whether that is small enough.
// `scale`: the size of the numbers that it was computed from.
void measure(const LinearOperator& a, Eigenpair& pair, double tolerance, double scale) {
  const Vector product = a.apply(pair.vector);
  pair.value = dot(pair.vector, product);
  axpy(-pair.value, pair.vector, product);
  const double rounding = epsilon(a.dtype()) * scale, magnitude = std::abs(pair.value);
  const double error = norm(product) + rounding;
  pair.converged = error <= std::max(tolerance * magnitude, 65 * rounding);
  const bool zero = pair.converged && magnitude <= 64 * rounding;
  pair.residual = zero ? 0 : magnitude > 0 ? error / magnitude : std::numeric_limits<double>::infinity();
}

void insert(std::vector<Eigenpair>& pairs, Eigenpair pair, double sign) {
  const auto beyond = [&](const Eigenpair& other) { return sign * (pair.value - other.value) > 0; };
  const auto place = std::find_if(pairs.begin(), pairs.end(), beyond);
  pairs.insert(place, std::move(pair));
  pairs.pop_back();
}

}  // namespace

LanczosResult lanczos_repeated(const LinearOperator& a, const LanczosOptions& options,
                               RepeatedLanczosState* state) {
  RepeatedLanczosState fresh;
  RepeatedLanczosState& current = state != nullptr ? *state : fresh;
  const auto search_state = [&](std::size_t s) -> LanczosState* {
    if (current.searches.size() <= s) current.searches.resize(s + 1);
    return &current.searches[s];
  };
  bool stopped = false;
  LanczosOptions search = options;
  if (options.progress) {
    search.progress = [&](const LanczosState& at, std::span<const RitzValue> largest,
                          std::span<const RitzValue> smallest) {
      stopped = !options.progress(at, largest, smallest);
      return !stopped;
    };
  }
  LanczosResult result = lanczos(a, search, search_state(0));
  std::vector<Vector> found;
  for (const std::vector<Eigenpair>* pairs : {&result.largest, &result.smallest}) {
    for (const Eigenpair& pair : *pairs) found.push_back(pair.vector);
  }
  bool complete = false;  // no copy of an eigenvalue found can be missing
  for (std::size_t s = 1; result.converged && !stopped; ++s) {
    const double mu = between(result);
    const AffineOperator moved = shifted(a, mu);
    const DeflatedOperator complement(moved, found);
    if (static_cast<std::int64_t>(complement.basis().size()) == a.size()) {  // there is nothing else
      complete = true;
      break;
    }
    search.largest = std::min(options.largest, 1);
    search.smallest = std::min(options.smallest, 1);
    search.tolerance = seen_from(mu, options.tolerance, result, epsilon(a.dtype()));
    search.stream = options.stream + s * kStreamsEach;
    search.max_products = options.max_products - result.products;
    if (search.max_products < 1) {
      result.converged = false;
      break;
    }
    LanczosResult more = lanczos(complement, search, search_state(s));
    result.products += more.products;
    result.restarts += more.restarts;
    result.converged = more.converged;
    const double scale = std::max(largest_magnitude(result), largest_magnitude(more));
    bool added = false;
    const auto merge = [&](std::vector<Eigenpair>& pairs, std::vector<Eigenpair>& others, double sign) {
      for (Eigenpair& pair : others) {
        if (!belongs(pairs, pair.value + mu, sign, options.tolerance)) continue;
        if (result.products >= options.max_products) {
          result.converged = false;
          continue;
        }
        orthonormalise(pair.vector, complement.basis());
        measure(a, pair, options.tolerance, scale);
        ++result.products;
        if (!belongs(pairs, pair.value, sign, options.tolerance)) continue;
        result.converged = result.converged && pair.converged;
        found.push_back(pair.vector);
        added = true;
        insert(pairs, std::move(pair), sign);
      }
    };
    merge(result.largest, more.largest, 1);
    merge(result.smallest, more.smallest, -1);
    if (!added) {
      complete = true;
      break;
    }
  }
  result.converged = result.converged && complete;
  return result;
}

}  // namespace goshawk
