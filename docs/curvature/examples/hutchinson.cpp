// The trace of a network's Hessian, and of each of its layers, with error bars.
#include <fmt/core.h>

#include "autograd/curvature/block_traces.hpp"
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

  const Estimate whole = hutchinson(h, {.relative_error = 0.05, .absolute_error = 0.3});
  const Interval interval = confidence_interval(whole, 0.95);
  fmt::print("trace {:.4f} ± {:.4f}, 95 % from {:.4f} to {:.4f}, {} probes\n", whole.value,
             whole.standard_error, interval.low, interval.high, whole.samples);

  const BlockOperator layer = [&](std::size_t l) { return std::make_unique<HessianOperator>(h.block(l)); };
  const BlockTraces layers = block_traces(h, layer, {.relative_error = 0.05, .absolute_error = 0.3});
  for (const Estimate& e : layers.traces) {
    fmt::print("a layer's trace {:.4f} ± {:.4f}, {} probes\n", e.value, e.standard_error, e.samples);
  }
  fmt::print("{}: {}\n", layers.scheme == ProbeScheme::joint ? "joint" : "per block", layers.reason);
  return whole.converged ? 0 : 1;
}
