#include <atomic>
#include <doctest/doctest.h>
#include <functional>
#include <string>

#include "core/memory.hpp"
#include "core/parallel.hpp"
#include "tests/autograd/curvature/small_problems.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

Vector random_vector(const LinearOperator& a, std::uint64_t seed) {
  Random random(seed);
  return normal_vector(a.shapes(), a.dtype(), random);
}

// The gradient of the net's mean loss at parameters moved by `step` along element `column`.
std::vector<double> gradient_at(const ConvNet& net, std::size_t column, double step) {
  std::vector<Variable> moved;
  std::size_t offset = 0;
  for (const Variable& p : net.parameters) {
    const Tensor w = p.value().clone();
    const auto n = static_cast<std::size_t>(w.numel());
    if (column >= offset && column < offset + n) w.data<double>()[column - offset] += step;
    offset += n;
    moved.push_back(Variable::leaf(w));
  }
  double samples = 0;
  for (std::int64_t n : net.sizes) samples += static_cast<double>(n);
  std::vector<double> sum(offset, 0.0);
  for (std::size_t b = 0; b < net.sizes.size(); ++b) {
    Vector g;
    for (const Variable& v : grad(net.loss(b, moved), moved)) g.push_back(v.value());
    const std::vector<double> flat = flatten(g);
    for (std::size_t i = 0; i < sum.size(); ++i)
      sum[i] += static_cast<double>(net.sizes[b]) / samples * flat[i];
  }
  return sum;
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("the Hessian of a smooth conv net equals central differences of its gradient") {
  const ConvNet net(Activation::tanh, {3, 3, 2});
  const Matrix h = dense(net.hessian());
  const double step = 1e-5;
  double largest = 0, difference = 0;
  for (std::size_t j = 0; j < h.n; ++j) {
    const std::vector<double> plus = gradient_at(net, j, step), minus = gradient_at(net, j, -step);
    for (std::size_t i = 0; i < h.n; ++i) {
      largest = std::max(largest, std::abs(h(i, j)));
      difference = std::max(difference, std::abs(h(i, j) - (plus[i] - minus[i]) / (2 * step)));
    }
  }
  MESSAGE("largest element " << largest << ", largest difference " << difference);
  CHECK(largest > 0.01);
  // Rounding of the gradient (1e-16 / step) and the step's truncation error (step²) are both near 1e-10.
  CHECK(difference < 1e-9);
}

TEST_CASE("uᵀHv = vᵀHu, with ReLU and with tanh") {
  for (Activation activation : {Activation::tanh, Activation::relu}) {
    const ConvNet net(activation, {4, 3});
    const HessianOperator h = net.hessian();
    const Vector u = random_vector(h, 1), v = random_vector(h, 2);
    const double uhv = dot(u, h.apply(v)), vhu = dot(v, h.apply(u));
    CHECK(std::abs(uhv) > 1e-3);
    CHECK(std::abs(uhv - vhu) < 1e-10 * std::abs(uhv));
  }
}

TEST_CASE("least squares: the mean of (xᵀw − y)² has Hessian (2/N) XᵀX, with a partial last microbatch") {
  const std::int64_t n = 11, d = 5;
  Random random(3);
  const Tensor x = random_normal({n, d}, DType::f64, random), y = random_normal({n, 1}, DType::f64, random);
  const std::vector<Variable> w{Variable::leaf(random_normal({d, 1}, DType::f64, random))};
  const std::vector<std::int64_t> sizes{4, 4, 3};
  const HessianOperator h(w, sizes, [&](std::size_t b) {
    const auto start = static_cast<std::int64_t>(4 * b);
    const Variable rows = slice(x, {.start = {start, 0}, .step = {1, 1}}, {sizes[b], d});
    const Variable error =
        matmul(rows, w[0]) - slice(y, {.start = {start, 0}, .step = {1, 1}}, {sizes[b], 1});
    return mean(error * error);
  });
  Matrix expected(static_cast<std::size_t>(d));
  for (std::int64_t i = 0; i < d; ++i) {
    for (std::int64_t j = 0; j < d; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < n; ++k) sum += x.data<double>()[k * d + i] * x.data<double>()[k * d + j];
      expected(static_cast<std::size_t>(i), static_cast<std::size_t>(j)) = 2 * sum / static_cast<double>(n);
    }
  }
  CHECK(largest_difference(dense(h), expected) < 1e-13);
}

