#include <doctest/doctest.h>
#include <limits>

#include "autograd/curvature/lanczos.hpp"
#include "autograd/curvature/operator_views.hpp"
#include "autograd/curvature/repeated_eigenvalues.hpp"
#include "core/parallel.hpp"
#include "tests/autograd/curvature/small_problems.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

std::vector<double> falling(std::vector<double> values) {
  std::sort(values.begin(), values.end(), std::greater<>());
  return values;
}

// Every pair equals the dense matrix's, is orthonormal to the others, and says its own residual.
void check_pairs(const LinearOperator& a, const LanczosResult& result, const std::vector<double>& spectrum,
                 double tolerance) {
  const std::vector<double> sorted = falling(spectrum);
  double scale = 0;
  for (double value : sorted) scale = std::max(scale, std::abs(value));
  const auto check_end = [&](const std::vector<Eigenpair>& pairs, const auto& expected) {
    for (std::size_t k = 0; k < pairs.size(); ++k) {
      INFO("pair " << k << " is " << pairs[k].value << ", expected " << expected(k));
      CHECK(std::abs(pairs[k].value - expected(k)) < tolerance * scale);
      CHECK(pairs[k].converged);
      const Vector product = a.apply(pairs[k].vector);
      axpy(-pairs[k].value, pairs[k].vector, product);
      // What counts as zero may have the rounding of all pairs found before.
      const double rounding = (pairs[k].residual == 0 ? 6e-14 : 64e-16) * scale;
      CHECK(norm(product) <= pairs[k].residual * std::abs(pairs[k].value) + rounding);
      for (std::size_t other = 0; other <= k; ++other) {
        CHECK(std::abs(dot(pairs[k].vector, pairs[other].vector) - (k == other ? 1 : 0)) < 1e-12);
      }
    }
  };
  check_end(result.largest, [&](std::size_t k) { return sorted[k]; });
  check_end(result.smallest, [&](std::size_t k) { return sorted[sorted.size() - 1 - k]; });
}

void check_equal(const LanczosResult& x, const LanczosResult& y) {
  CHECK(x.products == y.products);
  CHECK(x.restarts == y.restarts);
  CHECK(x.converged == y.converged);
  const auto check_end = [](const std::vector<Eigenpair>& left, const std::vector<Eigenpair>& right) {
    REQUIRE(left.size() == right.size());
    for (std::size_t k = 0; k < left.size(); ++k) {
      CHECK(left[k].value == right[k].value);
      CHECK(left[k].residual == right[k].residual);
      CHECK(same_bits(left[k].vector, right[k].vector));
    }
  };
  check_end(x.largest, y.largest);
  check_end(x.smallest, y.smallest);
}

// 80 values between −1 and 1 with both ends apart from the rest.
std::vector<double> two_ended() {
  std::vector<double> values;
  for (int i = 0; i < 80; ++i)
    values.push_back(std::sin(i * 0.7) * std::pow(std::abs(std::cos(i * 1.3)), 0.5));
  values.insert(values.end(), {2.5, 1.9, 1.6, -1.4, -1.2});
  return values;
}

}  // namespace

TEST_CASE(
    "both ends of an untrained conv net's Hessian equal the dense matrix's, with little memory and much") {
  for (Activation activation : {Activation::tanh, Activation::relu}) {
    const ConvNet net(activation, {5, 5, 3});
    const HessianOperator h = net.hessian();
    const Eigen eigen = jacobi(dense(h));
    for (int basis : {24, 128}) {
      const LanczosResult result =
          lanczos(h, {.largest = 5, .smallest = 4, .tolerance = 1e-10, .max_basis = basis, .seed = 3});
      INFO("activation " << static_cast<int>(activation) << ", basis " << basis << ": " << result.products
                         << " products, " << result.restarts << " restarts");
      CHECK(result.converged);
      CHECK((result.restarts > 0) == (basis == 24));
      REQUIRE(result.largest.size() == 5);
      REQUIRE(result.smallest.size() == 4);
      check_pairs(h, result, eigen.values, 1e-9);
      // There is negative curvature, and plenty.
      CHECK(result.smallest[0].value < -0.01 * result.largest[0].value);
    }
  }
}

