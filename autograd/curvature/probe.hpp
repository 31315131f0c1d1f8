// The random vectors that estimators multiply with.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "autograd/curvature/operator.hpp"

namespace goshawk {

enum class Probe : std::uint8_t {
  rademacher,  ///< ±1: variance 2 Σ_{i≠j} H_ij², the least of all probes with independent elements
  gaussian,    ///< N(0, 1): variance 2 ‖H‖_F²
};

/// `count` probes for products with `a`, the i-th from the random stream (seed, stream + i).
std::vector<Vector> draw_probes(const LinearOperator& a, Probe probe, std::uint64_t seed,
                                std::uint64_t stream, int count);

/// How many probes an estimator takes next when `done` of at most `most` are done: up to the end of a pass of
/// `per_pass`, or 0 to stop. It asks whether there are `enough` only between whole passes, so that a loop
/// that was broken off elsewhere stops where one in a single piece does.
template <class Enough>
int next_pass(int done, int per_pass, int most, const Enough& enough) {
  if (done >= most || (done % per_pass == 0 && enough())) return 0;
  return std::min((done / per_pass + 1) * per_pass, most) - done;
}

}  // namespace goshawk
