// The fused batch normalisation against the composition it falls back to.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <limits>

#include "autograd/grad.hpp"
#include "autograd/jvp.hpp"
#include "autograd/ops.hpp"
#include "core/kernels/channel.hpp"
#include "core/kernels/norm.hpp"
#include "core/random.hpp"
#include "tests/support/target_guard.hpp"
#include "tests/support/threads.hpp"

using namespace goshawk;

namespace {

struct Derivatives {
  Tensor y, tangent;
  std::vector<Tensor> gradient, reverse, forward;
};

// Value, tangent, gradient and a Hessian-vector product by both roads of ⟨u, f(x, gamma, beta, residual)²⟩,
// where the inputs with a bit in `moving` move.
template <class F>
Derivatives derivatives(const Shape& shape, unsigned moving, const F& f, DType dtype = DType::f64) {
  Random random(5);
  const Shape channels{shape.back()};
  std::vector<Variable> inputs, tangents;
  for (const Shape& s : {shape, channels, channels, shape}) {
    inputs.push_back(Variable::leaf(random_normal(s, DType::f64, random).to(dtype)));
  }
  const Variable u = random_normal(shape, DType::f64, random).to(dtype);
  std::vector<Tensor> v;
  for (std::size_t k = 0; k < 4; ++k) {
    const Tensor direction = random_normal(inputs[k].shape(), DType::f64, random).to(dtype);
    v.push_back((moving >> k & 1) != 0 ? direction : Tensor());
    tangents.emplace_back(v.back());
  }
  const Variable y = f(inputs);
  const Variable loss = dot(u, y * y);
  Derivatives d{y.value(),
                jvp(y, inputs, tangents).value(),
                {},
                hvp(loss, inputs, v),
                hvp(loss, inputs, v, HvpRoad::forward_over_reverse)};
  for (const Variable& g : grad(loss, inputs, {.allow_unused = true})) d.gradient.push_back(g.value());
  return d;
}

void check_close(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  double difference = 0, largest = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    difference = std::max(difference, std::abs(a.data<double>()[i] - b.data<double>()[i]));
    largest = std::max(largest, std::abs(b.data<double>()[i]));
  }
  CHECK(difference <= 1e-11 * (1 + largest));
}

void check_close(const Derivatives& a, const Derivatives& b) {
  check_close(a.y, b.y);
  check_close(a.tangent, b.tangent);
  for (std::size_t k = 0; k < 4; ++k) {
    check_close(a.gradient[k], b.gradient[k]);
    check_close(a.reverse[k], b.reverse[k]);
    check_close(a.forward[k], b.forward[k]);
    check_close(a.forward[k], a.reverse[k]);
  }
}

// Everything in one row, in f64.
std::vector<std::pair<const char*, std::vector<double>>> parts(const Derivatives& d) {
  std::vector<std::pair<const char*, std::vector<double>>> all;
  const auto add = [&](const char* name, const Tensor& t) {
    all.emplace_back(name, t.to(DType::f64).to_vector<double>());
  };
  add("y", d.y);
  add("tangent", d.tangent);
  for (const Tensor& t : d.gradient) add("gradient", t);
  for (const Tensor& t : d.reverse) add("reverse over reverse", t);
  for (const Tensor& t : d.forward) add("forward over reverse", t);
  return all;
}

// Few elements, and several chunks of rows with more channels than the longest vector has lanes, and some
// left.
const Shape kShapes[] = {{6, 3, 3, 5}, {40, 8, 8, 19}};
constexpr unsigned kAllMove = 15;

}  // namespace