TEST_CASE("it needs fewer products than power iteration's error would, and counts them right") {
  const std::vector<double> values = two_ended();
  const MatrixOperator a(symmetric_with(values), {40, 45});
  const LanczosResult result = lanczos(a, {.largest = 3, .smallest = 2, .tolerance = 1e-8});
  check_pairs(a, result, values, 1e-12);
  CHECK(result.restarts == 0);
  CHECK(result.products < 85);
  a.products = 0;
  const LanczosResult small = lanczos(a, {.largest = 3, .smallest = 2, .tolerance = 1e-8, .max_basis = 12});
  CHECK(a.products == small.products);
  CHECK(small.restarts > 2);
  check_pairs(a, small, values, 1e-12);
}

TEST_CASE("one end alone, and all pairs of a matrix from both ends") {
  const std::vector<double> values{-7, 5, 3, -2, 0.5, 0.25, 4};
  const MatrixOperator a(symmetric_with(values), {3, 4});
  const LanczosResult lowest = lanczos(a, {.largest = 0, .smallest = 2, .tolerance = 1e-9});
  CHECK(lowest.largest.empty());
  check_pairs(a, lowest, values, 1e-12);
  const LanczosResult all = lanczos(a, {.largest = 7, .smallest = 7, .tolerance = 1e-12});
  CHECK(all.converged);
  CHECK(all.products == 7);
  REQUIRE(all.largest.size() == 7);
  check_pairs(a, all, values, 1e-12);
}

TEST_CASE("invariant subspaces: repeated eigenvalues, low rank, the identity and zero") {
  // A single vector sees four different eigenvalues; then the space is exhausted and fresh vectors go on.
  const std::vector<double> repeated{3, 3, 3, 1, 1, -2, -2, 0, 0, 0};
  const MatrixOperator a(symmetric_with(repeated), {10});
  const LanczosResult all = lanczos(a, {.largest = 10, .tolerance = 1e-9});
  CHECK(all.converged);
  check_pairs(a, all, repeated, 1e-12);
  const LanczosResult five = lanczos(a, {.largest = 5, .smallest = 2, .tolerance = 1e-9, .block = 3});
  check_pairs(a, five, repeated, 1e-12);

  // Before that happens, as many copies as there are vectors in a block are certain to be found.
  std::vector<double> twice;
  for (int i = 0; i < 60; ++i) twice.push_back(std::cos(i));
  twice.insert(twice.end(), {5, 5, 4, 4, -3, -3});
  const MatrixOperator b(symmetric_with(twice), {66});
  const LanczosResult block = lanczos(b, {.largest = 4, .smallest = 2, .tolerance = 1e-8, .block = 2});
  CHECK(block.converged);
  check_pairs(b, block, twice, 1e-12);
  const LanczosResult restarted =
      lanczos(b, {.largest = 4, .smallest = 2, .tolerance = 1e-8, .block = 3, .max_basis = 16});
  CHECK(restarted.restarts > 0);
  check_pairs(b, restarted, twice, 1e-12);

  std::vector<double> low_rank(30, 0.0);
  low_rank[3] = 2;
  low_rank[17] = -1;
  const MatrixOperator c(symmetric_with(low_rank), {30});
  const LanczosResult low = lanczos(c, {.largest = 2, .smallest = 2, .tolerance = 1e-10});
  CHECK(low.converged);
  CHECK(low.products <= 6);
  check_pairs(c, low, low_rank, 1e-12);
  CHECK(low.largest[1].residual == 0);  // a zero eigenvalue, to working precision

  Matrix identity(5);
  for (std::size_t i = 0; i < 5; ++i) identity(i, i) = 1;
  const MatrixOperator d(identity, {5});
  const LanczosResult ones = lanczos(d, {.largest = 3, .smallest = 1});
  CHECK(ones.converged);
  check_pairs(d, ones, {1, 1, 1, 1, 1}, 1e-14);
  const LanczosResult zeros = lanczos(MatrixOperator(Matrix(4), {4}), {.largest = 2});
  CHECK(zeros.converged);
  CHECK(zeros.largest[1].value == 0);
  CHECK(zeros.largest[1].residual == 0);
  CHECK(zeros.products == 2);
}

