// Every separable sensitivity against what it says it is, on a small network in f64.
#include <cmath>
#include <doctest/doctest.h>

#include "autograd/curvature/block_vector.hpp"
#include "quant/sensitivities/curvature_costs.hpp"
#include "quant/sensitivities/fisher.hpp"
#include "quant/sensitivities/naive.hpp"
#include "quant/sensitivities/quadratic.hpp"
#include "quant/sensitivities/registry.hpp"
#include "tests/quant/sensitivities/small_model.hpp"

using namespace goshawk;
using namespace goshawk::testing;

namespace {

const std::vector<std::int64_t> kCut{3, 2, 4};

struct Fixture {
  SmallModel model;
  SensitivityData data = small_data(model, kCut);
  WeightCandidates candidates = weight_candidates(data, {4, 2, 32}, {.granularity = Granularity::channel});
};

double dot(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) sum += a.data<double>()[i] * b.data<double>()[i];
  return sum;
}

Tensor quantized(const Fixture& f, std::size_t l, int bits) {
  return quantize_weights(f.data.layers()[l].second->weight.value(),
                          {.bits = bits, .granularity = Granularity::channel})
      .dequantized;
}

void add_in_place(const Tensor& to, const Tensor& change, double factor) {
  for (std::int64_t i = 0; i < to.numel(); ++i) to.data<double>()[i] += factor * change.data<double>()[i];
}

}  // namespace

TEST_CASE("candidates: what quantization does to the weights, width by width") {
  const Fixture f;
  CHECK(f.candidates.bits == std::vector<int>{2, 4, 32});
  REQUIRE(f.candidates.layers.size() == 3);
  CHECK(f.candidates.layers[1].name == "conv2");
  CHECK(f.candidates.layers[1].parameters == 3 * 3 * 3 * 4);
  CHECK(f.candidates.layers[1].macs == 3 * 3 * 3 * 4 * 9);
  CHECK(f.candidates.layers[1].input_elements == 36 * 3);
  for (std::size_t l = 0; l < 3; ++l) {
    const WeightCandidates::Layer& layer = f.candidates.layers[l];
    const Tensor& w = f.data.layers()[l].second->weight.value();
    CHECK(layer.weight_norm == doctest::Approx(dot(w, w)));
    for (std::size_t b = 0; b < 2; ++b) {
      Tensor sum = w.clone();
      add_in_place(sum, layer.changes[b], 1);
      CHECK(squared_distance(sum, quantized(f, l, f.candidates.bits[b])) < 1e-28);
      CHECK(layer.norms[b] == doctest::Approx(perturbation(
                                  w, {.bits = f.candidates.bits[b], .granularity = Granularity::channel})));
    }
    CHECK(layer.norms[0] > layer.norms[1]);
    CHECK(layer.norms[2] == 0);
  }
  // DoReFa's change is that of the best scale, as its perturbation is.
  const WeightSpec dorefa{.bits = 3, .scheme = WeightScheme::dorefa};
  const WeightCandidates d = weight_candidates(f.data, {3}, dorefa);
  for (std::size_t l = 0; l < 3; ++l) {
    CHECK(d.layers[l].norms[0] ==
          doctest::Approx(perturbation(f.data.layers()[l].second->weight.value(), dorefa)));
  }
}

TEST_CASE("candidates: a quantizer of one's own takes the place of a spec") {
  const Fixture f;
  std::vector<int> asked;
  const WeightCandidates own = weight_candidates_from(f.data, {4, 2, 32}, [&](const Tensor& w, int bits) {
    asked.push_back(bits);
    return quantize_weights(w, {.bits = bits, .granularity = Granularity::channel}).dequantized;
  });
  CHECK(asked == std::vector<int>{2, 4, 2, 4, 2, 4});
  CHECK(own.bits == f.candidates.bits);
  REQUIRE(own.layers.size() == f.candidates.layers.size());
  for (std::size_t l = 0; l < own.layers.size(); ++l) {
    CHECK(own.layers[l].name == f.candidates.layers[l].name);
    CHECK(own.layers[l].macs == f.candidates.layers[l].macs);
    CHECK(own.layers[l].norms == f.candidates.layers[l].norms);
    for (std::size_t b = 0; b < own.bits.size(); ++b) {
      CHECK(own.layers[l].changes[b].to_vector<double>() ==
            f.candidates.layers[l].changes[b].to_vector<double>());
    }
  }
  CHECK_THROWS_WITH_AS(
      weight_candidates_from(f.data, {2}, [](const Tensor& w, int) { return w.to(DType::f32); }),
      doctest::Contains("[weight_candidates_from]"), Error);
}