TEST_CASE("all derivatives of the fused op equal those of its composition") {
  on_every_target([] {
    for (const Shape& shape : kShapes) {
      for (const bool relu : {false, true}) {
        for (const bool residual : {false, true}) {
          // Everything moves, or one input alone, or gamma and beta.
          for (const unsigned moving : {kAllMove, 1U, 2U, 4U, 6U, 8U}) {
            CAPTURE(relu);
            CAPTURE(residual);
            CAPTURE(moving);
            const auto epilogue = [&](const std::vector<Variable>& v) {
              return Epilogue{.relu = relu, .residual = residual ? v[3] : Variable()};
            };
            // The residual takes part, times zero, where the op does not use it.
            const Derivatives fused = derivatives(shape, moving, [&](const std::vector<Variable>& v) {
              return batch_norm_train(v[0], v[1], v[2], 1e-5, epilogue(v)).y + scale(v[3], 0);
            });
            const Derivatives composed = derivatives(shape, moving, [&](const std::vector<Variable>& v) {
              return batch_norm_train_composed(v[0], v[1], v[2], 1e-5, epilogue(v)) + scale(v[3], 0);
            });
            check_close(fused, composed);
          }
        }
      }
    }
  });
}

TEST_CASE("all derivatives of the fused affine map equal those of elementary ops") {
  on_every_target([] {
    for (const Shape& shape : kShapes) {
      for (const unsigned moving : {kAllMove, 1U, 2U, 4U, 8U}) {
        CAPTURE(moving);
        const Derivatives fused = derivatives(shape, moving, [&](const std::vector<Variable>& v) {
          return channel_affine(v[0], v[1], v[2], {.relu = true, .residual = v[3]});
        });
        const Derivatives elementary = derivatives(
            shape, moving, [&](const std::vector<Variable>& v) { return relu(v[0] * v[1] + v[2] + v[3]); });
        check_close(fused, elementary);
      }
    }
  });
}

TEST_CASE(
    "in f32 at a network's widths all derivatives are those of f64, and the same for any number of threads") {
  for (const Shape& shape : {Shape{16, 32, 32, 16}, Shape{16, 16, 16, 32}, Shape{16, 8, 8, 64}}) {
    for (const bool batch : {false, true}) {
      CAPTURE(shape.back());
      CAPTURE(batch);
      const auto all = [&](DType dtype, int threads, bool relu) {
        const Threads limit(threads);
        const auto f = [&](const std::vector<Variable>& v) {
          const Epilogue epilogue{.relu = relu, .residual = v[3]};
          return batch ? batch_norm_train(v[0], v[1], v[2], 1e-5, epilogue).y
                       : channel_affine(v[0], v[1], v[2], epilogue);
        };
        return parts(derivatives(shape, kAllMove, f, dtype));
      };
      // Without a ReLU: what is within rounding of zero may fall on either side.
      const auto exact = all(DType::f64, 2, false), rounded = all(DType::f32, 2, false);
      const auto one = all(DType::f32, 1, true), three = all(DType::f32, 3, true);
      REQUIRE(rounded.size() == exact.size());
      for (std::size_t k = 0; k < exact.size(); ++k) {
        INFO(exact[k].first, " ", k);
        const auto &a = rounded[k].second, &b = exact[k].second;
        double difference = 0, size = 0;
        for (std::size_t i = 0; i < b.size(); ++i) {
          difference += (a[i] - b[i]) * (a[i] - b[i]);
          size += b[i] * b[i];
        }
        CHECK(std::sqrt(difference / size) < 2e-6);
        const bool same = one[k].second == three[k].second;
        CHECK(same);
      }
    }
  }
}

