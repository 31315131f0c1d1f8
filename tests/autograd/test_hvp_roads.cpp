// Forward over reverse against reverse over reverse, which share the gradient graph but hardly a rule
// that differentiates it.
#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>

#include "autograd/grad.hpp"
#include "autograd/jvp.hpp"
#include "autograd/ops.hpp"
#include "core/memory.hpp"
#include "core/random.hpp"
#include "tests/support/threads.hpp"

using namespace goshawk;

namespace {

using V = std::vector<Variable>;

enum class Norm : std::uint8_t { eval, folded, train };
enum class Pooling : std::uint8_t { average, maximum, global };

// conv → norm → relu → [conv / 2 → norm, + conv 1 × 1 / 2 of the skip] → relu → [conv → norm, + skip] → relu
// → pooling → linear → softmax cross-entropy, every parameter a leaf.
struct Net {
  Norm norm = Norm::eval;
  Pooling pooling = Pooling::global;
  DType dtype = DType::f64;
  V parameters;
  Tensor images, labels = Tensor::from<std::int64_t>({0, 2, 1, 2, 0}, {5});

  Net(Norm n, Pooling p, DType type = DType::f64) : norm(n), pooling(p), dtype(type) {
    Random random(31, 0);
    const auto add = [&](const Shape& shape, double size) {
      const Tensor t = random_normal(shape, DType::f64, random);
      for (double& value : t.span<double>()) value *= size;
      parameters.push_back(Variable::leaf(t.to(dtype)));
    };
    images = random_normal({5, 8, 8, 3}, DType::f64, random).to(dtype);
    for (const Shape& conv : {Shape{3, 3, 3, 4}, Shape{3, 3, 4, 6}, Shape{1, 1, 4, 6}, Shape{3, 3, 6, 6}}) {
      add(conv, 0.4);
      add({conv.back()}, 1);
      add({conv.back()}, 0.5);
    }
    add({pooling == Pooling::global ? 6 : 24, 3}, 0.5);
  }

  Variable conv(const Variable& x, std::size_t layer, const ConvParams& params,
                const Epilogue& epilogue) const {
    const Variable &w = parameters[3 * layer], &gamma = parameters[3 * layer + 1],
                   &beta = parameters[3 * layer + 2];
    if (norm == Norm::train) return batch_norm_train(conv2d(x, w, params), gamma, beta, 1e-5, epilogue).y;
    Random random(41, layer);
    const Tensor mean = random_normal(gamma.shape(), DType::f64, random).to(dtype);
    const Tensor var = random_uniform(gamma.shape(), DType::f64, random, 0.5, 2).to(dtype);
    if (norm == Norm::eval) {
      return batch_norm_eval(conv2d(x, w, params), gamma, beta, mean, var, 1e-5, epilogue);
    }
    const auto [s, t] = batch_norm_map(gamma, beta, mean, var, 1e-5);
    return conv2d(x, channel_scale(w, s), params, t, epilogue);
  }
  Variable pool(const Variable& x) const {
    switch (pooling) {
      case Pooling::average:
        return reshape(avg_pool2d(x, {}), {5, -1});
      case Pooling::maximum:
        return reshape(max_pool2d(x, {}), {5, -1});
      case Pooling::global:
        break;
    }
    return global_avg_pool(x);
  }
  Variable loss() const {
    const ConvParams same{.pad_h = 1, .pad_w = 1};
    const ConvParams half{.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1};
    const Variable a = conv(images, 0, same, {.relu = true});
    const Variable skip = conv(a, 2, {.stride_h = 2, .stride_w = 2}, {});
    const Variable b = conv(a, 1, half, {.relu = true, .residual = skip});
    const Variable c = conv(b, 3, same, {.relu = true, .residual = b});
    return softmax_cross_entropy(matmul(pool(c), parameters.back()), labels);
  }
  std::vector<Tensor> direction(std::uint64_t seed) const {
    Random random(seed, 1);
    std::vector<Tensor> v;
    for (const Variable& p : parameters) v.push_back(random_normal(p.shape(), DType::f64, random).to(dtype));
    return v;
  }
};

// Norm-wise, over all blocks.
double distance(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double difference = 0, size = 0;
  for (std::size_t l = 0; l < a.size(); ++l) {
    const auto x = a[l].to(DType::f64).to_vector<double>(), y = b[l].to(DType::f64).to_vector<double>();
    for (std::size_t i = 0; i < x.size(); ++i) {
      difference += (x[i] - y[i]) * (x[i] - y[i]);
      size += y[i] * y[i];
    }
  }
  return std::sqrt(difference / size);
}

}  // namespace