TEST_CASE("BOPs are MACs times both widths, and the first layer's input is a picture of 8 bits") {
  const Fixture f;
  const auto bops = [&](int activation_bits) {
    MeasuredCosts measured;
    measured.costs = delta_norm_costs(f.candidates);
    const Costs costs = to_costs(f.candidates, measured, {.activation_bits = activation_bits});
    std::vector<double> found;
    for (const LayerCosts& layer : costs.layers) {
      for (const CostChoice& choice : layer.choices) {
        found.push_back(*choice.bops / static_cast<double>(layer.macs));
      }
    }
    return found;
  };
  CHECK(bops(4) == std::vector<double>{2 * 8, 4 * 8, 32 * 8, 2 * 4, 4 * 4, 32 * 4, 2 * 4, 4 * 4, 32 * 4});
  CHECK(bops(0) == std::vector<double>{2 * 8, 4 * 8, 32 * 32, 2 * 2, 4 * 4, 32 * 32, 2 * 2, 4 * 4, 32 * 32});
  CHECK(bops(32)[0] == 2 * 32);
}

TEST_CASE("delta-norm and noise-to-signal follow from the norms") {
  const Fixture f;
  const CostTable norm = delta_norm_costs(f.candidates), snr = noise_to_signal_costs(f.candidates);
  for (std::size_t l = 0; l < 3; ++l) {
    for (std::size_t b = 0; b < 3; ++b) {
      CHECK(norm[l][b] == f.candidates.layers[l].norms[b]);
      CHECK(snr[l][b] == f.candidates.layers[l].norms[b] / f.candidates.layers[l].weight_norm);
    }
  }
}

TEST_CASE("loss-change is the loss of a model whose weights were overwritten, less that of the model") {
  Fixture f;
  const double loss = f.data.loss();
  const CostTable costs = loss_change_costs(f.data, f.candidates);
  CHECK(f.data.loss() == loss);  // nothing is left behind
  const auto mean_loss = [&] {
    double sum = 0;
    for (std::size_t b = 0; b < kCut.size(); ++b) {
      sum += softmax_cross_entropy(f.model(f.data.images(b)), f.data.labels(b), Reduction::sum).item();
    }
    return sum / 9;
  };
  CHECK(loss == doctest::Approx(mean_loss()).epsilon(1e-13));
  std::vector<int> all;
  for (std::size_t l = 0; l < 3; ++l) {
    const Tensor& w = f.data.layers()[l].second->weight.value();
    for (std::size_t b = 0; b < 3; ++b) {
      const Tensor original = w.clone();
      add_in_place(w, f.candidates.layers[l].changes[b], 1);
      CHECK(costs[l][b] == doctest::Approx(mean_loss() - loss).epsilon(1e-12));
      std::copy_n(original.raw(), original.bytes(), w.raw());
      std::vector<int> only(3, 2);
      only[l] = static_cast<int>(b);
      CHECK(assignment_loss_change(f.data, f.candidates, only, loss) == costs[l][b]);
    }
    CHECK(costs[l][2] == 0);
    CHECK(std::abs(costs[l][0]) > 1e-3);
    all.push_back(static_cast<int>(l % 2));
  }
  const double joined = assignment_loss_change(f.data, f.candidates, all, loss);
  for (std::size_t l = 0; l < 3; ++l) {
    add_in_place(f.data.layers()[l].second->weight.value(),
                 f.candidates.layers[l].changes[static_cast<std::size_t>(all[l])], 1);
  }
  CHECK(joined == doctest::Approx(mean_loss() - loss).epsilon(1e-12));
}

TEST_CASE("HAWQ's cost is |λ| ‖Δw‖² and HAWQ-V2's the mean trace times ‖Δw‖², on both roads") {
  const Fixture f;
  const HessianOperator hessian = f.data.hessian();
  const EigenvalueCosts first = eigenvalue_costs(f.data, f.candidates, Road::exact);
  const EigenvalueCosts second = eigenvalue_costs(f.data, f.candidates, Road::double_backward);
  const TraceCosts exact = trace_costs(f.data, f.candidates);
  CHECK(exact.road.road == Road::exact);
  const TraceCosts probed = trace_costs(
      f.data, f.candidates,
      {.road = Road::double_backward, .hutchinson = {.relative_error = 0.01, .max_samples = 400}});
  for (std::size_t l = 0; l < 3; ++l) {
    const WeightCandidates::Layer& layer = f.candidates.layers[l];
    const HessianOperator block = hessian.block(l);
    // The dense trace, column by column.
    double trace = 0;
    for (std::int64_t i = 0; i < layer.parameters; ++i) {
      const Tensor e = Tensor::zeros(block.shapes()[0], DType::f64);
      e.data<double>()[i] = 1;
      trace += block.apply({e})[0].data<double>()[i];
    }
    CHECK(first.lambda[l] == doctest::Approx(second.lambda[l]).epsilon(5e-3));
    CHECK(first.residual[l] < 0.25);
    CHECK(first.lambda[l] <= trace * (1 + 1e-9));
    CHECK(exact.trace[l].value == doctest::Approx(trace).epsilon(1e-9));
    CHECK(std::abs(probed.trace[l].value - trace) < 4 * probed.trace[l].standard_error);
    const auto n = static_cast<double>(layer.parameters);
    CHECK(exact.score[l] == doctest::Approx(trace / n));
    CHECK(first.score[l] == first.lambda[l] / n);
    for (std::size_t b = 0; b < 3; ++b) {
      CHECK(exact.costs[l][b] == doctest::Approx(trace / n * layer.norms[b]));
      CHECK(first.costs[l][b] == doctest::Approx(first.lambda[l] * layer.norms[b]));
    }
  }
  // What it would have cost to reach 1 %: no less than what was spent.
  CHECK(probed.projected_seconds >= 0.5 * probed.seconds);
}