TEST_CASE(
    "eigenvalues that are repeated more often than the block has vectors: missed once, found by asking") {
  std::vector<double> values;
  for (int i = 0; i < 60; ++i) values.push_back(std::cos(i));
  values.insert(values.end(), {6, 6, 6, 5, 4, 3, -3, -4, -5, -5});
  const MatrixOperator a(symmetric_with(values), {10, 60});
  LanczosOptions options{.largest = 4, .smallest = 2, .tolerance = 1e-4};
  const LanczosResult once = lanczos(a, options);
  CHECK(once.converged);
  CHECK(once.largest[1].value == doctest::Approx(5));
  CHECK(once.smallest[1].value == doctest::Approx(-4));
  RepeatedLanczosState whole_state;
  a.products = 0;
  const LanczosResult all = lanczos_repeated(a, options, &whole_state);
  CHECK(all.converged);
  CHECK(all.products == a.products);
  REQUIRE(all.largest.size() == 4);
  REQUIRE(all.smallest.size() == 2);
  check_pairs(a, all, values, 1e-7);

  // Broken off and resumed, in any of the searches.
  for (int stop = 5; stop < all.products; stop += 17) {
    RepeatedLanczosState state;
    int calls = 0;
    options.progress = [&](const LanczosState&, std::span<const RitzValue>, std::span<const RitzValue>) {
      return ++calls < stop;
    };
    lanczos_repeated(a, options, &state);
    options.progress = {};
    check_equal(lanczos_repeated(a, options, &state), all);
  }
  options.max_products = once.products + 3;
  CHECK_FALSE(lanczos_repeated(a, options).converged);

  // Where nothing is repeated, it says the same as lanczos; definite matrices and single ends as well.
  const std::vector<double> single = two_ended();
  const MatrixOperator b(symmetric_with(single), {85});
  check_pairs(b, lanczos_repeated(b, {.largest = 3, .smallest = 2, .tolerance = 1e-8}), single, 1e-12);
  std::vector<double> negative(40);
  for (std::size_t i = 0; i < 40; ++i) negative[i] = -1 - static_cast<double>(i / 2);
  const MatrixOperator c(symmetric_with(negative), {40});
  check_pairs(c, lanczos_repeated(c, {.largest = 4, .tolerance = 1e-8}), negative, 1e-11);
  check_pairs(c, lanczos_repeated(c, {.largest = 0, .smallest = 4, .tolerance = 1e-8}), negative, 1e-11);
  Matrix identity(5);
  for (std::size_t i = 0; i < 5; ++i) identity(i, i) = 1;
  CHECK(lanczos_repeated(MatrixOperator(identity, {5}), {.largest = 5}).converged);
}

