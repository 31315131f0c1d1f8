#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <limits>

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

double basis_error(const Tensor& w, const Tensor& basis) {
  return squared_distance(encode_by_basis(w, basis).values, w);
}

}  // namespace

TEST_CASE("encoding by a basis: by hand") {
  // v = (1, 2): levels −3, −1, 1, 3 with thresholds −2, 0, 2; on a threshold the lower level.
  const Tensor basis = Tensor::from<double>({1, 2}, {1, 2});
  const Tensor w = Tensor::from<double>({-9, -2, -1.9, 0, 0.1, 2, 2.1}, {7, 1});
  const BasisEncoding e = encode_by_basis(w, basis);
  CHECK(values(e.values) == std::vector<double>{-3, -3, -1, -1, 1, 1, 3});
  // Bit 0 is the sign of 1, bit 1 that of 2.
  CHECK(values(e.codes) == std::vector<double>{0, 0, 1, 1, 2, 2, 3});
  // One basis a channel.
  const Tensor two = Tensor::from<double>({1, 2, 10, 20}, {2, 2});
  CHECK(values(encode_by_basis(Tensor::from<double>({3, 3, -1, -40}, {2, 2}), two).values) ==
        std::vector<double>{3, 10, -1, -30});
}

TEST_CASE("one refit is the least-squares solution: by hand") {
  // The codes (−,−), (+,−), (−,+), (+,+): BᵀB = 4 I, and v = Bᵀw/4.
  const Tensor w = Tensor::from<double>({-3.4, -0.8, 1.2, 2.8}, {4, 1});
  const Tensor v = refit_basis(w, Tensor::from<double>({1, 2}, {1, 2}));
  CHECK(values(v)[0] == doctest::Approx((3.4 - 0.8 - 1.2 + 2.8) / 4).epsilon(1e-8));
  CHECK(values(v)[1] == doctest::Approx((3.4 + 0.8 + 1.2 + 2.8) / 4).epsilon(1e-8));
  // One bit: the mean magnitude.
  CHECK(values(choose_basis(w, 1, Granularity::layer))[0] == doctest::Approx(8.2 / 4).epsilon(1e-8));
}

TEST_CASE("a basis behind the weights is found again") {
  // v = (0.3, 1.1): levels ±0.8 and ±1.4, which no even grid of 2 bits has.
  const Tensor w = Tensor::from<double>({-1.4, -0.8, 0.8, 1.4, 1.4, -0.8, 0.8, -1.4}, {8, 1});
  const Tensor v = choose_basis(w, 2, Granularity::layer);
  CHECK(values(v)[0] == doctest::Approx(0.3).epsilon(1e-7));
  CHECK(values(v)[1] == doctest::Approx(1.1).epsilon(1e-7));
  CHECK(basis_error(w, v) < 1e-14);
  CHECK(perturbation(w, {.bits = 2, .scheme = WeightScheme::mid_rise}) > 0.1);
}

TEST_CASE("QEM never increases the error, from any basis") {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    Random random(seed);
    const Tensor w = random_normal({60, 4}, DType::f64, random);
    for (int bits = 1; bits <= 8; ++bits) {
      for (std::int64_t groups : {1, 4}) {
        Tensor v = random_uniform({groups, bits}, DType::f64, random, 0.0, 1.5);
        double error = basis_error(w, v);
        for (int k = 0; k < 5; ++k) {
          v = refit_basis(w, v);
          const double next = basis_error(w, v);
          CHECK(next <= error * (1 + 1e-12));
          error = next;
        }
      }
    }
  }
}

TEST_CASE("weights that are no numbers leave the basis as it was") {
  const Tensor w = Tensor::from<double>({1, std::numeric_limits<double>::quiet_NaN(), 2}, {3, 1});
  const Tensor basis = Tensor::from<double>({0.5, 1}, {1, 2});
  CHECK(values(refit_basis(w, basis)) == values(basis));
}

TEST_CASE("a refit that rounding makes worse is not taken") {
  // Weights a few roundings away from the levels: there the least-squares basis, rounded to f32, is often
  // worse than the one it comes from. So few errors are added in the same order here as in refit_basis, and
  // the comparison is exact.
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    Random random(seed);
    Tensor v = random_uniform({1, 3}, DType::f32, random, 0.1, 1.0);
    std::sort(v.data<float>(), v.data<float>() + 3);
    Tensor w = encode_by_basis(random_normal({40, 1}, DType::f32, random), v).values;
    for (float& element : w.span<float>()) element *= 1 + 1e-7F * static_cast<float>(random.normal());
    double error = basis_error(w, v);
    for (int k = 0; k < 4; ++k) {
      v = refit_basis(w, v);
      const double next = basis_error(w, v);
      CHECK(next <= error);
      error = next;
    }
  }
}

