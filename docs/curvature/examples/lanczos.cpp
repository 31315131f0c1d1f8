// Both ends of the spectrum of a network's Hessian, by Lanczos.
#include "autograd/curvature/lanczos.hpp"

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

  const LanczosResult result = lanczos(h, {.largest = 3, .smallest = 3, .tolerance = 1e-6});
  for (const Eigenpair& pair : result.largest) {
    fmt::print("largest  {:8.5f}, residual {:.1e}\n", pair.value, pair.residual);
  }
  for (const Eigenpair& pair : result.smallest) {
    fmt::print("smallest {:8.5f}, residual {:.1e}\n", pair.value, pair.residual);
  }
  fmt::print("{} products for all of them\n", result.products);
  return result.converged ? 0 : 1;
}
