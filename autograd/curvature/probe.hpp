// The random vectors that estimators multiply with.
#pragma once

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

}  // namespace goshawk