TEST_CASE("forward over reverse equals reverse over reverse") {
  for (const Norm norm : {Norm::eval, Norm::folded, Norm::train}) {
    for (const Pooling pooling : {Pooling::average, Pooling::maximum, Pooling::global}) {
      for (const DType dtype : {DType::f64, DType::f32}) {
        CAPTURE(static_cast<int>(norm));
        CAPTURE(static_cast<int>(pooling));
        CAPTURE(dtype_name(dtype));
        const double tolerance = dtype == DType::f64 ? 1e-12 : 1e-4;
        const Net net(norm, pooling, dtype);
        const Variable loss = net.loss();
        const GradientGraph reverse(loss, net.parameters);
        const GradientGraph forward(loss, net.parameters, HvpRoad::forward_over_reverse);
        const std::vector<Tensor> v = net.direction(1);
        CHECK(distance(forward.apply(v), reverse.apply(v)) < tolerance);
        // Each parameter alone: many tangents are zero.
        for (std::size_t l = 0; l < v.size(); ++l) {
          std::vector<Tensor> one(v.size());
          one[l] = v[l];
          CHECK(distance(forward.apply(one), reverse.apply(one)) < tolerance);
        }
        // One block with the rest held constant.
        const GradientGraph block(loss, {net.parameters[9]}, HvpRoad::forward_over_reverse);
        std::vector<Tensor> one(v.size());
        one[9] = v[9];
        CHECK(distance(block.apply(std::span(&v[9], 1)), {reverse.apply(one)[9]}) < tolerance);
      }
    }
  }
}

TEST_CASE("a batch norm folded into its convolution has the same loss, gradient and products") {
  for (const HvpRoad road : {HvpRoad::reverse_over_reverse, HvpRoad::forward_over_reverse}) {
    const Net apart(Norm::eval, Pooling::global), folded(Norm::folded, Pooling::global);
    const Variable a = apart.loss(), b = folded.loss();
    CHECK(b.item() == doctest::Approx(a.item()).epsilon(1e-12));
    const auto values = [](const V& variables) {
      std::vector<Tensor> tensors;
      for (const Variable& v : variables) tensors.push_back(v.value());
      return tensors;
    };
    CHECK(distance(values(grad(b, folded.parameters)), values(grad(a, apart.parameters))) < 1e-12);
    const GradientGraph in_a(a, apart.parameters, road), in_b(b, folded.parameters, road);
    const std::vector<std::vector<Tensor>> vectors{apart.direction(1), apart.direction(2)};
    const auto of_a = in_a.apply_many(vectors), of_b = in_b.apply_many(vectors);
    for (std::size_t k = 0; k < vectors.size(); ++k) CHECK(distance(of_b[k], of_a[k]) < 1e-12);
    // Each parameter alone: many tangents and cotangents are zero.
    for (std::size_t l = 0; l < vectors[0].size(); ++l) {
      std::vector<Tensor> one(vectors[0].size());
      one[l] = vectors[0][l];
      CHECK(distance(in_b.apply(one), in_a.apply(one)) < 1e-12);
    }
  }
}

