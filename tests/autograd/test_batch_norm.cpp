// The fused batch normalisation against the composition it falls back to.
#include <cmath>
#include <doctest/doctest.h>

#include "autograd/grad.hpp"
#include "autograd/ops.hpp"
#include "core/random.hpp"

using namespace goshawk;

namespace {

struct Derivatives {
  Tensor y;
  std::vector<Tensor> gradient, product;
};

// Value, gradient and a Hessian-vector product of ⟨u, f(x, gamma, beta, residual)²⟩.
template <class F>
Derivatives derivatives(const F& f) {
  Random random(5);
  std::vector<Variable> inputs;
  for (const Shape& shape : {Shape{6, 3, 3, 5}, Shape{5}, Shape{5}, Shape{6, 3, 3, 5}}) {
    inputs.push_back(Variable::leaf(random_normal(shape, DType::f64, random)));
  }
  const Variable u = random_normal({6, 3, 3, 5}, DType::f64, random);
  std::vector<Tensor> v;
  for (const Variable& input : inputs) v.push_back(random_normal(input.shape(), DType::f64, random));
  const Variable y = f(inputs);
  const Variable loss = dot(u, y * y);
  Derivatives d{y.value(), {}, hvp(loss, inputs, v)};
  for (const Variable& g : grad(loss, inputs, {.allow_unused = true})) d.gradient.push_back(g.value());
  return d;
}

void check_close(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    CHECK(std::abs(a.data<double>()[i] - b.data<double>()[i]) < 1e-10);
  }
}

}  // namespace

TEST_CASE("value, gradient and Hessian-vector product of the fused op equal those of its composition") {
  for (const bool relu : {false, true}) {
    for (const bool residual : {false, true}) {
      const auto epilogue = [&](const std::vector<Variable>& v) {
        return NormEpilogue{.relu = relu, .residual = residual ? v[3] : Variable()};
      };
      // The residual takes part, times zero, where the op does not use it.
      const Derivatives fused = derivatives([&](const std::vector<Variable>& v) {
        return batch_norm_train(v[0], v[1], v[2], 1e-5, epilogue(v)).y + scale(v[3], 0);
      });
      const Derivatives composed = derivatives([&](const std::vector<Variable>& v) {
        return batch_norm_train_composed(v[0], v[1], v[2], 1e-5, epilogue(v)) + scale(v[3], 0);
      });
      check_close(fused.y, composed.y);
      for (std::size_t k = 0; k < 4; ++k) {
        check_close(fused.gradient[k], composed.gradient[k]);
        check_close(fused.product[k], composed.product[k]);
      }
    }
  }
}

TEST_CASE("eval mode without recording equals eval mode in a graph") {
  Random random(6);
  const Tensor x = random_normal({4, 2, 2, 5}, DType::f64, random),
               r = random_normal({4, 2, 2, 5}, DType::f64, random);
  const Variable gamma = Variable::leaf(random_normal({5}, DType::f64, random));
  const Variable beta = Variable::leaf(random_normal({5}, DType::f64, random));
  const Tensor mean = random_normal({5}, DType::f64, random),
               var = random_uniform({5}, DType::f64, random, 0.5, 2);
  const NormEpilogue epilogue{.relu = true, .residual = r};
  const Tensor recorded = batch_norm_eval(x, gamma, beta, mean, var, 1e-5, epilogue).value();
  const NoGrad no_grad;
  check_close(batch_norm_eval(x, gamma, beta, mean, var, 1e-5, epilogue).value(), recorded);
}
