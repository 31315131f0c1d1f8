// A Hessian-vector product, and how close differences of gradients come to it.
#include <algorithm>
#include <cmath>
#include <fmt/core.h>

#include "autograd/curvature/block_vector.hpp"
#include "autograd/grad.hpp"
#include "autograd/ops.hpp"

using namespace goshawk;

int main() {
  // 64 random samples of 20 numbers, 4 classes; two layers of weights, 384 in all.
  Random random(1);
  const Tensor x = random_normal({64, 20}, DType::f64, random);
  std::vector<std::int64_t> classes;
  for (int i = 0; i < 64; ++i) classes.push_back(static_cast<std::int64_t>(random.below(4)));
  const Tensor y = Tensor::from(classes, {64});
  const Vector w{random_normal({20, 16}, DType::f64, random), random_normal({16, 4}, DType::f64, random)};
  const Vector u = normal_vector(std::vector<Shape>{{20, 16}, {16, 4}}, DType::f64, random);
  const Vector v = normal_vector(std::vector<Shape>{{20, 16}, {16, 4}}, DType::f64, random);

  // The gradient at w + h v, as a graph.
  using Activation = Variable (*)(const Variable&);
  const auto gradient = [&](Activation f, double h) {
    const Vector moved = clone(w);
    axpy(h, v, moved);
    const std::vector<Variable> p{Variable::leaf(moved[0]), Variable::leaf(moved[1])};
    return GradientGraph(softmax_cross_entropy(matmul(f(matmul(x, p[0])), p[1]), y), p);
  };
  // How many digits of Hv the central difference of gradients gets right.
  const auto correct_digits = [&](Activation f, double h) {
    const Vector hv = gradient(f, 0).apply(v);
    const Vector error = clone(hv);
    for (const double side : {1.0, -1.0}) {
      const GradientGraph at = gradient(f, side * h);
      axpy(-side / (2 * h), {at.gradient()[0].value(), at.gradient()[1].value()}, error);
    }
    return std::max(0.0, -std::log10(norm(error) / norm(hv)));
  };

  const GradientGraph g = gradient(tanh, 0);
  fmt::print("uᵀHv = {:.6f}, vᵀHu = {:.6f}\n", dot(u, g.apply(v)), dot(v, g.apply(u)));
  fmt::print("correct digits of Hv by differences:\n step   tanh   relu\n");
  for (int k = 1; k <= 11; k += 2) {
    const double h = std::pow(10.0, -k);
    fmt::print("1e-{:02} {:6.0f} {:6.0f}\n", k, correct_digits(tanh, h), correct_digits(relu, h));
  }
}
