#include "autograd/curvature/repeated_eigenvalues.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "autograd/curvature/operator_views.hpp"

namespace goshawk {
namespace {

constexpr std::uint64_t kStreamsEach = std::uint64_t{1} << 20;

// A value that is not at an end that is wanted.
double between(const LanczosResult& found) {
  double scale = 0;
  for (const std::vector<Eigenpair>* pairs : {&found.largest, &found.smallest}) {
    for (const Eigenpair& pair : *pairs) scale = std::max(scale, std::abs(pair.value));
  }
  if (found.smallest.empty()) return found.largest.back().value - 2 * scale;
  if (found.largest.empty()) return found.smallest.back().value + 2 * scale;
  return (found.largest.back().value + found.smallest.back().value) / 2;
}

// Puts a pair of the complement, whose eigenvalues are those of A less mu, into the list of pairs of one end
// if it belongs there: `sign` is 1 for the largest and −1 for the smallest. `leak` is what is left of A v in
// the space of the pairs found.
bool enter(std::vector<Eigenpair>& pairs, Eigenpair pair, double mu, double leak, double sign,
           double tolerance) {
  const double error = std::hypot(pair.residual * pair.value, leak);
  pair.value += mu;
  if (pair.value != 0) pair.residual = error / std::abs(pair.value);
  const double last = pairs.back().value;
  if (sign * (pair.value - last) <= tolerance * std::max(std::abs(pair.value), std::abs(last))) return false;
  const auto beyond = [&](const Eigenpair& other) { return sign * (pair.value - other.value) > 0; };
  const auto place = std::find_if(pairs.begin(), pairs.end(), beyond);
  pairs.insert(place, std::move(pair));
  pairs.pop_back();
  return true;
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
  double leak = 0;
  const auto add = [&](const Eigenpair& pair) {
    found.push_back(pair.vector);
    // |qᵀ A v| ≤ ‖A q − λ q‖ for v ⊥ q
    leak = std::hypot(leak, pair.residual * pair.value);
  };
  for (const std::vector<Eigenpair>* pairs : {&result.largest, &result.smallest}) {
    for (const Eigenpair& pair : *pairs) add(pair);
  }
  for (std::size_t s = 1; result.converged && !stopped; ++s) {
    const double mu = between(result);
    const AffineOperator moved = shifted(a, mu);
    const DeflatedOperator complement(moved, found);
    if (static_cast<std::int64_t>(complement.basis().size()) == a.size()) break;  // there is nothing else
    search.largest = std::min(options.largest, 1);
    search.smallest = std::min(options.smallest, 1);
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
    for (std::vector<Eigenpair>* pairs : {&more.largest, &more.smallest}) {
      for (const Eigenpair& pair : *pairs) orthonormalise(pair.vector, complement.basis());
    }
    std::vector<Eigenpair> added;
    const auto merge = [&](std::vector<Eigenpair>& pairs, const std::vector<Eigenpair>& others, double sign) {
      for (const Eigenpair& pair : others) {
        if (!enter(pairs, pair, mu, leak, sign, options.tolerance)) continue;
        added.push_back(pair);
      }
    };
    merge(result.largest, more.largest, 1);
    merge(result.smallest, more.smallest, -1);
    if (added.empty()) break;
    for (const Eigenpair& pair : added) add(pair);
  }
  return result;
}

}  // namespace goshawk
