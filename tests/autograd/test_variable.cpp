#include <doctest/doctest.h>
#include <thread>

#include "autograd/grad.hpp"
#include "autograd/ops.hpp"
#include "core/random.hpp"

using namespace goshawk;

TEST_CASE("constants, leaves and results of ops know whether they need a gradient") {
  const Variable constant = Tensor::scalar(2, DType::f64);
  const Variable leaf = Variable::leaf(Tensor::scalar(3, DType::f64));
  CHECK_FALSE(constant.requires_grad());
  CHECK(leaf.requires_grad());
  CHECK_FALSE((constant * constant).requires_grad());
  CHECK((constant * leaf).requires_grad());
  CHECK_FALSE((constant * leaf).detach().requires_grad());
  CHECK_FALSE(Variable().defined());
  CHECK_THROWS_WITH_AS(Variable::leaf(Tensor::scalar(1, DType::i64)),
                       "[Variable::leaf] only f32 and f64 tensors can be differentiated, not i64", Error);
}

TEST_CASE("NoGrad makes constants and ends with its scope") {
  const Variable leaf = Variable::leaf(Tensor::scalar(3, DType::f64));
  {
    const NoGrad no_grad;
    CHECK_FALSE(recording());
    CHECK_FALSE((leaf * leaf).requires_grad());
  }
  CHECK(recording());
  CHECK((leaf * leaf).requires_grad());
}

TEST_CASE("a graph of a million nodes is differentiated and freed without recursion") {
  Variable x = Variable::leaf(Tensor::scalar(1, DType::f64));
  const Variable leaf = x;
  for (int i = 0; i < 1'000'000; ++i) x = add_scalar(x, 1);
  CHECK(x.item() == 1'000'001);
  CHECK(grad(x, std::vector{leaf})[0].item() == 1);
}

// Lives longer than every object of the thread that releases it.
static Variable kept_until_exit;

TEST_CASE("a graph of static lifetime is released after all else, which a sanitizer watches") {
  kept_until_exit = Variable::leaf(Tensor::scalar(1, DType::f64));
  for (int i = 0; i < 3; ++i) kept_until_exit = kept_until_exit * kept_until_exit;
  CHECK(kept_until_exit.item() == 1);
}

TEST_CASE("measuring holds for its scope and its thread") {
  CHECK_FALSE(measuring());
  {
    const MeasuringGuard outer;
    {
      const MeasuringGuard inner;
      CHECK(measuring());
    }
    CHECK(measuring());
    bool elsewhere = true;
    std::thread([&] { elsewhere = measuring(); }).join();
    CHECK_FALSE(elsewhere);
  }
  CHECK_FALSE(measuring());
}

TEST_CASE("independent graphs on several threads give the results they give alone") {
  const auto second_derivative = [](std::uint64_t seed) {
    Random random(seed);
    const Variable w = Variable::leaf(random_normal({8, 8}, DType::f64, random));
    const Variable x = random_normal({4, 8}, DType::f64, random);
    const Variable loss = mean(exp(tanh(matmul(x, w))));
    const std::vector<Tensor> v{random_normal({8, 8}, DType::f64, random)};
    return hvp(loss, std::vector{w}, v)[0].to_vector<double>();
  };
  std::vector<std::vector<double>> alone(8), together(8);
  for (std::size_t i = 0; i < 8; ++i) alone[i] = second_derivative(i);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int repeat = 0; repeat < 20; ++repeat) together[i] = second_derivative(i);
    });
  }
  for (std::thread& t : threads) t.join();
  CHECK(alone == together);
}

TEST_CASE("an op name can be registered once only") {
  CHECK_THROWS_AS(register_op("add"), Error);
}

TEST_CASE("graph_ops lists what a graph is made of") {
  const Variable x = Variable::leaf(Tensor::scalar(1, DType::f64));
  CHECK(graph_ops(exp(x) * x) == std::vector<std::string>{"exp", "mul"});
}
