#include <cmath>
#include <doctest/doctest.h>
#include <hwy/targets.h>
#include <type_traits>
#include <vector>

#include "core/kernels/conv.hpp"
#include "core/kernels/conv_simd.hpp"
#include "core/kernels/conv_sums.hpp"
#include "core/kernels/conv_winograd.hpp"
#include "core/parallel.hpp"
#include "core/random.hpp"
#include "tests/support/target_guard.hpp"

using namespace goshawk;
using namespace goshawk::kernels;
using Index = std::int64_t;

namespace {

struct Case {
  Index n, h, w, ci, co, pad_h, pad_w;
  Shape x() const { return {n, h, w, ci}; }
  Shape weights() const { return {3, 3, ci, co}; }
  ConvParams params() const { return {.pad_h = pad_h, .pad_w = pad_w}; }
  Shape y() const { return conv2d_output_shape(x(), weights(), params()); }
};

/// ‖a − b‖ / ‖b‖ with b in f64.
double relative_error(const Tensor& a, const Tensor& b) {
  double difference = 0, norm = 0;
  for (Index i = 0; i < b.numel(); ++i) {
    const double e = static_cast<double>(a.data<float>()[i]) - b.data<double>()[i];
    difference += e * e;
    norm += b.data<double>()[i] * b.data<double>()[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace

TEST_CASE("Winograd's convolutions on every instruction set round within their bound") {
  // Full tiles and cut ones, tiles of several images in one task, every pad that a 3 x 3 kernel makes sense
  // with, and larger ones, with which the input's gradient is the convolution of a part of the output's.
  Random random(21);
  for (const Case& c :
       {Case{4, 16, 16, 16, 16, 1, 1}, Case{7, 15, 13, 32, 16, 1, 1}, Case{33, 8, 8, 64, 64, 1, 1},
        Case{5, 17, 18, 16, 48, 0, 2}, Case{80, 3, 5, 48, 32, 2, 0}, Case{3, 31, 9, 32, 80, 0, 0},
        Case{5, 9, 12, 32, 16, 3, 3}, Case{6, 10, 7, 16, 32, 1, 5},
        // Sums of the weight gradient in several chunks, as in training.
        Case{40, 16, 16, 16, 32, 1, 1}, Case{40, 16, 16, 32, 16, 1, 1},
        // Long sums over channels.
        Case{2, 16, 16, 128, 16, 1, 1}, Case{2, 16, 16, 512, 16, 1, 1}, Case{2, 16, 16, 16, 512, 1, 1},
        Case{2, 16, 16, 2048, 16, 1, 1}}) {
    const Tensor x = random_normal(c.x(), DType::f32, random);
    const Tensor w = random_normal(c.weights(), DType::f32, random);
    const Tensor gy = random_normal(c.y(), DType::f32, random);
    const Tensor x64 = x.to(DType::f64), w64 = w.to(DType::f64), gy64 = gy.to(DType::f64);
    const Tensor y = reference::conv2d(x64, w64, c.params());
    const Tensor gx = reference::conv2d_input_grad(gy64, w64, c.x(), c.params());
    const Tensor gw = reference::conv2d_weight_grad(x64, gy64, c.weights(), c.params());
    const TargetGuard guard;
    for (Index target : simd::supported_targets()) {
      hwy::SetSupportedTargetsForTest(target);
      INFO(hwy::TargetName(target), " x ", c.x(), " w ", c.weights(), " pad ", c.pad_h, " x ", c.pad_w);
      // A sum of independent roundings grows as the root of how many there are.
      const auto bound = [](Index channels) {
        return 1e-6 * std::sqrt(std::max(1.0, static_cast<double>(channels) / 64));
      };
      CHECK(relative_error(conv2d(x, w, c.params()), y) < bound(c.ci));
      CHECK(relative_error(conv2d_input_grad(gy, w, c.x(), c.params()), gx) < bound(c.co));
      CHECK(relative_error(conv2d_weight_grad(x, gy, c.weights(), c.params()), gw) < 1e-6);
    }
  }
}

TEST_CASE("sums of convolutions round within their bound and have the bits that each would have alone") {
  Random random(23);
  // Winograd with many tiles in a task and with few, images without any, a stride, groups, depthwise, sums of
  // several directions in several chunks.
  struct SumCase {
    Case shapes;
    ConvParams params;
  };
  for (const SumCase& c :
       {SumCase{{6, 16, 16, 16, 16, 1, 1}, {1, 1, 1, 1}}, SumCase{{20, 8, 9, 64, 32, 1, 1}, {1, 1, 1, 1}},
        SumCase{{3, 17, 15, 32, 80, 1, 1}, {1, 1, 1, 1}}, SumCase{{4, 8, 8, 16, 16, 1, 1}, {2, 2, 1, 1}},
        SumCase{{4, 8, 8, 8, 6, 1, 1}, {1, 1, 1, 1}}, SumCase{{8, 16, 16, 32, 32, 1, 1}, {1, 1, 1, 1, 2}},
        SumCase{{8, 16, 16, 32, 32, 1, 1}, {1, 1, 1, 1, 32}},
        SumCase{{40, 16, 16, 16, 16, 1, 1}, {1, 1, 1, 1}}}) {
    const Shape w_shape{3, 3, c.shapes.ci / c.params.groups, c.shapes.co};
    const Shape y_shape = conv2d_output_shape(c.shapes.x(), w_shape, c.params);
    const auto normal = [&](const Shape& shape) { return random_normal(shape, DType::f32, random); };
    const Tensor x = normal(c.shapes.x()), w = normal(w_shape), gy = normal(y_shape);
    // Both pairs, one of them only, and operands that no other sum has.
    std::vector<ConvPairs> forward, input, weight;
    for (int k = 0; k < 3; ++k) {
      forward.push_back({{x, normal(w.shape())}, {normal(x.shape()), w}});
      input.push_back({{gy, normal(w.shape())}, {normal(gy.shape()), w}});
      weight.push_back({{x, normal(gy.shape())}, {normal(x.shape()), gy}});
    }
    for (auto* sums : {&forward, &input, &weight}) {
      sums->push_back({(*sums)[0][0]});
      sums->push_back({(*sums)[1][1]});
      sums->push_back({(*sums)[2][1], (*sums)[0][0]});
    }
    const auto f64 = [](const Tensor& t) { return t.to(DType::f64); };
    const auto check = [&](const auto& sums, const auto& together, const auto& exact) {
      const std::vector<Tensor> results = together(sums);
      REQUIRE(results.size() == sums.size());
      for (std::size_t k = 0; k < sums.size(); ++k) {
        CAPTURE(k);
        const Tensor alone = together(std::decay_t<decltype(sums)>(1, sums[k])).front();
        CHECK(results[k].to_vector<float>() == alone.to_vector<float>());
        CHECK(relative_error(results[k], exact(sums[k])) < 1e-6);
      }
    };
    const auto sum_of = [&](const ConvPairs& pairs, const auto& exact) {
      Tensor sum = exact(pairs[0]);
      if (pairs.size() == 2) {
        const Tensor second = exact(pairs[1]);
        for (Index i = 0; i < sum.numel(); ++i) sum.data<double>()[i] += second.data<double>()[i];
      }
      return sum;
    };
    // Every sum of images with something else around it: nothing, one of the three, two of them, all.
    const auto surrounded = [&](const std::vector<ConvPairs>& sums, const Shape& image) {
      std::vector<ConvSum> all;
      const Tensor mask = normal(image);
      for (std::size_t k = 0; k < sums.size(); ++k) {
        ConvSum& sum = all.emplace_back(ConvSum{.pairs = sums[k]});
        if (k == 1 || k >= 4) sum.bias = normal({image.back()});
        if (k == 2 || k >= 4) sum.residual = normal(image);
        if (k == 3 || k == 5) sum.mask = mask;
      }
      return all;
    };
    const auto exact_image = [&](const ConvSum& sum, const auto& exact) {
      Tensor image = sum_of(sum.pairs, exact);
      const Index channels = image.shape().back();
      for (Index i = 0; i < image.numel(); ++i) {
        double& value = image.data<double>()[i];
        if (sum.bias.defined()) value += sum.bias.template data<float>()[i % channels];
        if (sum.residual.defined()) value += sum.residual.template data<float>()[i];
        if (sum.mask.defined() && sum.mask.template data<float>()[i] <= 0) value = 0;
      }
      return image;
    };
    const std::vector<ConvSum> forward_images = surrounded(forward, gy.shape()),
                               input_images = surrounded(input, x.shape());
    // Where the residual may be overwritten, it is with the same bits.
    const auto check_overwriting = [](const std::vector<ConvSum>& sums, const auto& together) {
      const std::vector<Tensor> results = together(sums);
      std::vector<ConvSum> overwriting = sums;
      for (ConvSum& sum : overwriting) {
        sum.overwrite = true;
        if (sum.residual.defined()) sum.residual = sum.residual.clone();
      }
      const std::vector<Tensor> again = together(overwriting);
      for (std::size_t k = 0; k < sums.size(); ++k) {
        CHECK(again[k].to_vector<float>() == results[k].to_vector<float>());
      }
    };
    const TargetGuard guard;
    for (Index target : simd::supported_targets()) {
      hwy::SetSupportedTargetsForTest(target);
      INFO(hwy::TargetName(target), " x ", c.shapes.x(), " w ", w_shape);
      const auto forward_sums = [&](const auto& sums) { return conv2d_sums(sums, c.params); };
      const auto input_sums = [&](const auto& sums) {
        return conv2d_input_grad_sums(sums, x.shape(), c.params);
      };
      check(forward_images, forward_sums, [&](const ConvSum& sum) {
        return exact_image(
            sum, [&](const ConvPair& p) { return reference::conv2d(f64(p.a), f64(p.b), c.params); });
      });
      check(input_images, input_sums, [&](const ConvSum& sum) {
        return exact_image(sum, [&](const ConvPair& p) {
          return reference::conv2d_input_grad(f64(p.a), f64(p.b), x.shape(), c.params);
        });
      });
      check_overwriting(forward_images, forward_sums);
      check_overwriting(input_images, input_sums);
      check(
          weight, [&](const auto& sums) { return conv2d_weight_grad_sums(sums, w.shape(), c.params); },
          [&](const ConvPairs& pairs) {
            return sum_of(pairs, [&](const ConvPair& p) {
              return reference::conv2d_weight_grad(f64(p.a), f64(p.b), w.shape(), c.params);
            });
          });
    }
  }
}

TEST_CASE("sums of convolutions without Winograd's, and of no pictures") {
  Random random(24);
  const auto normal = [&](const Shape& shape) { return random_normal(shape, DType::f32, random); };
  const ConvParams params{.pad_h = 1, .pad_w = 1};
  for (const Index images : {0, 6}) {
    const Shape x_shape{images, 16, 16, 16}, w_shape{3, 3, 16, 16};
    const ConvPair a{normal(x_shape), normal(w_shape)}, b{normal(x_shape), normal(w_shape)};
    set_winograd(false);
    const Tensor bias = normal({16}), residual = normal(x_shape), mask = normal(x_shape);
    const std::vector<ConvSum> images_sums{
        {.pairs = {a, b}}, {.pairs = {a, b}, .bias = bias, .residual = residual, .mask = mask}};
    const std::vector<Tensor> y_sums = conv2d_sums(images_sums, params);
    const std::vector<Tensor> gx_sums = conv2d_input_grad_sums(images_sums, x_shape, params);
    const Tensor &y = y_sums[0], &gx = gx_sums[0];
    const Tensor gw = conv2d_weight_grad_sums({{{a.a, b.a}, {b.a, a.a}}}, w_shape, params).front();
    set_winograd(true);
    CHECK(y.shape() == x_shape);
    CHECK(gx.shape() == x_shape);
    CHECK(gw.shape() == w_shape);
    if (images == 0) {
      CHECK(gw.to_vector<float>() == std::vector<float>(static_cast<std::size_t>(gw.numel())));
      CHECK(conv2d_sums(images_sums, params)[1].shape() == x_shape);
      CHECK(conv2d_weight_grad_sums({{{a.a, b.a}}}, w_shape, params).front().to_vector<float>() ==
            gw.to_vector<float>());
      continue;
    }
    const auto f64 = [](const Tensor& t) { return t.to(DType::f64); };
    const auto sum = [](const Tensor& s, const Tensor& t) {
      for (Index i = 0; i < s.numel(); ++i) s.data<double>()[i] += t.data<double>()[i];
      return s;
    };
    CHECK(relative_error(y, sum(reference::conv2d(f64(a.a), f64(a.b), params),
                                reference::conv2d(f64(b.a), f64(b.b), params))) < 1e-6);
    CHECK(relative_error(gx, sum(reference::conv2d_input_grad(f64(a.a), f64(a.b), x_shape, params),
                                 reference::conv2d_input_grad(f64(b.a), f64(b.b), x_shape, params))) < 1e-6);
    CHECK(relative_error(gw, sum(reference::conv2d_weight_grad(f64(a.a), f64(b.a), w_shape, params),
                                 reference::conv2d_weight_grad(f64(b.a), f64(a.a), w_shape, params))) < 1e-6);
    for (const auto& sums : {y_sums, gx_sums}) {
      for (Index i = 0; i < residual.numel(); ++i) {
        const float* const from = sums[0].data<float>();
        const float expected = from[i] + bias.data<float>()[i % 16] + residual.data<float>()[i];
        CHECK(sums[1].data<float>()[i] == (mask.data<float>()[i] <= 0 ? 0 : expected));
      }
    }
  }
}

TEST_CASE("sums of convolutions need one or two pairs of the same shapes") {
  const Tensor x = Tensor::zeros({2, 8, 8, 16}, DType::f32), w = Tensor::zeros({3, 3, 16, 16}, DType::f32);
  CHECK(conv2d_sums({}, {}).empty());
  const auto sum = [](const ConvPairs& pairs) { return conv2d_sums({{.pairs = pairs}}, {}); };
  CHECK_THROWS_WITH_AS(sum({}), doctest::Contains("[conv2d_sums] a sum of 0 convolutions"), Error);
  CHECK_THROWS_WITH_AS(sum({{x, w}, {x, w}, {x, w}}), doctest::Contains("a sum of 3"), Error);
  CHECK_THROWS_AS(sum({{x, w}, {x, Tensor::zeros({3, 3, 16, 8}, DType::f32)}}), Error);
  CHECK_THROWS_AS(sum({{x, w.to(DType::f64)}}), Error);
  CHECK_THROWS_WITH_AS(conv2d_weight_grad_sums({{}}, w.shape(), {}), doctest::Contains("a sum of 0"), Error);
  // The images are [2, 6, 6, 16].
  CHECK_THROWS_WITH_AS(
      conv2d_sums({{.pairs = {{x, w}}, .residual = x}}, {}),
      doctest::Contains("[conv2d_sums] the result is f32 [2, 6, 6, 16] but what it is added"), Error);
  CHECK_THROWS_AS(conv2d_sums({{.pairs = {{x, w}}, .mask = x}}, {}), Error);
  CHECK_THROWS_WITH_AS(conv2d_sums({{.pairs = {{x, w}}, .bias = Tensor::zeros({8}, DType::f32)}}, {}),
                       doctest::Contains("the bias is f32 [8]"), Error);
}

TEST_CASE("Winograd is used where it applies and can be switched off") {
  Random random(22);
  const Tensor x = random_normal({4, 16, 16, 16}, DType::f32, random);
  const Tensor w = random_normal({3, 3, 16, 16}, DType::f32, random);
  const auto bits = [&](const ConvParams& params) { return conv2d(x, w, params).to_vector<float>(); };
  const ConvParams padded{.pad_h = 1, .pad_w = 1}, strided{2, 2, 1, 1};
  const auto fast = bits(padded), fast_strided = bits(strided);
  set_winograd(false);
  CHECK_FALSE(winograd_enabled());
  CHECK(bits(padded) != fast);  // other rounding
  CHECK(bits(strided) == fast_strided);
  set_winograd(true);
  CHECK(bits(padded) == fast);
}

TEST_CASE("too few tiles and channels that fill no block are left to the direct sums") {
  const winograd::Problem enough{8, 16, 16, 16, 16, 16, 32, 1, 1};
  CHECK(winograd::worthwhile(enough));
  auto with = [&](auto member, Index value) {
    winograd::Problem p = enough;
    p.*member = value;
    return p;
  };
  CHECK_FALSE(winograd::worthwhile(with(&winograd::Problem::images, 1)));
  CHECK_FALSE(winograd::worthwhile(with(&winograd::Problem::channels, 24)));
  CHECK_FALSE(winograd::worthwhile(with(&winograd::Problem::out_channels, 3)));
  CHECK(winograd::worthwhile(with(&winograd::Problem::channels, 2048)));
  CHECK_FALSE(winograd::worthwhile(with(&winograd::Problem::channels, 2064)));
}

TEST_CASE("a not-a-number stays within the tiles whose pixels see it") {
  Tensor x = Tensor::zeros({8, 16, 16, 16}, DType::f32);
  const Index image = 3, row = 5, column = 9;
  x.data<float>()[((image * 16 + row) * 16 + column) * 16 + 2] = std::nanf("");
  const Tensor y = conv2d(x, Tensor::full({3, 3, 16, 16}, DType::f32, 1), {.pad_h = 1, .pad_w = 1});
  for (Index i = 0; i < y.numel(); ++i) {
    const Index n = i / (Index{16} * 16 * 16), r = i / (Index{16} * 16) % 16, s = i / 16 % 16;
    const bool sees = n == image && std::abs(r - row) <= 1 && std::abs(s - column) <= 1;
    const bool same_tile = n == image && r / 4 == row / 4 && s / 4 == column / 4;
    if (sees) CHECK(std::isnan(y.data<float>()[i]));
    if (!same_tile) CHECK(y.data<float>()[i] == 0);
  }
}