TEST_CASE("a copy far below the largest eigenvalue is found as closely as its own size asks for") {
  std::vector<double> values;
  for (int i = 0; i < 200; ++i) values.push_back(0.9 * i / 200);
  values.insert(values.end(), {100, 1.5, 1.5, 1.4, 1.3});
  Matrix diagonal(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) diagonal(i, i) = values[i];
  for (const double sign : {1.0, -1.0}) {
    const MatrixOperator matrix(diagonal, {static_cast<std::int64_t>(values.size())});
    const AffineOperator a = scaled(matrix, sign);
    for (const double tolerance : {1e-3, 1e-4, 1e-8}) {
      const LanczosResult result = lanczos_repeated(
          a, {.largest = sign > 0 ? 4 : 0, .smallest = sign > 0 ? 0 : 4, .tolerance = tolerance});
      INFO("sign " << sign << ", tolerance " << tolerance << ", products " << result.products);
      CHECK(result.converged);
      std::vector<double> spectrum;
      for (const double value : values) spectrum.push_back(sign * value);
      check_pairs(a, result, spectrum, 2e-6);
      for (const Eigenpair& pair : sign > 0 ? result.largest : result.smallest) {
        CHECK(pair.residual <= tolerance);
      }
    }
  }
  // Out of products before the copy is as close as asked for: it says so.
  const MatrixOperator matrix(diagonal, {static_cast<std::int64_t>(values.size())});
  LanczosOptions options{.largest = 4, .tolerance = 1e-3};
  const int enough = lanczos_repeated(matrix, options).products;
  const int once = lanczos(matrix, options).products;
  for (options.max_products = once; options.max_products < enough; options.max_products += 3) {
    const LanczosResult cut = lanczos_repeated(matrix, options);
    CAPTURE(options.max_products);
    CHECK(cut.products <= options.max_products);
    CHECK_FALSE(cut.converged);
  }
}

TEST_CASE("copies of zero are found beside pairs of any size, at either end, and resumed") {
  std::vector<double> positive(50, 0.0);
  for (std::size_t i = 0; i < 20; ++i) positive[i] = 1 + 0.5 * static_cast<double>(i);
  const MatrixOperator definite(symmetric_with(positive), {50});
  for (const double sign : {1.0, -1.0}) {
    const AffineOperator a = scaled(definite, sign);
    std::vector<double> spectrum;
    for (const double value : positive) spectrum.push_back(sign * value);
    for (const auto& pairs : {std::pair{3, 1}, {3, 0}, {2, 2}, {1, 0}}) {
      const int zeros = pairs.first, others = pairs.second;
      for (std::uint64_t seed = 0; seed < 5; ++seed) {
        LanczosOptions options{
            .largest = sign > 0 ? others : zeros, .smallest = sign > 0 ? zeros : others, .seed = seed};
        INFO("sign " << sign << ", zeros " << zeros << ", others " << others << ", seed " << seed);
        const LanczosResult result = lanczos_repeated(a, options);
        CHECK(result.converged);
        check_pairs(a, result, spectrum, 1e-6);
        for (const Eigenpair& pair : sign > 0 ? result.smallest : result.largest) CHECK(pair.residual == 0);
      }
    }
  }

  // Here the pairs of the first search are too far off for the copies, and all is made again.
  LanczosOptions options{.largest = 1, .smallest = 3};
  RepeatedLanczosState whole;
  const LanczosResult all = lanczos_repeated(definite, options, &whole);
  REQUIRE(whole.closer > 0);
  CHECK(whole.dropped > 0);
  definite.products = 0;
  CHECK(lanczos_repeated(definite, options).products == definite.products);
  for (int stop = 5; stop < all.products; stop += 17) {
    RepeatedLanczosState state;
    int calls = 0;
    options.progress = [&](const LanczosState&, std::span<const RitzValue>, std::span<const RitzValue>) {
      return ++calls < stop;
    };
    CAPTURE(stop);
    lanczos_repeated(definite, options, &state);
    options.progress = {};
    check_equal(lanczos_repeated(definite, options, &state), all);
  }
  for (options.max_products = 21; options.max_products < all.products; options.max_products += 5) {
    CAPTURE(options.max_products);
    const LanczosResult cut = lanczos_repeated(definite, options);
    CHECK(cut.products <= options.max_products);
    CHECK_FALSE(cut.converged);
    // The copies stay, though not as close as asked for.
    if (options.max_products > whole.dropped + whole.searches[0].products) {
      CHECK(std::abs(cut.smallest[2].value) < 1e-6);
    }
  }
}