TEST_CASE("logistic regression: H = (1/N) Xᵀ diag(σ(1−σ)) X, with a partial last microbatch") {
  const std::int64_t n = 10, d = 4;
  Random random(4);
  const Tensor x = random_normal({n, d}, DType::f64, random);
  const std::vector<Variable> w{Variable::leaf(random_normal({d, 1}, DType::f64, random))};
  const Tensor t = random_rademacher({n, 1}, DType::f64, random);
  const std::vector<std::int64_t> sizes{4, 4, 2};
  // −log σ(t xᵀw) = softplus(−t xᵀw) for labels t = ±1.
  const HessianOperator h(w, sizes, [&](std::size_t b) {
    const Lattice from{.start = {static_cast<std::int64_t>(4 * b), 0}, .step = {1, 1}};
    return mean(softplus(neg(slice(t, from, {sizes[b], 1}) * matmul(slice(x, from, {sizes[b], d}), w[0]))));
  });
  Matrix expected(static_cast<std::size_t>(d));
  for (std::int64_t k = 0; k < n; ++k) {
    const double* row = x.data<double>() + k * d;
    double z = 0;
    for (std::int64_t i = 0; i < d; ++i) z += row[i] * w[0].value().data<double>()[i];
    const double sigma = 1 / (1 + std::exp(-z));
    for (std::int64_t i = 0; i < d; ++i) {
      for (std::int64_t j = 0; j < d; ++j) {
        expected(static_cast<std::size_t>(i), static_cast<std::size_t>(j)) +=
            sigma * (1 - sigma) * row[i] * row[j] / static_cast<double>(n);
      }
    }
  }
  CHECK(largest_difference(dense(h), expected) < 1e-13);
}

TEST_CASE("microbatches weighted by their size add up to the full batch") {
  const Matrix whole = dense(ConvNet(Activation::relu, {8}).hessian());
  for (const std::vector<std::int64_t>& cut : {std::vector<std::int64_t>{3, 3, 2}, {1, 7}, {7, 1}}) {
    const ConvNet net(Activation::relu, cut);
    const HessianOperator h = net.hessian();
    CHECK(largest_difference(dense(h), whole) < 1e-13);
    const ConvNet full(Activation::relu, {8});
    CHECK(std::abs(h.loss() - full.loss(0).item()) < 1e-14);
  }
}

TEST_CASE("blocks equal the dense Hessian's diagonal blocks, in any order and grouping") {
  const ConvNet net(Activation::tanh, {3, 2});
  const HessianOperator h = net.hessian();
  const Matrix whole = dense(h);
  const std::vector<std::size_t> starts{0, 54, 135, 147};
  REQUIRE(whole.n == 147);
  for (const std::vector<std::size_t>& indices :
       {std::vector<std::size_t>{0}, {1}, {2}, {2, 0}, {0, 1}, {0, 1, 2}}) {
    std::vector<std::size_t> rows;
    for (std::size_t l : indices) {
      for (std::size_t i = starts[l]; i < starts[l + 1]; ++i) rows.push_back(i);
    }
    const Matrix part = dense(h.block(indices));
    REQUIRE(part.n == rows.size());
    double difference = 0;
    for (std::size_t i = 0; i < part.n; ++i) {
      for (std::size_t j = 0; j < part.n; ++j) {
        difference = std::max(difference, std::abs(part(i, j) - whole(rows[i], rows[j])));
      }
    }
    CHECK(difference < 1e-14);
  }
}

