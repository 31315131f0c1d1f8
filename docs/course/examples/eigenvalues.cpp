// The top eigenvalue of a network's Hessian: power iteration and Lanczos, product by product.
#include <cmath>
#include <fmt/core.h>

#include "autograd/curvature/hessian_operator.hpp"
#include "autograd/curvature/lanczos.hpp"
#include "autograd/curvature/power_iteration.hpp"
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

  const LanczosResult exact = lanczos(h, {.largest = 2, .smallest = 1, .tolerance = 1e-12});
  const double top = exact.largest[0].value;
  fmt::print("largest {:.5f} and {:.5f}, smallest {:.5f}\n", top, exact.largest[1].value,
             exact.smallest[0].value);

  // What each method believes the largest eigenvalue to be after k products.
  std::vector<double> power, krylov;
  power_iteration(h, {.tolerance = 1e-15, .max_iterations = 40, .progress = [&](int, int, double value) {
                        power.push_back(value);
                        return true;
                      }});
  lanczos(h, {.tolerance = 1e-15,
              .max_products = 40,
              .progress = [&](const LanczosState&, std::span<const RitzValue> largest, auto) {
                krylov.push_back(largest[0].value);
                return true;
              }});
  fmt::print("products  power iteration  Lanczos   (relative error)\n");
  for (const std::size_t k : {2U, 5U, 10U, 15U, 20U, 25U}) {
    fmt::print("{:8} {:16.0e} {:8.0e}\n", k, std::abs(1 - power.at(k - 1) / top),
               std::abs(1 - krylov.at(k - 1) / top));
  }
}