TEST_CASE("Fisher is the mean square of per-picture gradients, each materialised, along the change") {
  const Fixture f;
  const FisherCosts fisher = fisher_costs(f.data, f.candidates);
  CostTable expected = make_table(f.candidates, [](std::size_t, std::size_t) { return 0.0; });
  CostTable batch_mean = expected;
  for (std::size_t b = 0; b < kCut.size(); ++b) {
    const Variable losses =
        softmax_cross_entropy(f.data.model()(f.data.images(b)), f.data.labels(b), Reduction::none);
    for (std::int64_t n = 0; n < kCut[b]; ++n) {
      const Tensor seed = Tensor::zeros(losses.shape(), DType::f64);
      seed.data<double>()[n] = 1;
      const auto g = grad(losses, f.data.weights(), {.grad_outputs = {seed}});
      for (std::size_t l = 0; l < 3; ++l) {
        for (std::size_t w = 0; w < 3; ++w) {
          const double slope = dot(g[l].value(), f.candidates.layers[l].changes[w]);
          expected[l][w] += slope * slope / 18;
          batch_mean[l][w] += slope / 9;
        }
      }
    }
  }
  for (std::size_t l = 0; l < 3; ++l) {
    for (std::size_t w = 0; w < 2; ++w) {
      CHECK(fisher.costs[l][w] == doctest::Approx(expected[l][w]).epsilon(1e-11));
      CHECK(fisher.error[l][w] > 0);
      // Squaring the batch's mean gradient is the wrong quantity, and clearly another one.
      CHECK(fisher.costs[l][w] > 1.1 * batch_mean[l][w] * batch_mean[l][w] / 2);
    }
    CHECK(fisher.costs[l][2] == 0);
  }
}

TEST_CASE("the exact quadratic cost is ½ ΔwᵀHΔw by double backward, and the first order ⟨gradient, Δw⟩") {
  const Fixture f;
  const HessianOperator hessian = f.data.hessian();
  for (const JacobianWay way : {JacobianWay::forward, JacobianWay::backward}) {
    const LogitChanges changes = candidate_changes(f.data, f.candidates, {.way = way});
    const QuadraticCosts costs = quadratic_costs(f.candidates, changes);
    for (std::size_t l = 0; l < 3; ++l) {
      double slope_of[3] = {};
      for (std::size_t b = 0; b < kCut.size(); ++b) {
        const Variable loss =
            softmax_cross_entropy(f.data.model()(f.data.images(b)), f.data.labels(b), Reduction::sum);
        const auto g = grad(loss, std::vector{f.data.layers()[l].second->weight});
        for (std::size_t w = 0; w < 3; ++w) {
          slope_of[w] += dot(g[0].value(), f.candidates.layers[l].changes[w]) / 9;
        }
      }
      for (std::size_t w = 0; w < 3; ++w) {
        const Tensor& dw = f.candidates.layers[l].changes[w];
        const double form = dot(dw, hessian.block(l).apply({dw})[0]) / 2;
        CHECK(costs.second_order[l][w] == doctest::Approx(form).epsilon(1e-9));
        CHECK(costs.first_order[l][w] == doctest::Approx(slope_of[w]).epsilon(1e-9));
        CHECK(costs.total()[l][w] == costs.first_order[l][w] + costs.second_order[l][w]);
      }
      CHECK(costs.second_order[l][0] > 1e-4);
      CHECK(costs.second_order_error[l][0] > 0);
    }
  }
}

TEST_CASE("sensitivities do not depend on how the pictures are cut, and need a model in eval mode") {
  const Fixture f;
  SmallModel again;
  const SensitivityData whole = small_data(again, {9});
  const WeightCandidates candidates = weight_candidates(whole, f.candidates.bits, f.candidates.spec);
  const CostTable a = fisher_costs(f.data, f.candidates).costs, b = fisher_costs(whole, candidates).costs;
  for (std::size_t l = 0; l < 3; ++l) CHECK(a[l][0] == doctest::Approx(b[l][0]).epsilon(1e-12));
  again.set_mode(Mode::train);
  CHECK_THROWS_WITH_AS(small_data(again, {2}), doctest::Contains("train mode"), Error);
  CHECK_THROWS_WITH_AS(weight_candidates(f.data, {}, {}), doctest::Contains("no widths"), Error);
  CHECK_THROWS_WITH_AS(assignment_loss_change(f.data, f.candidates, std::vector{0, 1, 3}, 0),
                       doctest::Contains("outside 0 … 2"), Error);
}
