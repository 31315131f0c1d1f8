// Power iteration with deflation: the eigenpairs of largest magnitude.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "autograd/curvature/operator.hpp"
#include "autograd/curvature/results.hpp"

namespace goshawk {

/// Everything known between two products: enough to go on after a break and end with the same bits. Vectors
/// are never changed in place once they are here.
struct PowerIterationState {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  std::vector<Eigenpair> found;  ///< pairs that are done
  // Of the pair under way:
  Vector next;                     ///< to be multiplied; empty before its first product
  std::optional<double> previous;  ///< λ of the last product
  int iterations = 0;              ///< products so far
};

struct PowerIterationOptions {
  int pairs = 1;
  /// Stop when |λ_k − λ_{k+1}| < tolerance · |λ_k| …
  double tolerance = 1e-3;
  /// … and the residual is at most this, of what is orthogonal to the pairs found. It hardly ever binds after
  /// the first rule, except where eigenvalues of nearly equal size and opposite sign make λ_k stand still far
  /// from either. A pair has converged when its whole residual is at most this, to which the errors of the
  /// pairs found add; more products of the same pair would not help that, but a smaller `tolerance` does.
  double residual_tolerance = 0.25;
  int max_iterations = 100;  ///< per pair
  /// Pair p starts from N(0, 1) elements of the random stream (seed, stream + p).
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  /// Called after each product with the pair's index, the products spent on it and the current λ; returning
  /// false ends the search with the pairs found so far, the last one as it is.
  std::function<bool(int pair, int iteration, double value)> progress = {};
};

/// The eigenpairs of a symmetric operator whose eigenvalues are largest in magnitude, negative ones with
/// their sign, in the order found. v ~ N(0, 1); repeat λ = vᵀHv, v ← Hv / ‖Hv‖; further pairs orthogonal to
/// those found (HAWQ, Dong et al., arXiv 1905.03696). A non-null `state` is where to start (as a former call
/// left it, or empty) and is kept up to date. Throws Error when more pairs are asked for than the operator
/// has rows, for a state that does not belong to the options, or when a product is not finite.
std::vector<Eigenpair> power_iteration(const LinearOperator& a, const PowerIterationOptions& options = {},
                                       PowerIterationState* state = nullptr);

}  // namespace goshawk
