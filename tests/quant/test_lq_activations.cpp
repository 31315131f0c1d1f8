// LQ-Nets for activations: codes {0, 1} and a basis that follows the batches.
#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <utility>
#include <vector>

#include "autograd/grad.hpp"
#include "autograd/ops.hpp"
#include "core/parallel.hpp"
#include "core/random.hpp"
#include "quant/fake_quantize.hpp"
#include "quant/lq_nets.hpp"

using namespace goshawk;

namespace {

std::vector<double> values(const Tensor& t) {
  return t.to(DType::f64).to_vector<double>();
}

double basis_error(const Tensor& x, const Tensor& basis, BasisCodes codes) {
  return squared_distance(quantize_by_basis(x, basis, codes, false).values, x);
}

// What a ReLU leaves of normal numbers.
Tensor rectified(std::int64_t n, DType dtype, std::uint64_t seed) {
  Random random(seed);
  return relu(random_normal({n, 1}, dtype, random)).value();
}

ActivationObserver observed(const Tensor& x) {
  ActivationObserver observer;
  observer.observe(x, "test");
  return observer;
}

}  // namespace

TEST_CASE("levels, codes and one refit: by hand") {
  // v = (1, 2) with codes 00, 10, 01, 11: levels 0, 1, 2, 3; on a threshold the lower level.
  const Tensor basis = Tensor::from<double>({1, 2}, {1, 2});
  const Tensor x = Tensor::from<double>({-4, 0, 0.5, 0.6, 1.5, 1.75, 2.5, 2.6, 40}, {9});
  const BasisActivation q = quantize_by_basis(x, basis, BasisCodes::binary, true);
  CHECK(values(q.values) == std::vector<double>{0, 0, 0, 1, 1, 2, 2, 3, 3});
  CHECK(q.low == 0);
  CHECK(q.high == 3);
  // v₁ serves the codes 10 and 11, v₂ 01 and 11, two elements each: BᵀB = [4 2; 2 4],
  // Bᵀx = (0.6 + 1.5 + 42.6, 1.75 + 2.5 + 42.6).
  const double first = 0.6 + 1.5 + 42.6, second = 1.75 + 2.5 + 42.6;
  CHECK(values(q.refit)[0] == doctest::Approx((4 * first - 2 * second) / 12).epsilon(1e-7));
  CHECK(values(q.refit)[1] == doctest::Approx((4 * second - 2 * first) / 12).epsilon(1e-7));
  CHECK(!quantize_by_basis(x, basis, BasisCodes::binary, false).refit.defined());
  // The authors' moving average.
  move_basis(basis, Tensor::from<double>({3, -8}, {1, 2}));
  CHECK(values(basis)[0] == doctest::Approx(0.9 * 1 + 0.1 * 3).epsilon(1e-15));
  CHECK(values(basis)[1] == doctest::Approx(0.9 * 2 - 0.1 * 8).epsilon(1e-15));
}

TEST_CASE("the table search finds what the definition says, for every width and any basis") {
  Random random(4);
  for (DType dtype : {DType::f32, DType::f64}) {
    for (int bits = 1; bits <= 8; ++bits) {
      for (BasisCodes codes : {BasisCodes::binary, BasisCodes::signs}) {
        for (double spread : {1.0, 1e-30, 0.0}) {
          Tensor basis = random_uniform({1, bits}, dtype, random, 0.0, 1.0);
          // Levels that nearly or wholly coincide, and a direction that points down.
          dispatch_floating(dtype, "test", [&]<class T>() {
            for (int k = 1; k < bits; ++k) basis.data<T>()[k] *= static_cast<T>(spread);
            if (bits > 3) basis.data<T>()[2] = -basis.data<T>()[2];
          });
          Tensor x = random_normal({5000}, dtype, random);
          dispatch_floating(dtype, "test", [&]<class T>() {
            x.data<T>()[0] = std::numeric_limits<T>::infinity();
            x.data<T>()[1] = -std::numeric_limits<T>::infinity();
            x.data<T>()[2] = std::numeric_limits<T>::quiet_NaN();
          });
          std::vector<double> found = values(quantize_by_basis(x, basis, codes, false).values);
          std::vector<double> defined = values(encode_by_basis(x.reshape({5000, 1}), basis, codes).values);
          CHECK(std::isnan(std::exchange(found[2], 0)));
          CHECK(std::isnan(std::exchange(defined[2], 0)));
          CHECK(found == defined);
        }
      }
    }
  }
}