TEST_CASE("both roads give the same Hessian, and the automatic one is either of them") {
  for (Activation activation : {Activation::tanh, Activation::relu}) {
    const ConvNet net(activation, {3, 3, 2});
    const HessianOperator reverse = net.hessian();
    const HessianOperator forward = net.hessian({}, HvpRoad::forward_over_reverse);
    CHECK(largest_difference(dense(forward), dense(reverse)) < 1e-14);
    CHECK(largest_difference(dense(forward.block(1)), dense(reverse.block(1))) < 1e-14);
    CHECK(reverse.road() == HvpRoad::reverse_over_reverse);

    const HessianOperator measured = net.hessian({}, HvpRoad::automatic);
    const Vector v = random_vector(reverse, 4), product = measured.apply(v);
    CHECK(measured.road() != HvpRoad::automatic);
    const bool is_forward = measured.road() == HvpRoad::forward_over_reverse;
    CHECK(same_bits(product, (is_forward ? forward : reverse).apply(v)));
  }
}

TEST_CASE("quadratic forms per block and per microbatch agree with products") {
  const ConvNet net(Activation::tanh, {3, 3, 1});
  const HessianOperator h = net.hessian();
  std::vector<Vector> vectors{random_vector(h, 1), random_vector(h, 2)};
  vectors[1][1] = {};  // zero
  const std::vector<QuadraticForms> forms = h.quadratic_forms(vectors);
  const std::vector<double> weights = h.subset_weights();
  REQUIRE(forms.size() == 2);
  CHECK(std::abs(weights[0] + weights[1] + weights[2] - 1) < 1e-15);
  for (std::size_t k = 0; k < 2; ++k) {
    const Vector product = h.apply(vectors[k]);
    for (std::size_t l = 0; l < 3; ++l) {
      const double expected = vectors[k][l].defined() ? block_dot(vectors[k][l], product[l]) : 0;
      CHECK(std::abs(forms[k].blocks[l] - expected) < 1e-13);
      double sum = 0;
      for (std::size_t b = 0; b < 3; ++b) sum += weights[b] * forms[k].subsets[b][l];
      CHECK(std::abs(sum - expected) < 1e-13);
    }
  }
  CHECK(forms[1].blocks[1] == 0);
  // The last microbatch alone is a Hessian of its own.
  const HessianOperator last(net.parameters, {1}, [&](std::size_t) { return net.loss(2); });
  CHECK(std::abs(forms[0].subsets[2][0] - block_dot(vectors[0][0], last.apply(vectors[0])[0])) < 1e-13);
}

TEST_CASE("kept graphs, rebuilt graphs, concurrency and thread count leave the same bits") {
  const ConvNet net(Activation::tanh, {4, 4, 4, 4, 3});
  const Vector v = random_vector(net.hessian(), 9);
  set_num_threads(1);
  const HessianOperator kept = net.hessian();
  const Vector expected = kept.apply(v);
  CHECK(kept.kept_graphs() == 5);
  CHECK(same_bits(kept.apply(v), expected));
  kept.release_graphs();
  CHECK(kept.kept_graphs() == 0);
  CHECK(kept.apply_many({}).empty());
  CHECK(kept.quadratic_forms({}).empty());
  CHECK(kept.kept_graphs() == 0);  // none were needed
  CHECK(same_bits(kept.apply(v), expected));
  const std::vector<double> forms = kept.quadratic_forms(std::span(&v, 1))[0].blocks;
  for (int threads : {1, 2}) {
    set_num_threads(threads);
    for (int concurrency : {0, 1, 3, 16}) {
      for (std::int64_t bytes : {std::int64_t{0}, std::int64_t{1} << 30}) {
        const HessianOperator h = net.hessian({.graph_bytes = bytes, .concurrency = concurrency});
        CHECK(same_bits(h.apply(v), expected));
        CHECK(h.quadratic_forms(std::span(&v, 1))[0].blocks == forms);
        CHECK(h.kept_graphs() == (bytes == 0 ? 0 : 5));
      }
    }
  }
  set_num_threads(0);
}