TEST_CASE("a search that was broken off and resumed ends with the same bits, restarts and blocks included") {
  const MatrixOperator a(symmetric_with(two_ended()), {40, 45});
  for (int block : {1, 2}) {
    LanczosOptions options{.largest = 2, .smallest = 2, .tolerance = 1e-9, .block = block, .max_basis = 14};
    LanczosState whole_state;
    const LanczosResult whole = lanczos(a, options, &whole_state);
    REQUIRE(whole.converged);
    REQUIRE(whole.restarts > 1);
    std::vector<LanczosState> saved;
    options.progress = [&](const LanczosState& state, std::span<const RitzValue> largest,
                           std::span<const RitzValue> smallest) {
      CHECK(largest.size() <= 2);
      CHECK(smallest.size() <= 2);
      saved.push_back(state);
      return true;
    };
    lanczos(a, options);
    options.progress = {};
    // From every step: copies taken then have not been touched by what came later.
    for (LanczosState& state : saved) check_equal(lanczos(a, options, &state), whole);
    // Broken off by the callback, resumed in place, twice.
    LanczosState state;
    int calls = 0;
    options.progress = [&](const LanczosState&, std::span<const RitzValue>, std::span<const RitzValue>) {
      return ++calls % 10 != 0;
    };
    CHECK_FALSE(lanczos(a, options, &state).converged);
    CHECK(state.products == 10 * block);
    CHECK_FALSE(lanczos(a, options, &state).converged);
    options.progress = {};
    check_equal(lanczos(a, options, &state), whole);
    // A finished state multiplies no more.
    a.products = 0;
    check_equal(lanczos(a, options, &state), whole);
    CHECK(a.products == 0);
  }
}

TEST_CASE("a multiple of the identity does not pass for convergence") {
  // Of rank one beside it. In 40,000 dimensions a random vector's residual is 0.3 / 200 of its Ritz value.
  const std::int64_t n = 40000;
  class Damped : public LinearOperator {
   public:
    explicit Damped(std::int64_t size) : shapes_{{size}} {}
    const std::vector<Shape>& shapes() const override { return shapes_; }
    DType dtype() const override { return DType::f64; }
    Vector apply(const Vector& v) const override {
      Vector product{v[0].clone()};
      const std::int64_t size = v[0].numel();
      double mean = 0;
      for (std::int64_t i = 0; i < size; ++i) mean += v[0].data<double>()[i] / static_cast<double>(size);
      for (std::int64_t i = 0; i < size; ++i) product[0].data<double>()[i] += 0.3 * mean;
      return product;
    }

   private:
    std::vector<Shape> shapes_;
  };
  const LanczosResult result = lanczos(Damped(n), {.largest = 1, .tolerance = 2e-3});
  CHECK(result.converged);
  CHECK(std::abs(result.largest[0].value - 1.3) < 1e-9);
  CHECK(result.products <= 4);
}

TEST_CASE("the same bits on one thread or two") {
  const ConvNet net(Activation::relu, {4, 4, 3});
  const LanczosOptions options{.largest = 2, .smallest = 1, .block = 2, .max_basis = 12, .seed = 8};
  set_num_threads(1);
  const LanczosResult expected = lanczos(net.hessian(), options);
  CHECK(expected.converged);
  set_num_threads(2);
  check_equal(lanczos(net.hessian({.graph_bytes = 0}), options), expected);
  set_num_threads(0);
}

