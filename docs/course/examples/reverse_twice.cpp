// An op of our own whose derivative is written with ops, and what follows from that.
#include <cmath>
#include <fmt/core.h>
#include <numbers>

#include "autograd/curvature/block_vector.hpp"
#include "autograd/grad.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/jvp.hpp"
#include "autograd/ops.hpp"
#include "core/kernels/elementwise.hpp"

using namespace goshawk;

const Op& kSine = register_op("sine");

// sin x. Its derivative is the sine a quarter of a turn further on, so nothing else is ever needed.
Variable sine(const Variable& x) {
  return record(
      kSine, {x}, kernels::map(x.value(), "sine", [](auto v) { return std::sin(v); }),
      [x](const Backward& d) {
        return std::vector{mul(d.grad(), sine(add_scalar(x, std::numbers::pi / 2)))};
      },
      symmetric);
}

int main() {
  // Any derivative of f(x) = x sin x, each from the one before; at x = 1.
  const Variable x = Variable::leaf(Tensor::scalar(1, DType::f64));
  Variable f = mul(x, sine(x));
  for (int order = 0; order <= 4; ++order) {
    fmt::print("derivative {}: {:8.5f}\n", order, f.item());
    f = grad(f, std::vector{x}, {.create_graph = true})[0];
  }

  // A network that uses it, and a product with its Hessian by both roads.
  Random random(1);
  const Tensor data = random_normal({32, 6}, DType::f64, random);
  const Tensor target = random_normal({32, 1}, DType::f64, random);
  const std::vector<Variable> w{Variable::leaf(random_normal({6, 8}, DType::f64, random)),
                                Variable::leaf(random_normal({8, 1}, DType::f64, random))};
  const Variable error = matmul(sine(matmul(data, w[0])), w[1]) - target;
  const std::vector<Variable> g = grad(mean(error * error), w, {.create_graph = true});

  const std::vector<Variable> v{random_normal({6, 8}, DType::f64, random),
                                random_normal({8, 1}, DType::f64, random)};
  const std::vector<Variable> reverse = grad(g, w, {.grad_outputs = v});  // ∂⟨g, v⟩/∂w
  const std::vector<Variable> forward = jvp(g, w, v);                     // the tangent of g along v
  const Vector a{reverse[0].value(), reverse[1].value()}, b{forward[0].value(), forward[1].value()};
  fmt::print("‖Hv‖: reverse over reverse {:.6f}, forward over reverse {:.6f}\n", norm(a), norm(b));

  // The derivative of an own op deserves a check: second order, against differences.
  const auto op = [](const std::vector<Variable>& in) { return sine(in[0]); };
  const bool right = gradgradcheck(op, {random_normal({5}, DType::f64, random)}).ok;
  fmt::print("second derivative {}\n", right ? "right" : "wrong");
  axpy(-1, a, b);
  return right && norm(b) < 1e-12 * norm(a) ? 0 : 1;
}