TEST_CASE("the memory limit keeps some graphs and gives the same bits") {
  const ConvNet net(Activation::tanh, {16, 16, 16, 16});
  const Vector v = random_vector(net.hessian(), 9);
  std::int64_t before = memory_stats().bytes_in_use;
  const HessianOperator all = net.hessian();
  const Vector expected = all.apply(v);
  const std::int64_t bytes = memory_stats().bytes_in_use - before;
  REQUIRE(all.kept_graphs() == 4);
  before = memory_stats().bytes_in_use;
  const HessianOperator some = net.hessian({.graph_bytes = bytes * 5 / 8});
  CHECK(same_bits(some.apply(v), expected));
  CHECK(some.kept_graphs() == 2);
  CHECK(memory_stats().bytes_in_use - before < bytes * 5 / 8);
  const HessianOperator none = net.hessian({.graph_bytes = 1});
  CHECK(same_bits(none.apply(v), expected));
  CHECK(none.kept_graphs() == 0);
}

TEST_CASE("f32 agrees with f64") {
  const ConvNet single(Activation::tanh, {4, 3}, DType::f32), twice(Activation::tanh, {4, 3});
  Random random(1);
  const Vector v = normal_vector(single.hessian().shapes(), DType::f32, random);
  Vector v64;
  for (const Tensor& block : v) v64.push_back(block.to(DType::f64));
  const std::vector<double> x = flatten(single.hessian().apply(v)), y = flatten(twice.hessian().apply(v64));
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    difference += (x[i] - y[i]) * (x[i] - y[i]);
    size += y[i] * y[i];
  }
  CHECK(std::sqrt(difference / size) < 1e-5);
}

TEST_CASE("a product is not disturbed by a caller that has switched recording off") {
  const ConvNet net(Activation::tanh, {3, 2});
  const Vector v = random_vector(net.hessian(), 1);
  const Vector expected = net.hessian().apply(v);
  NoGrad no_grad;
  CHECK(same_bits(net.hessian({.graph_bytes = 0}).apply(v), expected));
  CHECK_FALSE(recording());
}

TEST_CASE("a loss that changes is refused") {
  const ConvNet net(Activation::tanh, {3, 2});
  std::atomic<int> calls = 0;
  const auto drifting = [&](std::size_t b) { return scale(net.loss(b), 1 + 1e-9 * calls++); };
  const HessianOperator h(net.parameters, net.sizes, drifting, {.graph_bytes = 0});
  const Vector v = random_vector(h, 1);
  h.apply(v);
  CHECK(contains(message_of([&] { h.apply(v); }), "[HessianOperator] the loss of microbatch"));
  // Its kept graphs, however, are a fixed function.
  CHECK_NOTHROW(check_deterministic(HessianOperator(net.parameters, net.sizes, drifting)));
}

TEST_CASE("weights that changed since the first product are refused, although the graphs are kept") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const ConvNet net(Activation::tanh, {4, 3}, dtype);
    const HessianOperator h = net.hessian();
    const HessianOperator block = h.block(2);  // which depends on the others as well
    const Vector v = random_vector(h, 3), w{v[2]};
    const Vector expected = h.apply(v), expected_block = block.apply(w);
    const Tensor weight = net.parameters[1].value();
    const Tensor before = weight.clone();
    dispatch_floating(dtype, "test", [&]<class T>() {
      const std::span<T> elements = weight.span<T>();
      const std::vector<std::function<void()>> changes{
          [&] { elements[0] += static_cast<T>(1e-3); },
          // These leave the norm as it is.
          [&] {
            for (T& x : elements) x = -x;
          },
          [&] { elements[5] = -elements[5]; },
          [&] { std::swap(elements[0], elements[1]); },
          [&] { std::swap(elements[0], elements[80]); },
          [&] { std::reverse(elements.begin(), elements.end()); },
      };
      for (std::size_t i = 0; i < changes.size(); ++i) {
        CAPTURE(i);
        changes[i]();
        CHECK(contains(message_of([&] { h.apply(v); }), "[HessianOperator] parameter 1 has changed"));
        CHECK(contains(message_of([&] { block.apply(w); }), "[HessianOperator] parameter 1 has changed"));
        CHECK_THROWS_AS(h.quadratic_forms(std::span(&v, 1)), Error);
        weight.copy_from(before);
        CHECK(same_bits(h.apply(v), expected));
        CHECK(same_bits(block.apply(w), expected_block));
      }
    });
  }
}

