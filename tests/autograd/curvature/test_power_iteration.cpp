#include <doctest/doctest.h>
#include <limits>

#include "autograd/curvature/power_iteration.hpp"
#include "core/parallel.hpp"
#include "tests/autograd/curvature/small_problems.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

double cosine(const Vector& v, const std::vector<double>& u) {
  const std::vector<double> flat = flatten(v);
  double sum = 0;
  for (std::size_t i = 0; i < u.size(); ++i) sum += flat[i] * u[i];
  return std::abs(sum);
}

}  // namespace

TEST_CASE("the test's own eigen solver: known spectrum, orthonormal vectors") {
  const std::vector<double> values{-7, 5, 3, -2, 0.5};
  const Eigen eigen = jacobi(symmetric_with(values));
  for (std::size_t i = 0; i < values.size(); ++i) {
    CHECK(std::abs(eigen.values[i] - values[i]) < 1e-13);
    for (std::size_t j = 0; j < values.size(); ++j) {
      double product = 0;
      for (std::size_t k = 0; k < values.size(); ++k) product += eigen.vectors[i][k] * eigen.vectors[j][k];
      CHECK(std::abs(product - (i == j ? 1 : 0)) < 1e-13);
    }
  }
}

TEST_CASE("the leading eigenpairs of a conv net's Hessian equal those of the dense matrix") {
  for (Activation activation : {Activation::tanh, Activation::relu}) {
    const ConvNet net(activation, {5, 5, 3});
    const HessianOperator h = net.hessian();
    const Eigen eigen = jacobi(dense(h));
    const std::vector<Eigenpair> pairs =
        power_iteration(h, {.pairs = 4, .tolerance = 1e-13, .max_iterations = 5000, .seed = 2});
    REQUIRE(pairs.size() == 4);
    for (std::size_t p = 0; p < pairs.size(); ++p) {
      INFO("activation " << static_cast<int>(activation) << ", pair " << p << ": " << pairs[p].value
                         << " after " << pairs[p].iterations << " products, dense " << eigen.values[p]);
      CHECK(pairs[p].converged);
      CHECK(std::abs(pairs[p].value - eigen.values[p]) < 1e-9 * std::abs(eigen.values[0]));
      CHECK(pairs[p].residual < 1e-4);
      CHECK(cosine(pairs[p].vector, eigen.vectors[p]) > 1 - 1e-8);
      CHECK(std::abs(norm(pairs[p].vector) - 1) < 1e-14);
      for (std::size_t q = 0; q < p; ++q) CHECK(std::abs(dot(pairs[p].vector, pairs[q].vector)) < 1e-13);
    }
  }
}

TEST_CASE("with HAWQ's stop rule a layer's top eigenvalue is within its reported residual of a true one") {
  const ConvNet net(Activation::relu, {6, 6, 1});
  const HessianOperator h = net.hessian();
  for (std::size_t l = 0; l < 3; ++l) {
    const HessianOperator block = h.block(l);
    const Eigen eigen = jacobi(dense(block));
    const Eigenpair pair = power_iteration(block, {.seed = 1}).front();
    CHECK(pair.converged);
    CHECK(pair.iterations > 2);
    CHECK(pair.iterations < 100);
    double nearest = std::numeric_limits<double>::infinity();
    for (double value : eigen.values) nearest = std::min(nearest, std::abs(value - pair.value));
    CHECK(nearest <= pair.residual * std::abs(pair.value));
    CHECK(std::abs(pair.value - eigen.values[0]) < 0.02 * eigen.values[0]);
    // The residual is what it says.
    const Vector product = block.apply(pair.vector);
    axpy(-pair.value, pair.vector, product);
    CHECK(std::abs(norm(product) / std::abs(pair.value) - pair.residual) < 1e-12);
  }
}

TEST_CASE("least squares: the top eigenvalue is that of (2/N) XᵀX") {
  Random random(3);
  const Tensor x = random_normal({9, 5}, DType::f64, random);
  const std::vector<Variable> w{Variable::leaf(random_normal({5, 1}, DType::f64, random))};
  const HessianOperator h(w, {9}, [&](std::size_t) {
    const Variable y = matmul(x, w[0]);
    return mean(y * y);
  });
  Matrix closed_form(5);
  for (std::size_t i = 0; i < 5; ++i) {
    for (std::size_t j = 0; j < 5; ++j) {
      for (std::size_t k = 0; k < 9; ++k) {
        closed_form(i, j) += x.data<double>()[k * 5 + i] * x.data<double>()[k * 5 + j] * 2 / 9;
      }
    }
  }
  const std::vector<Eigenpair> pairs =
      power_iteration(h, {.pairs = 5, .tolerance = 1e-14, .max_iterations = 3000});
  const Eigen eigen = jacobi(closed_form);
  for (std::size_t p = 0; p < 5; ++p)
    CHECK(std::abs(pairs[p].value - eigen.values[p]) < 1e-8 * eigen.values[0]);
}

