// The spectral density of a network's Hessian, as a rough picture in characters.
#include "autograd/curvature/spectral_density.hpp"

#include <fmt/core.h>

#include "autograd/curvature/hessian_operator.hpp"
#include "autograd/ops.hpp"

using namespace goshawk;

int main() {
  // A small untrained network: 64 random samples of 20 numbers, 4 classes, two layers of weights.
  Random random(1);
  const Tensor x = random_normal({64, 20}, DType::f64, random);
  std::vector<std::int64_t> classes;
  for (int i = 0; i < 64; ++i) classes.push_back(static_cast<std::int64_t>(random.below(4)));
  const Tensor y = Tensor::from(classes, {64});
  const std::vector<Variable> w{Variable::leaf(random_normal({20, 16}, DType::f64, random)),
                                Variable::leaf(random_normal({16, 4}, DType::f64, random))};
  const HessianOperator h(
      w, {64}, [&](std::size_t) { return softmax_cross_entropy(matmul(tanh(matmul(x, w[0])), w[1]), y); });

  const SpectralDensity d = spectral_density(h, {.steps = 40, .smoothing = 0.06, .points = 24});
  for (std::size_t i = 0; i < d.curve.grid.size(); ++i) {
    fmt::print("{:8.4f} {:8.4f} ± {:.4f} {:#<{}}\n", d.curve.grid[i], d.curve.density[i],
               d.curve.standard_error[i], "", static_cast<int>(20 * d.curve.density[i]));
  }
  fmt::print("from {:.5f} to {:.5f}; trace {:.4f} ± {:.4f}; {} products\n", d.lowest, d.highest,
             d.trace.value, d.trace.standard_error, d.products);
  return d.converged ? 0 : 1;
}