TEST_CASE("fixed points: data on the levels of a basis give the basis back") {
  Random random(6);
  for (BasisCodes codes : {BasisCodes::binary, BasisCodes::signs}) {
    for (int bits = 1; bits <= 8; ++bits) {
      CAPTURE(bits);
      const Tensor basis = random_uniform({1, bits}, DType::f64, random, 0.3, 1.0);
      Tensor sorted = basis.clone();
      std::sort(sorted.data<double>(), sorted.data<double>() + bits);
      const Tensor start = codes == BasisCodes::signs ? sorted : basis;
      Tensor x = Tensor::zeros({4000}, DType::f64);
      for (double& element : x.span<double>()) {
        for (int k = 0; k < bits; ++k) {
          const bool set = random.below(2) == 1;
          element += (set ? 1.0 : (codes == BasisCodes::signs ? -1.0 : 0.0)) * start.data<double>()[k];
        }
      }
      const BasisActivation q = quantize_by_basis(x, start, codes, true);
      CHECK(squared_distance(q.values, x) < 1e-20);
      CHECK(squared_distance(q.refit, start) < 1e-20);
    }
  }
  // From a wrong start as well: levels 0, 0.3, 1.1, 1.4, which no even grid has.
  const Tensor x = Tensor::from<double>({0, 0.3, 1.1, 1.4, 1.4, 0.3, 0, 1.1}, {8});
  const Tensor v = calibrated_basis(observed(x), 2, BasisCodes::binary, DType::f64);
  CHECK(basis_error(x, v, BasisCodes::binary) < 1e-14);
  CHECK(std::min(values(v)[0], values(v)[1]) == doctest::Approx(0.3).epsilon(1e-7));
  CHECK(std::max(values(v)[0], values(v)[1]) == doctest::Approx(1.1).epsilon(1e-7));
}

TEST_CASE("QEM never increases the error on a batch, nor does the moving average") {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const Tensor x = rectified(900, DType::f64, seed);
    Random random(seed, 9);
    for (int bits = 1; bits <= 8; ++bits) {
      const Tensor start = random_uniform({1, bits}, DType::f64, random, 0.0, 1.5);
      Tensor v = start, average = start.clone();
      double error = basis_error(x, v, BasisCodes::binary), average_error = error;
      for (int k = 0; k < 6; ++k) {
        v = quantize_by_basis(x, v, BasisCodes::binary, true).refit;
        const double next = basis_error(x, v, BasisCodes::binary);
        CHECK(next <= error * (1 + 1e-12));
        error = next;
        move_basis(average, quantize_by_basis(x, average, BasisCodes::binary, true).refit);
        const double after = basis_error(x, average, BasisCodes::binary);
        CHECK(after <= average_error * (1 + 1e-12));
        average_error = after;
      }
      CHECK(error <= basis_error(x, start, BasisCodes::binary));
    }
  }
}

TEST_CASE("the moving average of one batch repeated converges to a basis that QEM leaves alone") {
  const Tensor x = rectified(20000, DType::f64, 3);
  const Tensor v = Tensor::from<double>({0.4, 0.9}, {1, 2});
  for (int k = 0; k < 400; ++k) move_basis(v, quantize_by_basis(x, v, BasisCodes::binary, true).refit);
  CHECK(squared_distance(quantize_by_basis(x, v, BasisCodes::binary, true).refit, v) < 1e-12);
  // One step of it, from there to twice the data: a tenth of the way to twice the basis.
  Tensor twice = x.clone();
  for (double& element : twice.span<double>()) element *= 2;
  const Tensor doubled = Tensor::from<double>({2 * values(v)[0], 2 * values(v)[1]}, {1, 2});
  const Tensor refit = quantize_by_basis(twice, doubled, BasisCodes::binary, true).refit;
  CHECK(squared_distance(refit, doubled) < 1e-11);
  const Tensor moved = v.clone();
  move_basis(moved, refit);
  CHECK(values(moved)[0] == doctest::Approx(1.1 * values(v)[0]).epsilon(1e-5));
  CHECK(values(moved)[1] == doctest::Approx(1.1 * values(v)[1]).epsilon(1e-5));
}

TEST_CASE("the calibrated basis is never worse than even levels, and 8 bits are nearly exact") {
  const Tensor x = rectified(30000, DType::f32, 8);
  const ActivationObserver observer = observed(x);
  double previous = std::numeric_limits<double>::infinity();
  for (int bits = 1; bits <= 8; ++bits) {
    const Tensor v = calibrated_basis(observer, bits, BasisCodes::binary, DType::f32);
    CHECK(v.shape() == Shape{1, bits});
    const double error = basis_error(x, v, BasisCodes::binary);
    const double clip = calibrated_clip(observer, bits, false, {.rule = CalibrationRule::mse});
    Tensor even = Tensor::empty({1, bits}, DType::f32);
    for (int k = 0; k < bits; ++k)
      even.data<float>()[k] = static_cast<float>(std::ldexp(clip, k) / ((1 << bits) - 1));
    CHECK(error <= basis_error(x, even, BasisCodes::binary) * (1 + 1e-5));
    CHECK(error < previous);
    previous = error;
  }
  CHECK(previous / 30000 < 1e-4);
}

