#include <cmath>
#include <doctest/doctest.h>

#include "autograd/grad.hpp"
#include "autograd/jvp.hpp"
#include "autograd/ops.hpp"
#include "core/memory.hpp"
#include "core/random.hpp"

using namespace goshawk;

namespace {

using V = std::vector<Variable>;

Tensor normal(const Shape& shape, std::uint64_t seed) {
  Random random(seed, 3);
  return random_normal(shape, DType::f64, random);
}

Variable number(double value) {
  return Variable::leaf(Tensor::scalar(value, DType::f64));
}

}  // namespace

TEST_CASE("the tangent of a closed form") {
  // y = x² e^{z}, so dy = 2 x e^z dx + x² e^z dz.
  const Variable x = number(1.5), z = number(-0.3);
  const Variable y = mul(mul(x, x), exp(z));
  const Variable dy = jvp(y, V{x, z}, V{Tensor::scalar(0.7, DType::f64), Tensor::scalar(2, DType::f64)});
  CHECK(dy.item() ==
        doctest::Approx(2 * 1.5 * std::exp(-0.3) * 0.7 + 2.25 * std::exp(-0.3) * 2).epsilon(1e-14));
  CHECK_FALSE(dy.requires_grad());
  // An undefined tangent stands still.
  CHECK(jvp(y, V{x, z}, V{Variable(), Tensor::scalar(2, DType::f64)}).item() ==
        doctest::Approx(2.25 * std::exp(-0.3) * 2).epsilon(1e-14));
  CHECK(jvp(y, V{x, z}, V{Variable(), Variable()}).item() == 0);
}

TEST_CASE("recorded tangents have derivatives of their own") {
  // f = x³: f'·v = 3 x² v; its derivative in x is 6 x v and in v is 3 x²; once more forward: 6 v w.
  const Variable x = number(2), v = number(5), w = number(7);
  const Variable dy = jvp(mul(mul(x, x), x), V{x}, V{v}, {.create_graph = true});
  CHECK(dy.item() == doctest::Approx(60).epsilon(1e-14));
  const V first = grad(dy, V{x, v});
  CHECK(first[0].item() == doctest::Approx(60).epsilon(1e-14));
  CHECK(first[1].item() == doctest::Approx(12).epsilon(1e-14));
  const Variable ddy = jvp(dy, V{x}, V{w}, {.create_graph = true});
  CHECK(ddy.item() == doctest::Approx(420).epsilon(1e-14));
  CHECK(jvp(ddy, V{x}, V{w}).item() == doctest::Approx(6 * 5 * 49).epsilon(1e-14));
}

TEST_CASE("an input that depends on another moves along both tangents") {
  const Variable x = number(3);
  const Variable h = mul(x, x), y = mul(h, x);
  const V inputs{h, x};
  const Variable dh = Tensor::scalar(0.5, DType::f64), dx = Tensor::scalar(2, DType::f64);
  // h moves by 2·3·2 + 0.5 = 12.5; y by 12.5·3 + 9·2.
  CHECK(jvp(y, inputs, V{dh, dx}).item() == doctest::Approx(55.5).epsilon(1e-14));
  // h is an output as well, and x itself.
  const V all = jvp(V{y, h, x}, inputs, V{dh, dx});
  CHECK(all[1].item() == doctest::Approx(12.5).epsilon(1e-14));
  CHECK(all[2].item() == 2);
  // Named twice, it moves twice.
  CHECK(jvp(y, V{x, x}, V{dx, dx}).item() == doctest::Approx(108).epsilon(1e-14));
  const V gradients = grad(y, inputs);
  CHECK(gradients[0].item() * 0.5 + gradients[1].item() * 2 == doctest::Approx(55.5).epsilon(1e-14));
}

TEST_CASE("several directions have the bits of one") {
  const Variable x = Variable::leaf(normal({2, 5, 5, 3}, 1)), w = Variable::leaf(normal({3, 3, 3, 4}, 2));
  const V outputs{tanh(conv2d(x, w, {.pad_h = 1, .pad_w = 1})), sum(mul(w, w))};
  std::vector<V> directions;
  for (std::uint64_t k = 0; k < 3; ++k)
    directions.push_back(
        {normal(x.shape(), 10 + k), k == 1 ? Variable() : Variable(normal(w.shape(), 20 + k))});
  const auto many = jvp_many(outputs, V{x, w}, directions);
  for (std::size_t k = 0; k < directions.size(); ++k) {
    const V one = jvp(outputs, V{x, w}, directions[k]);
    for (std::size_t j = 0; j < outputs.size(); ++j)
      CHECK(many[k][j].value().to_vector<double>() == one[j].value().to_vector<double>());
  }
}

