#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <functional>
#include <string>

#include "core/kernels/grad_norms.hpp"
#include "core/random.hpp"
#include "tests/support/threads.hpp"

using namespace goshawk;
using namespace goshawk::kernels;

namespace {

struct Case {
  Shape x, w;
  ConvParams params;
};

// Whole numbers from −3 to 3: sums of their products are exact in f32 and f64, whatever the order.
Tensor whole_numbers(const Shape& shape, Random& random) {
  Tensor t = Tensor::empty(shape, DType::f64);
  for (double& v : t.span<double>()) v = static_cast<double>(random.below(7)) - 3;
  return t;
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("norms of per-image weight gradients equal plain loops, by either form, exactly on whole numbers") {
  const std::vector<Case> cases{
      {{3, 7, 6, 2}, {3, 3, 2, 5}, {.pad_h = 1, .pad_w = 1}},
      {{2, 9, 8, 16}, {3, 3, 16, 16}, {.pad_h = 1, .pad_w = 1}},
      {{2, 8, 8, 16}, {3, 3, 16, 32}, {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1}},
      {{4, 5, 5, 7}, {1, 1, 7, 3}, {}},
      {{2, 6, 6, 4}, {1, 1, 4, 9}, {.stride_h = 2, .stride_w = 2}},
      {{2, 6, 9, 3}, {3, 1, 3, 20}, {.stride_w = 2, .pad_h = 1}},
      {{1, 40, 36, 3}, {5, 5, 3, 17}, {.pad_h = 2, .pad_w = 2}},
      {{3, 4, 4, 2}, {4, 4, 2, 3}, {}},
      {{3, 7, 6, 6}, {3, 3, 2, 9}, {.pad_h = 1, .pad_w = 1, .groups = 3}},
      {{2, 8, 8, 5}, {3, 3, 1, 5}, {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1, .groups = 5}},
      {{2, 6, 5, 6}, {3, 3, 1, 6}, {.pad_h = 1, .pad_w = 1, .groups = 6}},
      {{2, 6, 5, 12}, {3, 3, 6, 10}, {.stride_h = 2, .groups = 2}},
  };
  Random random(1);
  for (const Case& c : cases) {
    const Tensor x = whole_numbers(c.x, random);
    const Shape y = conv2d_output_shape(c.x, c.w, c.params);
    const Tensor g0 = whole_numbers(y, random), g2 = whole_numbers(y, random);
    const std::vector<double> expected0 =
        reference::conv2d_weight_grad_norms(x, g0, c.w, c.params).to_vector<double>();
    const std::vector<double> expected2 =
        reference::conv2d_weight_grad_norms(x, g2, c.w, c.params).to_vector<double>();
    for (DType dtype : {DType::f32, DType::f64}) {
      for (GradNormForm form : {GradNormForm::automatic, GradNormForm::direct, GradNormForm::gram}) {
        INFO(fmt::format("x {} w {} {} form {}", c.x, c.w, dtype, static_cast<int>(form)));
        const std::vector<Tensor> gys{g0.to(dtype), Tensor(), g2.to(dtype)};
        const Tensor norms = conv2d_weight_grad_norms(x.to(dtype), gys, c.w, c.params, form);
        REQUIRE(norms.shape() == Shape{3, c.x[0]});
        CHECK(rows(norms, 0, 1).to_vector<double>() == expected0);
        CHECK(rows(norms, 1, 2).to_vector<double>() ==
              std::vector<double>(static_cast<std::size_t>(c.x[0]), 0.0));
        CHECK(rows(norms, 2, 3).to_vector<double>() == expected2);
      }
    }
  }
}

TEST_CASE("on real numbers f64 is exact to rounding and f32 to its own") {
  Random random(2);
  for (const Case& c : {Case{{4, 16, 16, 16}, {3, 3, 16, 16}, {.pad_h = 1, .pad_w = 1}},
                        Case{{4, 8, 8, 64}, {3, 3, 64, 64}, {.pad_h = 1, .pad_w = 1}}}) {
    const Tensor x = random_normal(c.x, DType::f64, random);
    const Tensor gy = random_normal(conv2d_output_shape(c.x, c.w, c.params), DType::f64, random);
    const Tensor expected = reference::conv2d_weight_grad_norms(x, gy, c.w, c.params);
    for (GradNormForm form : {GradNormForm::direct, GradNormForm::gram}) {
      for (DType dtype : {DType::f32, DType::f64}) {
        const Tensor g = gy.to(dtype);
        const Tensor norms = conv2d_weight_grad_norms(x.to(dtype), std::span(&g, 1), c.w, c.params, form);
        for (std::int64_t n = 0; n < c.x[0]; ++n) {
          const double e = expected.data<double>()[n];
          CHECK(std::abs(norms.data<double>()[n] - e) < (dtype == DType::f32 ? 2e-6 : 1e-14) * e);
        }
      }
    }
  }
}

TEST_CASE("a gradient that is not a number has no norm by either form, and the other images keep theirs") {
  Random random(4);
  const Shape w{3, 3, 4, 5};
  const Tensor x = random_normal({3, 6, 6, 4}, DType::f32, random);
  const Tensor gy = random_normal({3, 4, 4, 5}, DType::f32, random);
  gy.data<float>()[gy.numel() / 2] = std::nanf("");  // in the second image
  for (GradNormForm form : {GradNormForm::direct, GradNormForm::gram}) {
    const std::vector<double> norms =
        conv2d_weight_grad_norms(x, std::span(&gy, 1), w, {}, form).to_vector<double>();
    CHECK(norms[0] > 0);
    CHECK(std::isnan(norms[1]));
    CHECK(norms[2] > 0);
  }
}

TEST_CASE("an image's norm is the same for any number of threads and wherever it lies in the batch") {
  Random random(3);
  const Shape w{3, 3, 8, 24};
  const ConvParams params{.pad_h = 1, .pad_w = 1};
  const Tensor x = random_normal({7, 20, 20, 8}, DType::f32, random);
  const Tensor gy = random_normal({7, 20, 20, 24}, DType::f32, random);
  for (GradNormForm form : {GradNormForm::direct, GradNormForm::gram}) {
    const auto with = [&](int threads) {
      const Threads limit(threads);
      return conv2d_weight_grad_norms(x, std::span(&gy, 1), w, params, form).to_vector<double>();
    };
    const std::vector<double> one = with(1);
    CHECK(with(2) == one);
    const Tensor part = rows(gy, 3, 6);
    const std::vector<double> some =
        conv2d_weight_grad_norms(rows(x, 3, 6), std::span(&part, 1), w, params, form).to_vector<double>();
    CHECK(some == std::vector<double>(one.begin() + 3, one.begin() + 6));
  }
}

TEST_CASE("a NaN in a gradient is one in its norm, by either form") {
  const Tensor x = Tensor::full({2, 4, 4, 3}, DType::f32, 1), g = Tensor::full({2, 4, 4, 2}, DType::f32, 1);
  g.data<float>()[0] = NAN;
  for (const GradNormForm form : {GradNormForm::automatic, GradNormForm::direct, GradNormForm::gram}) {
    const Tensor norms = conv2d_weight_grad_norms(x, std::span(&g, 1), {1, 1, 3, 2}, {}, form);
    CHECK(std::isnan(norms.data<double>()[0]));
    CHECK(norms.data<double>()[1] > 0);
  }
}

TEST_CASE("linear layers: the product of the norms") {
  const Tensor x = Tensor::from<double>({1, 2, -2, 0, 3, 4}, {2, 3});
  const std::vector<Tensor> g{Tensor::from<double>({1, 1, 2, 0}, {2, 2}), Tensor()};
  CHECK(linear_weight_grad_norms(x, g).to_vector<double>() == std::vector<double>{18, 100, 0, 0});
  CHECK(sample_norms(x.to(DType::f32)).to_vector<double>() == std::vector<double>{9, 25});
}

TEST_CASE("shapes and types that do not fit are refused") {
  const Tensor x = Tensor::zeros({2, 5, 5, 3}, DType::f32);
  const auto call = [&](const Tensor& gy) {
    return message_of([&] { conv2d_weight_grad_norms(x, std::span(&gy, 1), {3, 3, 3, 4}, {}); });
  };
  CHECK(call(Tensor::zeros({2, 5, 5, 4}, DType::f32)).find("[2, 5, 5, 4]") != std::string::npos);
  CHECK(call(Tensor::zeros({2, 3, 3, 4}, DType::f64)).find("f64") != std::string::npos);
  CHECK(call(Tensor::zeros({2, 3, 3, 4}, DType::f32)) == "no error");
}