TEST_CASE("a microbatch that fails leaves the others as they should be") {
  const ConvNet net(Activation::tanh, {40, 40});
  std::atomic<bool> failing = false;
  const auto loss = [&](std::size_t b) {
    if (b == 1 && failing) fail("[loss] microbatch 1 cannot be read");
    return net.loss(b);
  };
  for (int attempt = 0; attempt < 20; ++attempt) {
    const HessianOperator h(net.parameters, net.sizes, loss);
    const Vector v = random_vector(h, 1);
    const Vector expected = net.hessian().apply(v);
    failing = true;
    CHECK(message_of([&] { h.apply(v); }) == "[loss] microbatch 1 cannot be read");
    failing = false;
    CHECK(same_bits(h.apply(v), expected));
  }
}

TEST_CASE("the determinism probe passes a Hessian and catches an operator that drifts") {
  class Drifting final : public LinearOperator {
   public:
    const std::vector<Shape>& shapes() const override { return shapes_; }
    DType dtype() const override { return DType::f64; }
    Vector apply(const Vector& v) const override {
      Vector product{v[0].clone(), v[1].clone()};
      product[1].data<double>()[2] += 1e-15 * calls_++;
      return product;
    }

   private:
    std::vector<Shape> shapes_{Shape{4}, Shape{3}};
    mutable int calls_ = 0;
  };
  CHECK_NOTHROW(check_deterministic(ConvNet(Activation::relu, {3, 2}).hessian({.graph_bytes = 0})));
  CHECK(contains(message_of([] { check_deterministic(Drifting(), 7); }), "element 2 of block 1"));
}

TEST_CASE("bad arguments are refused with a reason") {
  const ConvNet net(Activation::tanh, {3, 2});
  const auto loss = [&](std::size_t b) { return net.loss(b); };
  const auto make = [&](std::vector<Variable> p, std::vector<std::int64_t> sizes) {
    return message_of([&] { HessianOperator(p, sizes, loss); });
  };
  CHECK(contains(make({}, {3, 2}), "no parameters"));
  CHECK(contains(make(net.parameters, {}), "no microbatches"));
  CHECK(contains(make(net.parameters, {3, 0}), "microbatch 1 has 0 samples"));
  CHECK(contains(make({net.parameters[0].detach()}, {3, 2}), "parameter 0 is not a leaf"));
  CHECK(contains(make({scale(net.parameters[0], 2)}, {3, 2}), "parameter 0 is not a leaf"));
  const HessianOperator h = net.hessian();
  CHECK(contains(message_of([&] { (void)h.block(3); }), "no parameter 3"));
  const std::vector<std::size_t> twice{1, 1};
  CHECK(contains(message_of([&] { (void)h.block(twice); }), "named twice"));
  CHECK(contains(message_of([&] { h.apply({}); }), "0 blocks"));
  Vector v = random_vector(h, 1);
  v[2] = v[2].to(DType::f32);
  CHECK(contains(message_of([&] { h.apply(v); }), "block 2"));
}

TEST_CASE("block dot products are exact to rounding and the same for any thread count") {
  Random random(1);
  const Tensor a = random_normal({100003}, DType::f32, random),
               b = random_normal({100003}, DType::f32, random);
  long double sum = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    sum += static_cast<long double>(a.data<float>()[i]) * static_cast<long double>(b.data<float>()[i]);
  }
  set_num_threads(1);
  const double one = block_dot(a, b);
  set_num_threads(2);
  CHECK(block_dot(a, b) == one);
  set_num_threads(0);
  CHECK(std::abs(one - static_cast<double>(sum)) < 1e-10);
}
