// The diagonal of a network's Hessian, element by element with error bars.
#include "autograd/curvature/diagonal.hpp"

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

  const DiagonalEstimate d = diagonal(h, {.relative_error = 0.1});
  const double* value = d.value[1].data<double>();  // of the second layer
  const double* error = d.standard_error[1].data<double>();
  for (int i = 0; i < 5; ++i) {
    fmt::print("second derivative by weight {}: {:.5f} ± {:.5f}\n", i, value[i], error[i]);
  }
  fmt::print("relative error of the whole diagonal {:.3f} after {} probes\n", d.relative_error, d.samples);
  return d.converged ? 0 : 1;
}