TEST_CASE("negative curvature is found and keeps its sign") {
  const MatrixOperator a(symmetric_with({-4, 3, -1.5, 0.25}), {1, 3});
  const std::vector<Eigenpair> pairs =
      power_iteration(a, {.pairs = 4, .tolerance = 1e-13, .max_iterations = 1000});
  const std::vector<double> expected{-4, 3, -1.5, 0.25};
  for (std::size_t p = 0; p < 4; ++p) {
    CHECK(pairs[p].converged);
    CHECK(std::abs(pairs[p].value - expected[p]) < 1e-8);
  }
  // From a loss: x² − 3 y² at any point.
  const std::vector<Variable> w{Variable::leaf(Tensor::from<double>({0.3, 0.7}, {2}))};
  const HessianOperator h(w, {1}, [&](std::size_t) {
    return dot(Tensor::from<double>({1, -3}, {2}), w[0] * w[0]);
  });
  const Eigenpair pair = power_iteration(h, {.tolerance = 1e-12, .max_iterations = 200}).front();
  CHECK(pair.converged);
  CHECK(std::abs(pair.value + 6) < 1e-9);
}

TEST_CASE(
    "between opposite eigenvalues of one size λ stands still at any value, and the residual rule sees it") {
  // From v = cos θ u₊ + sin θ u₋ the iteration swaps between two vectors, both with λ = 2 cos 2θ and residual
  // |tan 2θ|; a residual of 0.25 means |λ| = 2 / √(1 + 0.25²).
  const MatrixOperator a(symmetric_with({2, -2, 0.1, 0.05}), {4});
  int converged = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Eigenpair pair = power_iteration(a, {.max_iterations = 50, .seed = seed}).front();
    const double tangent = std::sqrt(4 / (pair.value * pair.value) - 1);
    CHECK(std::abs(pair.residual - tangent) < 0.01 * (1 + tangent));
    CHECK(pair.converged == (pair.residual <= 0.25));
    CHECK(pair.iterations <= (pair.converged ? 10 : 50));
    converged += pair.converged ? 1 : 0;
  }
  CHECK(converged < 10);
  // Without that rule every start would have passed.
  CHECK(power_iteration(a, {.residual_tolerance = 1e9, .max_iterations = 50, .seed = 0}).front().iterations <
        10);
}

TEST_CASE("a pair that inherits too large a residual from an earlier one has not converged") {
  // Between 10 and −10 the first pair stands still at neither; in its complement there is a vector of the
  // plane left, which the deflated iteration takes for an eigenvector after a few products.
  const MatrixOperator opposite(symmetric_with({10, -10, 1}), {3});
  // And a small pair behind one that is found at 1 %.
  const MatrixOperator apart(symmetric_with({100, 90, 0.1, 0.05}), {4});
  bool some = false;
  for (const MatrixOperator* a : {&opposite, &apart}) {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      for (const Eigenpair& pair : power_iteration(*a, {.pairs = 3, .seed = seed})) {
        CAPTURE(pair.value);
        const Vector product = a->apply(pair.vector);
        axpy(-pair.value, pair.vector, product);
        CHECK(std::abs(norm(product) / std::abs(pair.value) - pair.residual) <= 1e-9 * (1 + pair.residual));
        if (pair.converged) CHECK(pair.residual <= 0.25);
        // It does not go on where more products would not help.
        some = some || (!pair.converged && pair.iterations < 100);
      }
    }
  }
  CHECK(some);
}

TEST_CASE("a small pair behind a large one is not taken for rounding at its random start in f32") {
  class Two : public LinearOperator {
   public:
    const std::vector<Shape>& shapes() const override { return shapes_; }
    DType dtype() const override { return DType::f32; }
    Vector apply(const Vector& v) const override {
      Vector product{Tensor::zeros(v[0].shape(), DType::f32)};
      product[0].data<float>()[0] = v[0].data<float>()[0];
      product[0].data<float>()[1] = 5e-3F * v[0].data<float>()[1];
      return product;
    }

   private:
    std::vector<Shape> shapes_{{1000000}};
  };
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    const std::vector<Eigenpair> pairs = power_iteration(Two(), {.pairs = 2, .seed = seed});
    CHECK(std::abs(pairs[1].value - 5e-3) < 1e-6);
  }
}