// What is exactly zero does not pass, and what is not a number does.
TEST_CASE("a ReLU's mask formed from the input is the one read from the output, to the bit") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const Shape& shape : {Shape{6, 8, 8, 19}, Shape{6, 16, 16, 16}, Shape{6, 8, 8, 32}}) {
      CAPTURE(shape.back());
      on_every_target([&] {
        Random random(7);
        const auto normal = [&](const Shape& s) { return random_normal(s, DType::f64, random).to(dtype); };
        const Shape channels{shape.back()};
        const Tensor x = normal(shape), gy = normal(shape), gamma = normal(channels), mean = normal(channels),
                     inv_std = random_uniform(channels, DType::f64, random, 0.5, 2).to(dtype);
        const kernels::NormMap map{normal(channels), normal(channels)};
        dispatch_floating(dtype, "test", [&]<class T>() {
          // Every other element is at the edge, where the last bit of a product decides.
          const std::int64_t n = shape.back();
          for (std::int64_t i = 0; i < x.numel(); i += 2) {
            x.data<T>()[i] = -map.t.data<T>()[i % n] / map.s.data<T>()[i % n];
          }
          x.data<T>()[0] = std::numeric_limits<T>::quiet_NaN();
          x.data<T>()[1] = map.t.data<T>()[1] = 0;
        });
        const Tensor y = kernels::channel_affine(x, map.s, map.t, {}, true);
        const std::vector<kernels::NormGradients> along = {{normal(shape), normal(channels), {}, {}},
                                                           {normal(shape), {}, normal(channels), {}}};
        const std::vector<kernels::NormMoves> moves = {{normal(shape), normal(shape), normal(channels)},
                                                       {{}, normal(shape), {}}};
        const auto all = [&](const kernels::NormMap& mask_map) {
          const kernels::NormGradients first =
              kernels::batch_norm_backward(gy, x, gamma, mean, inv_std, y, {}, mask_map);
          const kernels::NormSecondGradients second =
              kernels::batch_norm_double_backward(along[0], first, gy, x, gamma, mean, inv_std, y, mask_map);
          std::vector<Tensor> results =
              kernels::batch_norm_tangents(along, x, gamma, mean, inv_std, y, mask_map);
          for (const kernels::NormGradients& g : kernels::batch_norm_backward_tangents(
                   moves, first, gy, x, gamma, mean, inv_std, y, {}, mask_map)) {
            results.insert(results.end(), {g.x, g.scale, g.shift});
          }
          results.insert(results.end(),
                         {first.x, first.scale, first.shift, second.gy, second.x, second.scale});
          return results;
        };
        const std::vector<Tensor> formed = all(map), read = all({});
        REQUIRE(formed.size() == read.size());
        for (std::size_t k = 0; k < read.size(); ++k) {
          CAPTURE(k);
          const bool same =
              std::memcmp(formed[k].raw(), read[k].raw(), static_cast<std::size_t>(read[k].bytes())) == 0;
          CHECK(same);
        }
      });
    }
  }
}

TEST_CASE("eval mode without recording equals eval mode in a graph") {
  Random random(6);
  const Tensor x = random_normal({4, 2, 2, 5}, DType::f64, random),
               r = random_normal({4, 2, 2, 5}, DType::f64, random);
  const Variable gamma = Variable::leaf(random_normal({5}, DType::f64, random));
  const Variable beta = Variable::leaf(random_normal({5}, DType::f64, random));
  const Tensor mean = random_normal({5}, DType::f64, random),
               var = random_uniform({5}, DType::f64, random, 0.5, 2);
  const Epilogue epilogue{.relu = true, .residual = r};
  const Tensor recorded = batch_norm_eval(x, gamma, beta, mean, var, 1e-5, epilogue).value();
  const NoGrad no_grad;
  check_close(batch_norm_eval(x, gamma, beta, mean, var, 1e-5, epilogue).value(), recorded);
}

TEST_CASE("numbers for some of the channels only are refused") {
  const Variable x = Tensor::zeros({2, 3, 3, 16}, DType::f32), gamma = Tensor::full({16}, DType::f32, 1),
                 one = Tensor::zeros({1}, DType::f32);
  const Tensor zeros = Tensor::zeros({16}, DType::f32);
  CHECK_THROWS_WITH_AS(batch_norm_train(x, gamma, one, 1e-5),
                       doctest::Contains("one number of each per channel"), Error);
  CHECK_THROWS_AS(batch_norm_eval(x, gamma, one, zeros, zeros, 1e-5), Error);
  CHECK_THROWS_AS(batch_norm_eval(x, gamma, Variable(zeros), one.value(), zeros, 1e-5), Error);
}