TEST_CASE("dead and constant activations stay finite and keep the basis") {
  for (int bits = 1; bits <= 8; ++bits) {
    Tensor v = Tensor::empty({1, bits}, DType::f32);
    for (int k = 0; k < bits; ++k) v.data<float>()[k] = std::ldexp(0.1F, k);
    const BasisActivation zeros =
        quantize_by_basis(Tensor::zeros({50}, DType::f32), v, BasisCodes::binary, true);
    CHECK(zeros.refit.to_vector<float>() == v.to_vector<float>());
    CHECK(squared_distance(zeros.values, Tensor::zeros({50}, DType::f32)) == 0);
    const Tensor same = Tensor::full({50}, DType::f32, 0.1);
    const BasisActivation constant = quantize_by_basis(same, v, BasisCodes::binary, true);
    CHECK(basis_error(same, constant.refit, BasisCodes::binary) < 1e-12);
  }
  // Nothing but zeros in calibration: even levels up to 1.
  const Tensor start =
      calibrated_basis(observed(Tensor::zeros({9}, DType::f32)), 2, BasisCodes::binary, DType::f32);
  CHECK(values(start)[0] == doctest::Approx(1.0 / 3));
  CHECK(values(start)[1] == doctest::Approx(2.0 / 3));
}

TEST_CASE("a NaN is no level: it stays to be seen, and no basis is fitted to it") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const int bits : {2, 5}) {  // few levels and a table of many
    Tensor basis = Tensor::empty({1, bits}, DType::f64);
    for (int k = 0; k < bits; ++k) basis.data<double>()[k] = std::ldexp(1.0, k);
    const Tensor x = Tensor::from<double>({1, nan, 2}, {3, 1});
    for (const BasisCodes codes : {BasisCodes::binary, BasisCodes::signs}) {
      const std::vector<double> rounded = values(quantize_by_basis(x, basis, codes, false).values);
      CHECK(!std::isnan(rounded[0]));
      CHECK(std::isnan(rounded[1]));
      CHECK(!std::isnan(rounded[2]));
      CHECK_THROWS_WITH_AS(quantize_by_basis(x, basis, codes, true), doctest::Contains("not finite"), Error);
    }
    CHECK(std::isnan(values(encode_by_basis(x, basis).values)[1]));
  }
}

TEST_CASE("gradients pass between the outermost levels") {
  const Tensor basis = Tensor::from<double>({0.5, 1}, {1, 2});
  const Variable x = Variable::leaf(Tensor::from<double>({-1, 0.1, 0.9, 1.49, 1.51, 7}, {6}));
  const Tensor u = Tensor::from<double>({1, 2, 3, 4, 5, 6}, {6});
  const auto gradient = [&](BasisCodes codes) {
    const Variable y = basis_quantize(x, basis, codes);
    return values(grad(std::vector{y}, std::vector{x}, {.grad_outputs = {Variable(u)}})[0].value());
  };
  CHECK(gradient(BasisCodes::binary) == std::vector<double>{0, 2, 3, 4, 0, 0});
  CHECK(gradient(BasisCodes::signs) == std::vector<double>{1, 2, 3, 4, 0, 0});
}

TEST_CASE("the same bits for any number of threads; bad input is an error") {
  const Tensor x = rectified(300000, DType::f32, 2);
  for (int bits : {1, 3, 8}) {
    const Tensor v = calibrated_basis(observed(x), bits, BasisCodes::binary, DType::f32);
    std::vector<std::vector<float>> results;
    for (int threads : {1, 2, 5}) {
      set_num_threads(threads);
      const BasisActivation q = quantize_by_basis(x, v, BasisCodes::binary, true);
      results.push_back(q.values.to_vector<float>());
      for (float element : q.refit.to_vector<float>()) results.back().push_back(element);
    }
    set_num_threads(0);
    CHECK(results[0] == results[1]);
    CHECK(results[0] == results[2]);
  }
  const Tensor basis = Tensor::full({1, 2}, DType::f32, 1);
  const Tensor bad = Tensor::full({4}, DType::f32, std::numeric_limits<double>::infinity());
  CHECK_THROWS_AS(quantize_by_basis(bad, basis, BasisCodes::binary, true), Error);
  CHECK_THROWS_AS(quantize_by_basis(x, {}, BasisCodes::binary, true), Error);
  CHECK_THROWS_AS(quantize_by_basis(x, Tensor::full({2, 2}, DType::f32, 1), BasisCodes::binary, true), Error);
  CHECK_THROWS_AS(quantize_by_basis(x, Tensor::full({1, 9}, DType::f32, 1), BasisCodes::binary, true), Error);
  CHECK_THROWS_AS(quantize_by_basis(x, basis.to(DType::f64), BasisCodes::binary, true), Error);
  CHECK_THROWS_AS(calibrated_basis({}, 2, BasisCodes::binary, DType::f32), Error);
  CHECK_THROWS_AS(calibrated_basis(observed(x), 9, BasisCodes::binary, DType::f32), Error);
}
