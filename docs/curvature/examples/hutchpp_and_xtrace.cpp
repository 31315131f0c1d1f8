// The trace of a network's Hessian by three estimators, from 90 products each.
#include <fmt/core.h>

#include "autograd/curvature/hessian_operator.hpp"
#include "autograd/curvature/hutchpp.hpp"
#include "autograd/curvature/xtrace.hpp"
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

  const auto print = [](const char* name, const Estimate& e) {
    fmt::print("{:10} {:.5f} ± {:.5f}\n", name, e.value, e.standard_error);
  };
  const double exact_enough = 0;  // no stop before the products are spent
  print("Hutchinson", hutchinson(h, {.relative_error = exact_enough, .max_samples = 90}));
  print("Hutch++", hutchpp(h, {.rank = 30, .relative_error = exact_enough, .max_samples = 30}));
  const Estimate last = xtrace(h, {.relative_error = exact_enough, .max_probes = 45});
  print("XTrace", last);
  return last.samples == 45 ? 0 : 1;
}