TEST_CASE("forward over reverse gives several products the bits of one, and the same bits each time") {
  for (const Norm norm : {Norm::train, Norm::folded}) {
    const Net net(norm, Pooling::maximum);
    const GradientGraph graph(net.loss(), net.parameters, HvpRoad::forward_over_reverse);
    const std::vector<std::vector<Tensor>> vectors{net.direction(1), net.direction(2), net.direction(3)};
    const auto products = graph.apply_many(vectors);
    for (std::size_t k = 0; k < vectors.size(); ++k) {
      const auto product = graph.apply(vectors[k]);
      for (std::size_t l = 0; l < product.size(); ++l)
        CHECK(product[l].to_vector<double>() == products[k][l].to_vector<double>());
    }
  }
}

#ifndef GOSHAWK_NO_CACHING_ALLOCATOR  // which a sanitizer has
TEST_CASE("a gradient graph that is replayed asks the system for no memory after its first replay") {
  const Threads one(1);
  for (const Norm norm : {Norm::eval, Norm::folded, Norm::train}) {
    for (const HvpRoad road : {HvpRoad::reverse_over_reverse, HvpRoad::forward_over_reverse}) {
      const Net net(norm, Pooling::average, DType::f32);
      const GradientGraph graph(net.loss(), net.parameters, road);
      const std::vector<std::vector<Tensor>> vectors{net.direction(1), net.direction(2)};
      graph.apply(vectors[0]);
      graph.apply_many(vectors);
      const std::int64_t before = memory_stats().system_allocations;
      for (int k = 0; k < 3; ++k) {
        graph.apply(vectors[1]);
        graph.apply_many(vectors);
      }
      CHECK(memory_stats().system_allocations == before);
    }
  }
}
#endif

TEST_CASE("a third derivative by three roads") {
  // The tangent of H v along w, recorded, against the gradient of ⟨H v, u⟩ taken backward along w.
  for (const Norm norm : {Norm::eval, Norm::folded, Norm::train}) {
    const Net net(norm, Pooling::global);
    const auto as_variables = [](const std::vector<Tensor>& t) { return V(t.begin(), t.end()); };
    const V u = as_variables(net.direction(1)), v = as_variables(net.direction(2)),
            w = as_variables(net.direction(3));
    const V g = grad(net.loss(), net.parameters, {.create_graph = true});
    const V forward = jvp(g, net.parameters, v, {.create_graph = true});
    const V reverse = grad(g, net.parameters, {.grad_outputs = v, .create_graph = true});
    const auto along = [&](const V& hv) {
      double sum = 0;
      const V third = grad(hv, net.parameters, {.grad_outputs = u, .allow_unused = true});
      for (std::size_t l = 0; l < third.size(); ++l) sum += dot(third[l], w[l]).item();
      return sum;
    };
    const V tangents = jvp(forward, net.parameters, w, {.allow_unused = true});
    double twice = 0;
    for (std::size_t l = 0; l < tangents.size(); ++l) twice += dot(tangents[l], u[l]).item();
    const double expected = along(reverse);
    CHECK(std::abs(expected) > 0.1);
    CHECK(along(forward) == doctest::Approx(expected).epsilon(1e-10));
    CHECK(twice == doctest::Approx(expected).epsilon(1e-10));
  }
}

TEST_CASE("automatic settles on one of the two roads") {
  const Net net(Norm::eval, Pooling::global);
  const Variable loss = net.loss();
  const GradientGraph graph(loss, net.parameters, HvpRoad::automatic);
  CHECK(graph.road() != HvpRoad::automatic);
  const std::vector<Tensor> v = net.direction(1);
  const auto product = graph.apply(v), same = GradientGraph(loss, net.parameters, graph.road()).apply(v);
  for (std::size_t l = 0; l < v.size(); ++l)
    CHECK(product[l].to_vector<double>() == same[l].to_vector<double>());
  CHECK(GradientGraph(loss, net.parameters).road() == HvpRoad::reverse_over_reverse);
}