TEST_CASE("zero operators and exhausted ones converge to zero") {
  const Eigenpair zero = power_iteration(MatrixOperator(Matrix(3), {3})).front();
  CHECK(zero.converged);
  CHECK(zero.value == 0);
  CHECK(zero.residual == 0);
  CHECK(zero.iterations == 1);
  const std::vector<Eigenpair> pairs =
      power_iteration(MatrixOperator(symmetric_with({5, -2, 0, 0}), {4}),
                      {.pairs = 4, .tolerance = 1e-14, .max_iterations = 500});
  for (std::size_t p = 2; p < 4; ++p) {
    CHECK(pairs[p].converged);
    CHECK(std::abs(pairs[p].value) < 1e-12);
  }
}

TEST_CASE("the same bits again, on one thread or two, with graphs kept or not") {
  const ConvNet net(Activation::relu, {4, 4, 3});
  set_num_threads(1);
  const std::vector<Eigenpair> expected = power_iteration(net.hessian(), {.pairs = 2, .seed = 8});
  for (int threads : {1, 2}) {
    set_num_threads(threads);
    for (std::int64_t bytes : {std::int64_t{0}, std::int64_t{1} << 30}) {
      const std::vector<Eigenpair> pairs =
          power_iteration(net.hessian({.graph_bytes = bytes}), {.pairs = 2, .seed = 8});
      for (std::size_t p = 0; p < 2; ++p) {
        CHECK(pairs[p].value == expected[p].value);
        CHECK(pairs[p].residual == expected[p].residual);
        CHECK(pairs[p].iterations == expected[p].iterations);
        CHECK(same_bits(pairs[p].vector, expected[p].vector));
      }
    }
  }
  set_num_threads(0);
  CHECK(power_iteration(net.hessian(), {.seed = 9}).front().value != expected[0].value);
}

TEST_CASE("progress sees every product and can end the search") {
  const MatrixOperator a(symmetric_with({3, 2.9, 1}), {3});
  int calls = 0;
  const std::vector<Eigenpair> pairs =
      power_iteration(a, {.pairs = 2, .progress = [&](int pair, int iteration, double) {
                            CHECK(pair == 0);
                            CHECK(iteration == ++calls);
                            return calls < 2;
                          }});
  REQUIRE(pairs.size() == 1);
  CHECK(calls == 2);
  CHECK(pairs[0].iterations == 2);
  CHECK_FALSE(pairs[0].converged);
}

TEST_CASE("broken off after any product and resumed: the same bits") {
  const MatrixOperator a(symmetric_with({5, 4.5, -3, 2, 1, 0.5}), {2, 4});
  PowerIterationOptions options{.pairs = 3, .seed = 4};
  const std::vector<Eigenpair> whole = power_iteration(a, options);
  const auto check_whole = [&](const std::vector<Eigenpair>& pairs) {
    REQUIRE(pairs.size() == 3);
    for (std::size_t p = 0; p < 3; ++p) {
      CHECK(pairs[p].value == whole[p].value);
      CHECK(pairs[p].residual == whole[p].residual);
      CHECK(pairs[p].iterations == whole[p].iterations);
      CHECK(pairs[p].converged == whole[p].converged);
      CHECK(same_bits(pairs[p].vector, whole[p].vector));
    }
  };
  PowerIterationState state;
  std::vector<PowerIterationState> saved;
  options.progress = [&](int, int, double) {
    saved.push_back(state);
    return true;
  };
  check_whole(power_iteration(a, options, &state));
  CHECK(saved.size() > 10);
  options.progress = {};
  for (PowerIterationState& s : saved) check_whole(power_iteration(a, options, &s));
  // A finished state multiplies no more, and serves for fewer pairs.
  a.products = 0;
  check_whole(power_iteration(a, options, &state));
  options.pairs = 2;
  CHECK(power_iteration(a, options, &state).size() == 2);
  CHECK(a.products == 0);
  options.seed = 5;
  CHECK_THROWS_WITH_AS(power_iteration(a, options, &state), doctest::Contains("seed 4"), Error);
}

TEST_CASE("bad arguments and overflow are refused") {
  Matrix infinite(2);
  infinite(0, 0) = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH_AS(power_iteration(MatrixOperator(infinite, {2})), doctest::Contains("overflow"), Error);
  const MatrixOperator a(Matrix(2), {2});
  CHECK_THROWS_WITH_AS(power_iteration(a, {.pairs = 3}), doctest::Contains("3 eigenpairs"), Error);
  CHECK_THROWS_AS(power_iteration(a, {.pairs = 0}), Error);
  CHECK_THROWS_AS(power_iteration(a, {.max_iterations = 0}), Error);
}
