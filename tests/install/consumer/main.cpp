// Exact curvature of a small network, from the installed library alone.
#include <cmath>

#include "autograd/curvature/block_vector.hpp"
#include "autograd/grad.hpp"
#include "models/registry.hpp"
#include "nn/layers.hpp"
#include "quant/quantizer.hpp"

int main() {
  using namespace goshawk;
  const auto net = make_model("resnet20");
  net->set_mode(Mode::eval);
  Random random(/*seed=*/1);
  const Tensor images = random_normal({2, 32, 32, 3}, DType::f32, random);
  const Tensor labels = Tensor::zeros({2}, DType::i64);
  const GradientGraph gradient(softmax_cross_entropy((*net)(images), labels), net->parameters());
  Vector v;
  for (const Variable& p : net->parameters()) v.push_back(random_normal(p.shape(), p.dtype(), random));
  const double curvature = dot(v, gradient.apply(v));
  fmt::print("loss {:.4f}, vᵀHv {:.4f}\n", gradient.loss(), curvature);
  return std::isfinite(curvature) && quantize_weights(v.front(), {.bits = 2}).bits == 2 ? 0 : 1;
}
