// Eigenpairs at both ends of the spectrum, each eigenvalue as often as it occurs.
#pragma once

#include <vector>

#include "autograd/curvature/lanczos.hpp"

namespace goshawk {

/// The searches so far: enough to go on after a break and end with the same bits.
struct RepeatedLanczosState {
  std::vector<LanczosState> searches;
  double closer = 0;  ///< tolerance of the first search when all are made again (see below); 0 until then
  int dropped = 0;    ///< products of the searches that were made again
};

/// lanczos, which finds an eigenvalue only as often as its block has vectors, and then a search for a single
/// pair at each wanted end in the complement of what was found, from another random vector, until one finds
/// nothing that belongs among the wanted pairs: nothing that lies beyond the last of them by more than
/// tolerance · |λ|. In the complement (A − μ)(I − QQᵀ) is what is multiplied, with μ between the ends, so
/// that the pairs found do not stand in the way; it is searched closely enough for `tolerance` to hold for A.
/// What enters is measured with one more product of A, and `converged` speaks of that residual; what rounding
/// of A, of the search and of the pairs found explains counts as 0. A last search that finds nothing costs
/// about as many products as finding a single pair did.
///
/// A copy also has errors of the pairs found, by |rᵀ v| with r their residuals, and where it is much smaller
/// than they are (a zero beside anything else), those may be too large for it. Then all is done once more
/// with pairs close enough for the smallest; if max_products do not allow that, the pairs stay as they are,
/// those that are not close enough not `converged`.
///
/// `max_products` holds for all searches together; search s takes its random vectors from the stream
/// options.stream + s · 2²⁰. Otherwise as lanczos.
LanczosResult lanczos_repeated(const LinearOperator& a, const LanczosOptions& options = {},
                               RepeatedLanczosState* state = nullptr);

}  // namespace goshawk
