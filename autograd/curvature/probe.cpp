#include "autograd/curvature/probe.hpp"

namespace goshawk {

std::vector<Vector> draw_probes(const LinearOperator& a, Probe probe, std::uint64_t seed,
                                std::uint64_t stream, int count) {
  std::vector<Vector> probes;
  for (int i = 0; i < count; ++i) {
    Random random(seed, stream + static_cast<std::uint64_t>(i));
    probes.push_back(probe == Probe::rademacher ? rademacher_vector(a.shapes(), a.dtype(), random)
                                                : normal_vector(a.shapes(), a.dtype(), random));
  }
  return probes;
}

}  // namespace goshawk