TEST_CASE("several directions have the bits of one where kernels share their work") {
  // f32 and 16 channels: Winograd; a residual and a ReLU; gradients as well as values; tangents missing here
  // and there.
  const auto f32 = [](const Shape& shape, std::uint64_t seed) { return normal(shape, seed).to(DType::f32); };
  const Variable x = Variable::leaf(f32({8, 12, 12, 16}, 1)), w = Variable::leaf(f32({3, 3, 16, 16}, 2));
  const Variable s = Variable::leaf(f32({16}, 3)), t = Variable::leaf(f32({16}, 4));
  const V inputs{x, w, s, t};
  std::vector<V> directions;
  for (std::uint64_t k = 0; k < 4; ++k) {
    V& direction = directions.emplace_back();
    for (std::size_t i = 0; i < inputs.size(); ++i)
      direction.push_back(i == k ? Variable() : Variable(f32(inputs[i].shape(), 10 * (k + 1) + i)));
  }
  const ConvParams same{.pad_h = 1, .pad_w = 1};
  const Epilogue epilogue{.relu = true, .residual = x};
  const Variable y = conv2d(x, w, same);
  for (const Variable& z : {channel_affine(y, s, t, epilogue), batch_norm_train(y, s, t, 1e-5, epilogue).y,
                            conv2d(x, channel_scale(w, s), same, t, epilogue)}) {
    V outputs = grad(sum(mul(z, z)), inputs, {.create_graph = true});
    outputs.push_back(z);
    const auto many = jvp_many(outputs, inputs, directions);
    for (std::size_t k = 0; k < directions.size(); ++k) {
      const V one = jvp(outputs, inputs, directions[k]);
      for (std::size_t j = 0; j < outputs.size(); ++j)
        CHECK(many[k][j].value().to_vector<float>() == one[j].value().to_vector<float>());
    }
  }
}

TEST_CASE("neither the caller's tensors nor the graph's are overwritten") {
  const Variable x = Variable::leaf(normal({40}, 1));
  const Variable a = add(x, x), b = add(relu(a), x), y = sub(add(b, a), reshape(relu(b), {40}));
  const Tensor v = normal({40}, 2), before = v.clone();
  const V outputs{b, a, y};
  const V once = jvp(outputs, V{x}, V{v}), again = jvp(outputs, V{x}, V{v});
  CHECK(v.to_vector<double>() == before.to_vector<double>());
  for (std::size_t k = 0; k < 3; ++k) {
    CHECK(once[k].value().to_vector<double>() == again[k].value().to_vector<double>());
    const Tensor u = normal({40}, 3 + k);
    const double forward = sum(mul(once[k], u)).item();
    const double reverse = dot(grad(std::span(&outputs[k], 1), V{x}, {.grad_outputs = {u}})[0], v).item();
    CHECK(forward == doctest::Approx(reverse).epsilon(1e-13));
  }
}

TEST_CASE("tangents are freed after their last use, and nodes off the path cost nothing") {
  Variable x = Variable::leaf(normal({1 << 16}, 1));
  Variable h = x;
  for (int i = 0; i < 30; ++i) h = tanh(h);
  const Variable late = h;
  for (int i = 0; i < 3; ++i) h = tanh(h);
  const V tangent{normal(x.shape(), 2)};
  const auto bytes = [&](const Variable& input) {
    reset_peak_memory();
    const std::int64_t before = memory_stats().bytes_in_use;
    (void)jvp(h, V{input}, tangent);
    return (memory_stats().peak_bytes_in_use - before) / x.value().bytes();
  };
  CHECK(bytes(x) <= 6);  // of 33 layers
  CHECK(bytes(late) <= 6);
}

TEST_CASE("errors of jvp say what is wrong") {
  const Variable x = Variable::leaf(normal({3}, 1)), other = Variable::leaf(normal({2}, 1));
  const Variable y = exp(x), v = normal({3}, 2);
  CHECK_THROWS_WITH_AS(jvp(y, V{Variable(v)}, V{v}),
                       doctest::Contains("[jvp] input 0 (shape [3]) is a constant"), Error);
  CHECK_THROWS_WITH_AS(jvp(y, V{other}, V{Variable(normal({2}, 1))}),
                       doctest::Contains("output 0 (shape [3]) does not depend"), Error);
  CHECK(jvp(y, V{other}, V{Variable(normal({2}, 1))}, {.allow_unused = true}).value().to_vector<double>() ==
        std::vector<double>{0, 0, 0});
  CHECK_THROWS_WITH_AS(jvp(y, V{x}, V{Variable(normal({2}, 1))}), doctest::Contains("tangent 0 is f64 [2]"),
                       Error);
  CHECK_THROWS_WITH_AS(jvp(y, V{x}, V{}), doctest::Contains("0 tangents were given for 1 inputs"), Error);
}
