#include <array>
#include <cmath>
#include <doctest/doctest.h>
#include <hwy/targets.h>
#include <set>
#include <string>

#include "core/kernels/conv.hpp"
#include "core/kernels/conv_simd.hpp"
#include "core/kernels/conv_sums.hpp"
#include "core/random.hpp"
#include "tests/support/target_guard.hpp"
#include "tests/support/threads.hpp"

using namespace goshawk;
using namespace goshawk::kernels;
using Index = std::int64_t;

namespace {

struct Case {
  Index n, h, w, ci, kh, kw, co;
  ConvParams params;

  Shape x() const { return {n, h, w, ci}; }
  Shape weights() const { return {kh, kw, ci / params.groups, co}; }
  Shape y() const { return conv2d_output_shape(x(), weights(), params); }
  bool possible() const { return h + 2 * params.pad_h >= kh && w + 2 * params.pad_w >= kw; }
  Index multiplications() const { return y().numel() * kh * kw * ci / params.groups; }
};

std::string describe(const Case& c) {
  return fmt::format("x {} w {} stride {} x {} pad {} x {} groups {}", c.x(), c.weights(), c.params.stride_h,
                     c.params.stride_w, c.params.pad_h, c.params.pad_w, c.params.groups);
}

/// Whole numbers from -3 to 3: sums of their products are exact in f32, whatever the order of summation.
Tensor whole_numbers(const Shape& shape, Random& random) {
  Tensor t = Tensor::empty(shape, DType::f64);
  for (double& v : t.span<double>()) v = static_cast<double>(random.below(7)) - 3;
  return t;
}

bool equal(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  return dispatch_floating(a.dtype(), "equal",
                           [&]<class T>() { return a.to_vector<T>() == b.to_vector<T>(); });
}

/// Direct sums for the lifetime of the guard.
struct DirectGuard {
  DirectGuard() { set_winograd(false); }
  ~DirectGuard() { set_winograd(true); }
};

/// All three convolutions, both precisions and every instruction set against the reference, exactly.
void check_exact(const Case& c, Random& random) {
  const Tensor x = whole_numbers(c.x(), random);
  const Tensor w = whole_numbers(c.weights(), random);
  const Tensor gy = whole_numbers(c.y(), random);
  const Tensor y = reference::conv2d(x, w, c.params);
  const Tensor gx = reference::conv2d_input_grad(gy, w, c.x(), c.params);
  const Tensor gw = reference::conv2d_weight_grad(x, gy, c.weights(), c.params);
  const DirectGuard direct;
  TargetGuard guard;
  for (Index target : simd::supported_targets()) {
    hwy::SetSupportedTargetsForTest(target);
    for (DType dtype : {DType::f32, DType::f64}) {
      INFO(describe(c), " ", hwy::TargetName(target), " ", std::string(dtype_name(dtype)));
      const Tensor xt = x.to(dtype), wt = w.to(dtype), gyt = gy.to(dtype);
      CHECK(equal(conv2d(xt, wt, c.params), y.to(dtype)));
      CHECK(equal(conv2d_input_grad(gyt, wt, c.x(), c.params), gx.to(dtype)));
      CHECK(equal(conv2d_weight_grad(xt, gyt, c.weights(), c.params), gw.to(dtype)));
    }
  }
}

double dot(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (Index i = 0; i < a.numel(); ++i) sum += a.data<double>()[i] * b.data<double>()[i];
  return sum;
}

Tensor magnitudes(const Tensor& t) {
  Tensor m = t.to(DType::f64).clone();
  for (double& v : m.span<double>()) v = std::abs(v);
  return m;
}

/// |a - exact| <= terms * eps / (1 - terms * eps) * (sum of the products' magnitudes), the bound that holds
/// for any order of summation (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., (3.5));
/// exact is rounded to f64, which is far below the bound for f32.
bool within_rounding(const Tensor& a, const Tensor& exact, const Tensor& magnitude, Index terms) {
  const double u = 0x1p-24 * static_cast<double>(terms + 1);
  const Tensor wide = a.to(DType::f64);
  for (Index i = 0; i < wide.numel(); ++i) {
    const double error = std::abs(wide.data<double>()[i] - exact.data<double>()[i]);
    if (!(error <= u / (1 - u) * magnitude.data<double>()[i])) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("a convolution computed by hand") {
  // One 3 x 3 image, a 2 x 2 kernel, one channel.
  const Tensor x = Tensor::from<double>({1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 3, 3, 1});
  const Tensor w = Tensor::from<double>({1, 10, 100, 1000}, {2, 2, 1, 1});
  const auto fast = [](const Tensor& a, const Tensor& b, const ConvParams& params) {
    return conv2d(a, b, params);
  };
  for (Tensor (*f)(const Tensor&, const Tensor&, const ConvParams&) : {+fast, &reference::conv2d}) {
    const Tensor y = f(x, w, {});
    CHECK(y.shape() == Shape{1, 2, 2, 1});
    CHECK(y.to_vector<double>() == std::vector<double>{5421, 6532, 8754, 9865});
    CHECK(f(x, w, {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1}).to_vector<double>() ==
          std::vector<double>{1000, 3200, 7040, 9865});
  }
}

TEST_CASE("the reference gradients are the adjoints of the reference convolution") {
  Random random(3);
  for (const Case& c : {Case{2, 5, 6, 3, 3, 2, 4, {2, 1, 1, 2}}, Case{1, 4, 4, 2, 1, 3, 5, {1, 3, 0, 1}}}) {
    const Tensor x = whole_numbers(c.x(), random);
    const Tensor w = whole_numbers(c.weights(), random);
    const Tensor gy = whole_numbers(c.y(), random);
    const double product = dot(gy, reference::conv2d(x, w, c.params));
    CHECK(dot(reference::conv2d_input_grad(gy, w, c.x(), c.params), x) == product);
    CHECK(dot(reference::conv2d_weight_grad(x, gy, c.weights(), c.params), w) == product);
  }
}

TEST_CASE("every instruction set, kernel, stride and pad equals the reference") {
  const std::vector<std::pair<Index, Index>> kernels{{1, 1}, {2, 2}, {3, 3}, {5, 5}, {7, 7}, {1, 3}, {3, 1}};
  const std::vector<Index> channels{1, 3, 4, 10, 16, 17, 20, 32, 48, 64};
  const std::vector<Index> sizes{1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 23, 32};
  Random random(11);
  const auto pick = [&](const std::vector<Index>& from) { return from[random.below(from.size())]; };
  constexpr Index kMaxMultiplications = 2000000;
  std::set<Index> channels_in, channels_out;
  for (const auto& [kh, kw] : kernels) {
    for (Index stride = 1; stride <= 3; ++stride) {
      for (Index pad = 0; pad <= 3; ++pad) {
        for (int repeat = 0; repeat < 5; ++repeat) {
          Case c{};
          do {
            c = {1 + static_cast<Index>(random.below(5)),
                 pick(sizes),
                 pick(sizes),
                 pick(channels),
                 kh,
                 kw,
                 pick(channels),
                 // One repeat in five has its own stride and pad in each direction.
                 {stride, repeat == 0 ? 1 + static_cast<Index>(random.below(3)) : stride, pad,
                  repeat == 0 ? static_cast<Index>(random.below(4)) : pad}};
          } while (!c.possible() || c.multiplications() > kMaxMultiplications);
          channels_in.insert(c.ci);
          channels_out.insert(c.co);
          check_exact(c, random);
        }
      }
    }
  }
  CHECK(channels_in.size() == channels.size());
  CHECK(channels_out.size() == channels.size());
}

TEST_CASE("shapes that split rows, images, chunks and parts equal the reference") {
  Random random(12);
  for (const Case& c : {
           Case{20, 16, 16, 16, 3, 3, 16, {1, 1, 1, 1}},  // several chunks of the weight gradient
           Case{18, 4, 4, 32, 3, 3, 48, {1, 1, 1, 1}},    // several images in a group
           Case{11, 8, 8, 32, 3, 3, 32, {1, 1, 1, 1}},    // large sums: eight images in a group, then three
           Case{2, 40, 30, 32, 3, 3, 24, {1, 1, 1, 1}},   // large sums: rows in groups beyond the first cache
           Case{1, 65, 67, 3, 3, 3, 16, {1, 1, 1, 1}},    // one large image: rows in parallel
           Case{2, 64, 64, 3, 7, 7, 20, {2, 2, 3, 3}},    // a wide stem
           Case{3, 33, 31, 10, 3, 3, 17, {2, 2, 1, 1}},   // rows left over by the stride
           Case{2, 12, 60, 8, 5, 1, 33, {3, 2, 2, 0}},    // three vectors of outputs
           Case{4, 28, 28, 24, 1, 1, 40, {1, 1, 0, 0}},   // a 1 x 1 kernel
           Case{5, 14, 14, 16, 1, 1, 32, {2, 2, 0, 0}},   // a projection shortcut
           Case{2, 9, 10, 20, 1, 1, 33, {2, 1, 0, 0}},    // uneven strides, rows left over
           Case{2, 7, 6, 512, 1, 1, 24, {1, 1, 0, 0}},    // pixels that share sets of a cache, so they are
                                                          // copied
           Case{1, 1, 1, 64, 1, 1, 10, {1, 1, 0, 0}},     // a fully connected layer
           Case{2, 1, 1, 3, 1, 1, 4, {3, 3, 1, 1}},       // every output sees padding only
           Case{2, 3, 3, 4, 3, 3, 4, {1, 1, 6, 6}},       // a pad wider than the kernel
           // The same three with channels enough that a weight gradient reads the input where it lies.
           Case{3, 33, 31, 20, 3, 3, 17, {2, 2, 1, 1}}, Case{2, 1, 1, 32, 1, 1, 4, {3, 3, 1, 1}},
           Case{2, 3, 3, 24, 3, 3, 20, {1, 1, 6, 6}},
           Case{2, 40, 12, 48, 3, 2, 33, {1, 3, 2, 3}},   // rows in groups with padding above and below
           Case{1, 9, 9, 100, 3, 3, 1, {1, 1, 1, 1}},     // many channels to one
           Case{2, 20, 21, 6, 1, 7, 9, {1, 1, 0, 3}},     // long and thin
           Case{2, 21, 20, 6, 7, 1, 9, {1, 1, 3, 0}},     // and upright
           Case{1, 47, 46, 3, 11, 11, 20, {4, 4, 2, 2}},  // AlexNet's stem
           Case{1, 30, 31, 4, 11, 11, 8, {4, 4, 2, 2}},   // joined columns, three blocks of channels
       }) {
    check_exact(c, random);
  }
}

TEST_CASE("a grouped convolution is a convolution of each run of channels by itself") {
  Random random(17);
  const auto channels = [](const Tensor& t, Index first, Index count) {
    std::vector<double> values;
    for (Index i = 0; i < t.numel(); ++i) {
      const Index c = i % t.shape().back();
      if (c >= first && c < first + count) values.push_back(t.data<double>()[i]);
    }
    Shape shape = t.shape();
    shape[shape.size() - 1] = count;
    return Tensor::from(values, shape);
  };
  for (const Case& c :
       {Case{2, 5, 6, 6, 3, 2, 9, {2, 1, 1, 2, 3}}, Case{1, 4, 4, 4, 3, 3, 8, {1, 1, 1, 1, 4}}}) {
    INFO(describe(c));
    const Tensor x = whole_numbers(c.x(), random), w = whole_numbers(c.weights(), random);
    const Tensor gy = whole_numbers(c.y(), random);
    const Tensor y = reference::conv2d(x, w, c.params);
    const Tensor gx = reference::conv2d_input_grad(gy, w, c.x(), c.params);
    const Tensor gw = reference::conv2d_weight_grad(x, gy, c.weights(), c.params);
    ConvParams one = c.params;
    one.groups = 1;
    const Index in = c.ci / c.params.groups, out = c.co / c.params.groups;
    for (Index g = 0; g < c.params.groups; ++g) {
      const Tensor xg = channels(x, g * in, in), wg = channels(w, g * out, out),
                   gyg = channels(gy, g * out, out);
      CHECK(equal(channels(y, g * out, out), reference::conv2d(xg, wg, one)));
      CHECK(equal(channels(gx, g * in, in), reference::conv2d_input_grad(gyg, wg, xg.shape(), one)));
      CHECK(equal(channels(gw, g * out, out), reference::conv2d_weight_grad(xg, gyg, wg.shape(), one)));
    }
  }
}

TEST_CASE("grouped and depthwise convolutions equal the reference on every instruction set") {
  Random random(18);
  // Depthwise: whole, cut and short vectors; strides, pads wider than the kernel, kernels that do not fit
  // between the pads, rows in several tasks.
  for (const Index c : {1, 2, 8, 16, 20, 33, 64}) {
    for (const auto& [kernel, stride, pad] :
         {std::array<Index, 3>{3, 1, 1}, {3, 2, 1}, {5, 1, 2}, {1, 1, 0}, {2, 3, 1}, {3, 1, 4}, {7, 2, 3}}) {
      check_exact({2, 9, 11, c, kernel, kernel, c, {stride, stride, pad, pad, c}}, random);
    }
  }
  for (const Case& c : {
           Case{2, 17, 5, 24, 3, 5, 24, {1, 2, 0, 3, 24}},   // uneven
           Case{3, 40, 37, 32, 3, 3, 32, {1, 1, 1, 1, 32}},  // several tasks
           Case{1, 4, 30, 16, 4, 1, 16, {1, 1, 5, 0, 16}},   // whole kernel rows in the padding
           Case{2, 7, 9, 6, 3, 3, 12, {1, 1, 1, 1, 6}},      // two results for every channel
           Case{2, 7, 9, 6, 3, 3, 24, {2, 2, 1, 1, 6}},      // four
           Case{2, 8, 8, 5, 3, 3, 35, {1, 1, 1, 1, 5}},      // seven, too many for the depthwise sums
           Case{2, 9, 8, 32, 3, 3, 32, {1, 1, 1, 1, 8}},     // ResNeXt: four to four
           Case{2, 9, 8, 24, 3, 3, 12, {2, 1, 1, 0, 4}},     // six to three
           Case{2, 6, 7, 24, 1, 1, 6, {1, 1, 0, 0, 2}},      // twelve to three, pointwise
           Case{2, 9, 9, 48, 3, 3, 64, {1, 1, 1, 1, 2}},     // 24 to 32
           Case{2, 40, 37, 12, 3, 3, 24, {1, 1, 1, 1, 12}},  // two results, several tasks
           Case{5, 24, 24, 64, 3, 3, 64, {1, 1, 1, 1, 2}},   // 32 to 32, several tasks
           Case{2, 7, 6, 16, 3, 3, 8, {1, 1, 1, 1, 2}},  // eight to four, the last that are summed by inputs
           Case{2, 7, 6, 18, 3, 3, 8, {1, 1, 1, 1, 2}},  // nine to four, the first that are not
           Case{2, 15, 14, 40, 3, 3, 60, {2, 2, 1, 1, 4}},  // ten to fifteen
           Case{3, 12, 12, 64, 1, 1, 32, {1, 1, 0, 0, 2}},  // pointwise
           Case{1, 20, 21, 6, 7, 7, 40, {2, 2, 3, 3, 2}},   // joined columns
       }) {
    check_exact(c, random);
  }
}

TEST_CASE("groups are no Winograd convolution, though one of all their channels would be") {
  REQUIRE(winograd_enabled());
  Random random(19);
  for (const Index groups : {2, 4}) {
    const Case c{8, 16, 16, 32, 3, 3, 32, {1, 1, 1, 1, groups}};
    const Tensor x = whole_numbers(c.x(), random), w = whole_numbers(c.weights(), random);
    const Tensor gy = whole_numbers(c.y(), random);
    const auto f32 = [](const Tensor& t) { return t.to(DType::f32); };
    CHECK(equal(conv2d(f32(x), f32(w), c.params), f32(reference::conv2d(x, w, c.params))));
    CHECK(equal(conv2d_input_grad(f32(gy), f32(w), c.x(), c.params),
                f32(reference::conv2d_input_grad(gy, w, c.x(), c.params))));
    CHECK(equal(conv2d_weight_grad(f32(x), f32(gy), c.weights(), c.params),
                f32(reference::conv2d_weight_grad(x, gy, c.weights(), c.params))));
  }
}

TEST_CASE("groups of a few channels are added to a sum in place, on every instruction set") {
  Random random(20);
  for (const Case& c :
       {Case{2, 9, 9, 32, 3, 3, 32, {1, 1, 1, 1, 8}}, Case{2, 9, 9, 6, 3, 3, 12, {1, 1, 1, 1, 6}},
        Case{2, 9, 9, 24, 3, 3, 12, {2, 1, 1, 0, 4}}}) {
    const Tensor x = whole_numbers(c.x(), random), w = whole_numbers(c.weights(), random);
    const Tensor gy = whole_numbers(c.y(), random);
    const Tensor y = reference::conv2d(x, w, c.params);
    const Tensor gx = reference::conv2d_input_grad(gy, w, c.x(), c.params);
    const Tensor before_y = whole_numbers(c.y(), random), before_x = whole_numbers(c.x(), random);
    const auto added = [](const Tensor& a, const Tensor& b) {
      Tensor sum = a.clone();
      for (Index i = 0; i < sum.numel(); ++i) sum.data<double>()[i] += b.data<double>()[i];
      return sum;
    };
    const TargetGuard guard;
    for (Index target : simd::supported_targets()) {
      hwy::SetSupportedTargetsForTest(target);
      for (const DType dtype : {DType::f32, DType::f64}) {
        INFO(describe(c), " ", hwy::TargetName(target));
        const Tensor xt = x.to(dtype), wt = w.to(dtype), gyt = gy.to(dtype);
        // Of its own: to() gives the same tensor where the type is the same.
        CHECK(equal(conv2d(xt, wt, c.params, before_y.to(dtype).clone()), added(before_y, y).to(dtype)));
        CHECK(equal(conv2d_input_grad(gyt, wt, c.x(), c.params, before_x.to(dtype).clone()),
                    added(before_x, gx).to(dtype)));
      }
    }
  }
}

TEST_CASE("what is not a number stays in its group") {
  for (const auto& [in, out, groups] : {std::array<Index, 3>{8, 8, 8}, {8, 16, 8}, {8, 8, 2}, {32, 32, 2}}) {
    Tensor x = Tensor::zeros({1, 5, 5, in}, DType::f32);
    x.data<float>()[12 * in + 1] = INFINITY;
    const Tensor y = conv2d(x, Tensor::zeros({3, 3, in / groups, out}, DType::f32), {1, 1, 1, 1, groups});
    const Index group = 1 / (in / groups);
    for (Index i = 0; i < y.numel(); ++i) {
      const Index row = i / out / 5, column = i / out % 5;
      const bool sees =
          std::abs(row - 2) <= 1 && std::abs(column - 2) <= 1 && i % out / (out / groups) == group;
      CHECK(std::isnan(y.data<float>()[i]) == sees);
    }
  }
}

TEST_CASE("f32 rounding errors stay within the bound for any order of summation") {
  const DirectGuard direct;
  Random random(13);
  for (const Case& c :
       {Case{3, 15, 15, 32, 3, 3, 20, {1, 1, 1, 1}}, Case{4, 14, 14, 16, 3, 3, 32, {2, 2, 1, 1}},
        Case{4, 31, 30, 20, 3, 3, 20, {1, 1, 1, 1, 20}}, Case{2, 15, 15, 32, 3, 3, 32, {1, 1, 1, 1, 8}}}) {
    const Tensor x = random_normal(c.x(), DType::f32, random);
    const Tensor w = random_normal(c.weights(), DType::f32, random);
    const Tensor gy = random_normal(c.y(), DType::f32, random);
    const Tensor x64 = x.to(DType::f64), w64 = w.to(DType::f64), gy64 = gy.to(DType::f64);
    const Tensor xm = magnitudes(x), wm = magnitudes(w), gm = magnitudes(gy);
    TargetGuard guard;
    for (Index target : simd::supported_targets()) {
      hwy::SetSupportedTargetsForTest(target);
      INFO(describe(c), " ", hwy::TargetName(target));
      CHECK(within_rounding(conv2d(x, w, c.params), reference::conv2d(x64, w64, c.params),
                            reference::conv2d(xm, wm, c.params), c.kh * c.kw * c.ci / c.params.groups));
      CHECK(within_rounding(
          conv2d_input_grad(gy, w, c.x(), c.params), reference::conv2d_input_grad(gy64, w64, c.x(), c.params),
          reference::conv2d_input_grad(gm, wm, c.x(), c.params), c.kh * c.kw * c.co / c.params.groups));
      CHECK(within_rounding(conv2d_weight_grad(x, gy, c.weights(), c.params),
                            reference::conv2d_weight_grad(x64, gy64, c.weights(), c.params),
                            reference::conv2d_weight_grad(xm, gm, c.weights(), c.params),
                            c.n * c.y()[1] * c.y()[2]));
    }
  }
}

TEST_CASE("any number of threads gives the same bits") {
  Random random(14);
  for (const Case& c :
       {Case{33, 16, 16, 16, 3, 3, 32, {1, 1, 1, 1}}, Case{33, 16, 16, 16, 3, 3, 20, {1, 1, 1, 1}},
        Case{1, 61, 64, 3, 3, 3, 16, {2, 2, 1, 1}}, Case{5, 33, 40, 20, 3, 3, 20, {1, 1, 1, 1, 20}},
        Case{5, 33, 40, 12, 3, 3, 24, {2, 2, 1, 1, 12}}, Case{5, 17, 16, 32, 3, 3, 32, {1, 1, 1, 1, 2}}}) {
    const Tensor x = random_normal(c.x(), DType::f32, random);
    const Tensor w = random_normal(c.weights(), DType::f32, random);
    const Tensor gy = random_normal(c.y(), DType::f32, random);
    const Threads limit(1);
    const Tensor y = conv2d(x, w, c.params);
    const Tensor gx = conv2d_input_grad(gy, w, c.x(), c.params);
    const Tensor gw = conv2d_weight_grad(x, gy, c.weights(), c.params);
    for (int threads : {2, 5}) {
      const Threads more(threads);
      CHECK(equal(conv2d(x, w, c.params), y));
      CHECK(equal(conv2d_input_grad(gy, w, c.x(), c.params), gx));
      CHECK(equal(conv2d_weight_grad(x, gy, c.weights(), c.params), gw));
    }
  }
}

TEST_CASE("a not-a-number only reaches the outputs that see it") {
  Tensor x = Tensor::zeros({1, 6, 6, 3}, DType::f32);
  x.data<float>()[(2 * 6 + 3) * 3 + 1] = std::nanf("");
  const Tensor y = conv2d(x, Tensor::full({3, 3, 3, 5}, DType::f32, 1), {1, 1, 1, 1});
  for (Index row = 0; row < 6; ++row) {
    for (Index column = 0; column < 6; ++column) {
      const bool sees = std::abs(row - 2) <= 1 && std::abs(column - 3) <= 1;
      for (Index c = 0; c < 5; ++c) CHECK(std::isnan(y.data<float>()[(row * 6 + column) * 5 + c]) == sees);
    }
  }
}

TEST_CASE("a result that is added to a sum in place equals the sum of both") {
  Random random(15);
  // By blocks of whole and cut vectors, by phases of a stride that leave pixels without a tap, and by
  // Winograd.
  for (const Case& c :
       {Case{3, 9, 7, 5, 3, 3, 19, {1, 1, 1, 1}}, Case{2, 8, 9, 16, 1, 1, 32, {2, 2, 0, 0}},
        Case{2, 9, 9, 3, 3, 3, 16, {2, 2, 1, 1}}, Case{4, 17, 16, 16, 3, 3, 32, {1, 1, 1, 1}},
        Case{2, 9, 9, 19, 3, 3, 19, {1, 1, 1, 1, 19}}, Case{2, 9, 9, 19, 3, 3, 19, {2, 2, 1, 1, 19}},
        Case{2, 9, 9, 16, 3, 3, 16, {1, 1, 1, 1, 2}}}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      INFO(describe(c));
      const Tensor x = random_normal(c.x(), dtype, random), w = random_normal(c.weights(), dtype, random);
      const Tensor gy = random_normal(c.y(), dtype, random);
      const auto check = [&](const Shape& shape, const auto& f) {
        const Tensor sum = random_normal(shape, dtype, random), before = sum.clone(), term = f(Tensor());
        const Tensor result = f(sum);
        CHECK(result.raw() == sum.raw());
        dispatch_floating(dtype, "check", [&]<class T>() {
          for (Index i = 0; i < sum.numel(); ++i) {
            if (result.data<T>()[i] != before.data<T>()[i] + term.data<T>()[i]) FAIL("element ", i);
          }
        });
        CHECK_THROWS_AS(f(Tensor::zeros({1, 2, 3, 4}, dtype)), Error);
      };
      check(c.y(), [&](const Tensor& sum) { return conv2d(x, w, c.params, sum); });
      check(c.x(), [&](const Tensor& sum) { return conv2d_input_grad(gy, w, c.x(), c.params, sum); });
    }
  }
}

TEST_CASE("a bias is added to every pixel") {
  Random random(16);
  // Whole and cut vectors, joined columns, a stride, short rows, and Winograd.
  for (const Case& c :
       {Case{3, 9, 7, 5, 3, 3, 19, {1, 1, 1, 1}}, Case{2, 9, 9, 3, 3, 3, 16, {2, 2, 1, 1}},
        Case{2, 8, 9, 16, 1, 1, 40, {1, 1, 0, 0}}, Case{2, 3, 4, 1, 2, 1, 3, {3, 3, 4, 1}},
        Case{4, 17, 16, 16, 3, 3, 32, {1, 1, 1, 1}}, Case{2, 9, 9, 19, 3, 3, 19, {1, 1, 1, 1, 19}},
        Case{2, 9, 9, 8, 3, 3, 8, {1, 1, 1, 1, 2}}, Case{2, 9, 9, 16, 3, 3, 16, {1, 1, 1, 1, 2}}}) {
    const TargetGuard guard;
    for (Index target : simd::supported_targets()) {
      hwy::SetSupportedTargetsForTest(target);
      for (const DType dtype : {DType::f32, DType::f64}) {
        INFO(describe(c), " ", hwy::TargetName(target));
        const Tensor x = whole_numbers(c.x(), random).to(dtype), bias = whole_numbers({c.co}, random);
        const Tensor w = whole_numbers(c.weights(), random).to(dtype);
        const Tensor residual = whole_numbers(c.y(), random).to(dtype);
        const Tensor without = conv2d(x, w, c.params),
                     with = conv2d(x, w, c.params, {}, {.bias = bias.to(dtype)});
        const Tensor sum = Tensor::full(c.y(), dtype, 100);
        conv2d(x, w, c.params, sum, {.bias = bias.to(dtype)});
        const Tensor passed = conv2d(x, w, c.params, {}, {bias.to(dtype), residual, true});
        const Tensor positive_sum = Tensor::full(c.y(), dtype, -1);
        conv2d(x, w, c.params, positive_sum, {.relu = true});
        const Tensor masked = conv2d(x, w, c.params, {}, {.residual = residual, .mask = residual});
        // Whole numbers are exact by direct sums only.
        const double tolerance = dtype == DType::f32 && c.co == 32 ? 1e-3 : 0;
        dispatch_floating(dtype, "check", [&]<class T>() {
          for (Index i = 0; i < with.numel(); ++i) {
            const double shift = bias.data<double>()[i % c.co], y = without.data<T>()[i];
            if (std::abs(with.data<T>()[i] - (y + shift)) > tolerance) FAIL("element ", i);
            if (std::abs(sum.data<T>()[i] - (100 + y + shift)) > tolerance) FAIL("added to element ", i);
            const double all = std::max(0.0, y + shift + residual.data<T>()[i]);
            if (std::abs(passed.data<T>()[i] - all) > tolerance) FAIL("everything at element ", i);
            const double r = residual.data<T>()[i];
            if (std::abs(masked.data<T>()[i] - (r > 0 ? y + r : 0)) > tolerance) FAIL("masked element ", i);
            if (std::abs(positive_sum.data<T>()[i] - std::max(0.0, y - 1)) > tolerance)
              FAIL("sum past ReLU ", i);
          }
        });
      }
    }
  }
  const Tensor x = Tensor::zeros({1, 4, 4, 2}, DType::f32), w = Tensor::zeros({1, 1, 2, 3}, DType::f32);
  CHECK_THROWS_AS(conv2d(x, w, {}, {}, {.bias = Tensor::zeros({2}, DType::f32)}), Error);
  CHECK_THROWS_AS(conv2d(x, w, {}, {}, {.bias = Tensor::zeros({3}, DType::f64)}), Error);
  const Tensor y = Tensor::zeros({1, 4, 4, 3}, DType::f32);
  CHECK_THROWS_AS(conv2d(x, w, {}, {}, {.residual = Tensor::zeros({1, 4, 3, 3}, DType::f32)}), Error);
  CHECK_THROWS_AS(conv2d(x, w, {}, {}, {.residual = y.to(DType::f64)}), Error);
  CHECK_THROWS_AS(conv2d(x, w, {}, y, {.residual = y}), Error);
  CHECK_THROWS_AS(conv2d(x, w, {}, {}, {.mask = Tensor::zeros({1, 4, 3, 3}, DType::f32)}), Error);
  CHECK_THROWS_AS(conv2d(x, w, {}, {}, {.mask = y.to(DType::f64)}), Error);
}

TEST_CASE("what follows sums of direct convolutions is done once, to every pixel") {
  Random random(17);
  // Strides that fall into several phases, some of them without a kernel element, cut tasks, and groups.
  for (const Case& c :
       {Case{2, 9, 11, 5, 3, 3, 19, {2, 2, 1, 1}}, Case{3, 8, 7, 16, 1, 1, 8, {2, 2, 0, 0}},
        Case{2, 13, 10, 3, 2, 3, 16, {3, 1, 1, 0}}, Case{1, 70, 65, 3, 3, 3, 16, {1, 1, 1, 1}},
        Case{2, 9, 9, 8, 3, 3, 8, {2, 2, 1, 1, 8}}, Case{2, 9, 9, 8, 3, 3, 8, {1, 1, 1, 1, 2}}}) {
    const TargetGuard guard;
    for (Index target : simd::supported_targets()) {
      hwy::SetSupportedTargetsForTest(target);
      for (const DType dtype : {DType::f32, DType::f64}) {
        INFO(describe(c), " ", hwy::TargetName(target));
        const auto some = [&](const Shape& shape) { return whole_numbers(shape, random).to(dtype); };
        const Tensor x = some(c.x()), dx = some(c.x()), gy = some(c.y()), dgy = some(c.y());
        const Tensor w = some(c.weights()), dw = some(c.weights());
        const auto check = [&](const ConvSum& sum, const Tensor& result, const Tensor& one,
                               const Tensor& other) {
          dispatch_floating(dtype, "check", [&]<class T>() {
            const Index channels = result.dim(3);
            for (Index i = 0; i < result.numel(); ++i) {
              T expected = one.data<T>()[i] + other.data<T>()[i] + sum.bias.data<T>()[i % channels] +
                           sum.residual.data<T>()[i];
              if (sum.mask.data<T>()[i] <= 0) expected = 0;
              if (result.data<T>()[i] != expected) FAIL("element ", i);
            }
          });
        };
        const ConvSum forward{
            .pairs = {{x, dw}, {dx, w}}, .bias = some({c.co}), .residual = some(c.y()), .mask = some(c.y())};
        check(forward, conv2d_sums({forward}, c.params).front(), conv2d(x, dw, c.params),
              conv2d(dx, w, c.params));
        const ConvSum backward{.pairs = {{gy, dw}, {dgy, w}},
                               .bias = some({c.ci}),
                               .residual = some(c.x()),
                               .mask = some(c.x())};
        check(backward, conv2d_input_grad_sums({backward}, c.x(), c.params).front(),
              conv2d_input_grad(gy, dw, c.x(), c.params), conv2d_input_grad(dgy, w, c.x(), c.params));
      }
    }
  }
}

TEST_CASE("an empty batch gives empty images and zero weight gradients") {
  const Tensor x = Tensor::empty({0, 5, 5, 2}, DType::f32);
  const Tensor w = Tensor::full({3, 3, 2, 4}, DType::f32, 1);
  const Tensor y = conv2d(x, w, {});
  CHECK(y.shape() == Shape{0, 3, 3, 4});
  CHECK(conv2d_input_grad(y, w, x.shape(), {}).shape() == x.shape());
  CHECK(equal(conv2d_weight_grad(x, y, w.shape(), {}), Tensor::zeros(w.shape(), DType::f32)));
}

TEST_CASE("wrong arguments raise errors that say what is wrong") {
  const auto f32 = [](const Shape& shape) { return Tensor::zeros(shape, DType::f32); };
  const Tensor x = f32({2, 8, 8, 3}), w = f32({3, 3, 3, 4});
  const auto message = [](const auto& f) -> std::string {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  const auto contains = [](const std::string& text, const char* part) {
    INFO(text, " lacks ", part);
    return text.find(part) != std::string::npos;
  };
  CHECK(contains(message([&] {
                   conv2d(f32({2, 8, 8, 5}), w, {});
                 }),
                 "5 channels but the weights [3, 3, 3, 4] expect 3"));
  CHECK(contains(message([&] { conv2d(f32({8, 8, 3}), w, {}); }), "[8, 8, 3]; give a batch of images"));
  CHECK(contains(message([&] { conv2d(x, f32({3, 3, 3}), {}); }), "give [KH, KW, C_in, C_out]"));
  CHECK(contains(message([&] { conv2d(f32({2, 1, 8, 3}), w, {}); }), "larger than the padded image 1 x 8"));
  CHECK(contains(message([&] { conv2d(x, w, {.stride_h = 0}); }), "strides 0 x 1"));
  CHECK(contains(message([&] { conv2d(x, w, {.pad_w = -1}); }), "pads 0 x -1"));
  // Twice this is −2.
  CHECK(contains(message([&] { conv2d(x, w, {.pad_h = std::numeric_limits<std::int64_t>::max()}); }),
                 "pads 9223372036854775807 x 0 are not from 0 to 2147483647"));
  CHECK(contains(message([&] { conv2d(x, w, {.groups = 0}); }), "0 groups are not positive"));
  CHECK(contains(message([&] {
                   conv2d(f32({2, 8, 8, 6}), f32({3, 3, 3, 5}), {.groups = 2});
                 }),
                 "2 groups do not divide the 6 channels of the input [2, 8, 8, 6] and the 5 of the output"));
  CHECK(contains(message([&] {
                   conv2d(f32({2, 8, 8, 6}), f32({3, 3, 6, 4}), {.groups = 2});
                 }),
                 "6 channels but the weights [3, 3, 6, 4] expect 12"));
  CHECK(contains(message([&] { conv2d(x, f32({3, 3, 3, 0}), {}); }), "empty dimension"));
  CHECK(contains(message([&] { conv2d(x, w.to(DType::f64), {}); }), "f32 and f64"));
  CHECK(contains(message([&] { conv2d(x.to(DType::i32), w.to(DType::i32), {}); }), "i32 and i32"));
  CHECK(contains(message([&] { conv2d(Tensor(), w, {}); }), "undefined"));
  CHECK(
      contains(message([&] {
                 conv2d_input_grad(f32({2, 8, 8, 4}), w, x.shape(), {});
               }),
               "[conv2d_input_grad] the gradient of the output has shape [2, 8, 8, 4] but the convolution's "
               "output is [2, 6, 6, 4]"));
  CHECK(contains(message([&] {
                   conv2d_weight_grad(x, f32({1, 6, 6, 4}), w.shape(), {});
                 }),
                 "[conv2d_weight_grad] the gradient of the output has shape [1, 6, 6, 4]"));
}