TEST_CASE("in f32 the residual includes rounding, and the pairs agree with those in f64") {
  const ConvNet net(Activation::tanh, {5, 5}), half(Activation::tanh, {5, 5}, DType::f32);
  const LanczosOptions options{.largest = 3, .smallest = 2, .tolerance = 1e-4};
  const LanczosResult exact = lanczos(net.hessian(), options);
  const HessianOperator h = half.hessian();
  const LanczosResult result = lanczos(h, options);
  REQUIRE(result.converged);
  for (std::size_t k = 0; k < 3; ++k) {
    CHECK(std::abs(result.largest[k].value - exact.largest[k].value) < 1e-5 * exact.largest[0].value);
    const Vector product = h.apply(result.largest[k].vector);
    axpy(-result.largest[k].value, result.largest[k].vector, product);
    CHECK(norm(product) <
          1.1 * result.largest[k].residual * result.largest[k].value + 1e-6 * exact.largest[0].value);
  }
  // Asked for more than f32 can do, it stops at the rounding errors.
  CHECK(lanczos(h, {.largest = 1, .tolerance = 1e-14}).converged);
}

TEST_CASE("deflated and negated views: the same pairs by other ways") {
  const std::vector<double> values = two_ended();
  const MatrixOperator a(symmetric_with(values), {85});
  const LanczosResult direct = lanczos(a, {.largest = 3, .smallest = 2, .tolerance = 1e-10});
  const AffineOperator negative = negated(a);
  const LanczosResult below = lanczos(negative, {.largest = 2, .tolerance = 1e-10});
  for (std::size_t k = 0; k < 2; ++k) {
    CHECK(std::abs(below.largest[k].value + direct.smallest[k].value) < 1e-12);
  }
  const std::vector<Vector> top{direct.largest[0].vector, direct.largest[1].vector};
  const DeflatedOperator rest(a, top);
  CHECK(std::abs(lanczos(rest, {.tolerance = 1e-10}).largest[0].value - direct.largest[2].value) < 1e-12);
}

TEST_CASE("out of products it reports what it has; bad options, memory, states and overflow are refused") {
  const std::vector<double> values = two_ended();
  const MatrixOperator a(symmetric_with(values), {85});
  const LanczosResult cut = lanczos(a, {.largest = 3, .tolerance = 1e-12, .max_products = 6});
  CHECK(cut.products == 6);
  CHECK_FALSE(cut.converged);
  REQUIRE(cut.largest.size() == 3);
  const std::vector<double> sorted = falling(values);
  double nearest = 1;
  for (double value : sorted) nearest = std::min(nearest, std::abs(value - cut.largest[0].value));
  CHECK(nearest <= cut.largest[0].residual * cut.largest[0].value);
  CHECK(cut.largest[0].residual > 1e-6);
  CHECK(lanczos(a, {.largest = 3, .max_products = 2}).largest.size() == 2);

  CHECK_THROWS_WITH_AS(lanczos(a, {.largest = 86}), doctest::Contains("86 largest"), Error);
  CHECK_THROWS_AS(lanczos(a, {.largest = 0}), Error);
  CHECK_THROWS_AS(lanczos(a, {.tolerance = 0}), Error);
  CHECK_THROWS_AS(lanczos(a, {.block = 0}), Error);
  CHECK_THROWS_WITH_AS(lanczos(a, {.largest = 5, .basis_bytes = 85 * 8 * 7}),
                       doctest::Contains("holds 7 vectors"), Error);
  CHECK_THROWS_WITH_AS(lanczos(a, {.largest = 5, .max_basis = 8}), doctest::Contains("at least 9"), Error);
  LanczosState state;
  lanczos(a, {.max_products = 4}, &state);
  CHECK_THROWS_WITH_AS(lanczos(a, {.seed = 1}, &state), doctest::Contains("seed 0"), Error);
  CHECK_THROWS_AS(lanczos(MatrixOperator(symmetric_with(values), {80, 5}), {}, &state), Error);
  Matrix bad = symmetric_with(values);
  bad(3, 3) = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(lanczos(MatrixOperator(bad, {85}), {}),
                       doctest::Contains("element 3 of block 0 is nan"), Error);
}