TEST_CASE("the fitted basis: never worse than even levels, at most 2^b levels, idempotent") {
  for (DType dtype : {DType::f32, DType::f64}) {
    Random random(3);
    Tensor w = random_normal({3, 3, 5, 4}, DType::f64, random);
    for (std::int64_t i = 0; i < w.numel(); ++i)
      w.data<double>()[i] *= std::pow(4.0, static_cast<double>(i % 4)) * 0.01;
    w = w.to(dtype);
    for (Granularity granularity : {Granularity::layer, Granularity::channel}) {
      for (int bits = 1; bits <= 8; ++bits) {
        CAPTURE(bits);
        const WeightSpec spec{bits, WeightScheme::lq_nets, granularity, ClipRule::mse};
        const WeightSpec even{bits, WeightScheme::mid_rise, granularity, ClipRule::mse};
        CHECK(perturbation(w, spec) <= perturbation(w, even) * (1 + (dtype == DType::f32 ? 1e-5 : 1e-12)));
        const QuantizedTensor q = quantize_weights(w, spec);
        CHECK(distinct_levels(q.dequantized, granularity) <= (1 << bits));
        const QuantizedTensor again = quantize_weights(q.dequantized, spec, q.grid);
        CHECK(values(again.dequantized) == values(q.dequantized));
        CHECK(values(again.codes) == values(q.codes));
        // The codes say which signs the basis has.
        const std::vector<double> basis = values(q.grid.basis), codes = values(q.codes);
        const std::int64_t groups = q.grid.basis.dim(0);
        for (std::int64_t i = 0; i < w.numel(); ++i) {
          double level = 0;
          for (int k = 0; k < bits; ++k) {
            const double v = basis[static_cast<std::size_t>(i % groups * bits + k)];
            level += (static_cast<int>(codes[static_cast<std::size_t>(i)]) >> k & 1) != 0 ? v : -v;
          }
          const double stored = values(q.dequantized)[static_cast<std::size_t>(i)];
          CHECK(std::abs(stored - level) <= (dtype == DType::f32 ? 1e-6 : 1e-14));
        }
      }
    }
  }
}

TEST_CASE("normal weights: 2 bits reach the Lloyd–Max quantizer, which has the form of LQ-Nets' levels") {
  // Max, Quantizing for Minimum Distortion (1960): 0.3634 with 2 levels, 0.1175 with 4; even levels 0.1188.
  Random random(5);
  const Tensor w = random_normal({200000, 1}, DType::f32, random);
  CHECK(perturbation(w, {.bits = 1, .scheme = WeightScheme::lq_nets}) / 200000 ==
        doctest::Approx(0.3634).epsilon(0.01));
  const double two_bits = perturbation(w, {.bits = 2, .scheme = WeightScheme::lq_nets});
  CHECK(two_bits / 200000 == doctest::Approx(0.1175).epsilon(0.01));
  CHECK(two_bits < perturbation(w, {.bits = 2, .scheme = WeightScheme::mid_rise}));
}

TEST_CASE("few weights, equal weights and zeros leave the least-squares problem open and stay finite") {
  for (const Tensor& w : {Tensor::full({3, 2}, DType::f64, 0.7), Tensor::zeros({3, 2}, DType::f32),
                          Tensor::from<double>({-2}, {1, 1})}) {
    for (Granularity granularity : {Granularity::layer, Granularity::channel}) {
      for (int bits = 1; bits <= 8; ++bits) {
        const Tensor q = quantize_weights(w, {bits, WeightScheme::lq_nets, granularity}).dequantized;
        CHECK(squared_distance(q, w) < 1e-12);
      }
    }
  }
}

TEST_CASE("gradients pass, results do not depend on threads, and bad bases are errors") {
  Random random(9);
  const Tensor w = random_normal({300, 30}, DType::f32, random);
  const WeightSpec spec{.bits = 3, .scheme = WeightScheme::lq_nets, .granularity = Granularity::channel};
  const Variable x = Variable::leaf(w);
  const Variable y = fake_quantize(x, spec, choose_grid(w, spec));
  const Tensor u = random_normal(w.shape(), DType::f32, random);
  const Variable g = grad(std::vector{y}, std::vector{x}, {.grad_outputs = {Variable(u)}})[0];
  CHECK(g.value().to_vector<float>() == u.to_vector<float>());
  for (Granularity granularity : {Granularity::layer, Granularity::channel}) {
    set_num_threads(1);
    const Tensor one = choose_basis(w, 4, granularity);
    set_num_threads(2);
    const Tensor two = choose_basis(w, 4, granularity);
    set_num_threads(0);
    CHECK(one.to_vector<float>() == two.to_vector<float>());
  }
  CHECK_THROWS_AS(encode_by_basis(w, {}), Error);
  CHECK_THROWS_AS(encode_by_basis(w, Tensor::full({7, 2}, DType::f32, 1)), Error);
  CHECK_THROWS_AS(encode_by_basis(w, Tensor::full({1, 9}, DType::f32, 1)), Error);
  CHECK_THROWS_AS(choose_basis(w, 32, Granularity::layer), Error);
}
