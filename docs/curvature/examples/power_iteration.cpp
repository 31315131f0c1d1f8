// The eigenvalues of largest magnitude of a network's Hessian, by power iteration.
#include "autograd/curvature/power_iteration.hpp"

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

  const std::vector<Eigenpair> pairs = power_iteration(h, {.pairs = 3, .max_iterations = 300});
  for (const Eigenpair& pair : pairs) {
    fmt::print("eigenvalue {:8.5f}, residual {:.1e}, {} products\n", pair.value, pair.residual,
               pair.iterations);
  }
  return pairs.back().converged ? 0 : 1;
}
