// Lanczos with full reorthogonalisation and thick restarts: eigenpairs from both ends of the spectrum.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "autograd/curvature/operator.hpp"
#include "autograd/curvature/results.hpp"

namespace goshawk {

/// Everything that the iteration knows between two steps: enough to go on after a break and end with the same
/// bits. Vectors are never changed in place once they are here, so a copy of the state stays as it is.
struct LanczosState {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  int block = 1;
  /// Orthonormal V and next vectors P, also orthonormal and orthogonal to V, with A V = V H + P C.
  std::vector<Vector> basis;
  std::vector<Vector> next;
  /// Row i of the lower triangle of H = Vᵀ A V (f64): elements 0 … i.
  std::vector<std::vector<double>> projected;
  /// C, a row for each vector of P.
  std::vector<std::vector<double>> coupling;
  int products = 0;  ///< A v so far
  int restarts = 0;
  int fresh = 0;  ///< random vectors drawn so far: the start, and one wherever the Krylov space was exhausted
};

/// An approximate eigenvalue and ‖A v − λ v‖ of its vector.
struct RitzValue {
  double value = 0;
  double residual = 0;
};

struct LanczosOptions {
  /// How many pairs from the upper end of the spectrum, and from the lower one (the most negative).
  int largest = 1;
  int smallest = 0;
  /// A pair has converged when ‖A v − λ v‖ ≤ tolerance · |λ|, or is no more than rounding errors of A. The
  /// eigenvalue itself is better than that: its error is at most the residual squared over the distance to
  /// the rest of the spectrum.
  double tolerance = 1e-3;
  /// Vectors multiplied at once. With b > 1 it is block Lanczos: it finds eigenvalues that are repeated up to
  /// b times, uses operators that share work between products, and needs more products in all.
  int block = 1;
  int max_products = 1000;
  /// Most vectors in the basis before a restart, as far as they fit into basis_bytes.
  int max_basis = 128;
  std::int64_t basis_bytes = std::int64_t{4} << 30;
  /// Random vector i (see LanczosState::fresh) has N(0, 1) elements from the stream (seed, stream + i).
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  /// Called after each step (`block` products) with the state (save it to resume later) and the current
  /// approximations of the wanted pairs, largest first and smallest first; returning false ends the search
  /// with the pairs as they are.
  std::function<bool(const LanczosState& state, std::span<const RitzValue> largest,
                     std::span<const RitzValue> smallest)>
      progress = {};
};

/// `residual` of a pair is that of the recurrence plus the rounding of one product.
struct LanczosResult {
  std::vector<Eigenpair>
      largest;  ///< by falling value; fewer than wanted when ended before there were as many
  std::vector<Eigenpair> smallest;  ///< by rising value: the most negative first
  int products = 0;                 ///< A v in all, those of a resumed state included
  int restarts = 0;
  bool converged = false;  ///< every wanted pair
};

/// Eigenpairs at both algebraic ends of the spectrum, by the Lanczos process with full reorthogonalisation
/// (coefficients in f64) in its block form (Golub & Underwood, 1977) with thick restarts (Wu & Simon, SIAM J.
/// Matrix Anal. Appl. 22(2), 2000): when the basis is full, the best Ritz vectors and the residual go on.
/// Where the Krylov space is exhausted (an invariant subspace has been found), a fresh random vector beside
/// it goes on, so that pairs which the start vector does not contain are found too; a basis of all n rows is
/// exact.
///
/// An eigenvalue repeated more than `block` times may be reported fewer times than it occurs, since a Krylov
/// space from b vectors contains at most b vectors of its eigenspace; lanczos_repeated
/// (repeated_eigenvalues.hpp) finds out and completes them. A non-null `state` is where to start (as a former
/// call left it, or empty) and is kept up to date. Throws Error for options out of range, a state that does
/// not belong to them, memory too small for the basis, or a product that is not finite.
LanczosResult lanczos(const LinearOperator& a, const LanczosOptions& options = {},
                      LanczosState* state = nullptr);

}  // namespace goshawk
