#include <cmath>
#include <doctest/doctest.h>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "core/random.hpp"
#include "nn/optimizer.hpp"

using namespace goshawk;
using doctest::Approx;

namespace {

Variable scalar(double value) {
  return Variable::leaf(Tensor::from<double>({value}, {1}));
}

// The parameter after each step with a constant gradient.
std::vector<double> path(double start, double g, int steps, const SgdOptions& options) {
  const Variable p = scalar(start);
  Sgd sgd({{"p", p}}, options);
  const std::vector<Variable> gradients{Tensor::from<double>({g}, {1})};
  std::vector<double> values;
  for (int i = 0; i < steps; ++i) {
    sgd.step(gradients);
    values.push_back(p.item());
  }
  return values;
}

std::vector<std::pair<std::string, Tensor>> saved(const Sgd& sgd) {
  std::vector<std::pair<std::string, Tensor>> entries;
  for (const NamedBuffer& buffer : sgd.state()) entries.emplace_back(buffer.name, buffer.tensor.clone());
  return entries;
}

}  // namespace

TEST_CASE("closed forms: plain, weight decay alone, momentum alone, Nesterov alone") {
  const int steps = 20;
  const auto plain = path(1, 0.5, steps, {.lr = 0.1});
  const auto decay = path(1, 0, steps, {.lr = 0.1, .weight_decay = 0.3});
  const auto momentum = path(1, 0.5, steps, {.lr = 0.1, .momentum = 0.9});
  const auto nesterov = path(1, 0.5, steps, {.lr = 0.1, .momentum = 0.9, .nesterov = true});
  for (int t = 1; t <= steps; ++t) {
    const auto i = static_cast<std::size_t>(t - 1);
    CHECK(plain[i] == Approx(1 - 0.05 * t).epsilon(1e-13));
    CHECK(decay[i] == Approx(std::pow(1 - 0.03, t)).epsilon(1e-13));
    // m_k = g (1 − μᵏ)/(1 − μ), so Σ_{k≤t} m_k = g/(1 − μ) · (t − μ (1 − μᵗ)/(1 − μ)).
    const double sum = 0.5 / 0.1 * (t - 0.9 * (1 - std::pow(0.9, t)) / 0.1);
    CHECK(momentum[i] == Approx(1 - 0.1 * sum).epsilon(1e-12));
    CHECK(nesterov[i] == Approx(1 - 0.1 * (0.5 * t + 0.9 * sum)).epsilon(1e-12));
  }
}

TEST_CASE("all together, worked out by hand in binary fractions") {
  // g = 1.25, m = 1.25, p = 1 − .625; then g = 1.09375, m = 1.71875, p = .375 − .859375.
  CHECK(path(1, 1, 2, {.lr = 0.5, .momentum = 0.5, .weight_decay = 0.25}) == std::vector{0.375, -0.484375});
  // Steps of g + m/2: 1.875; then g = 1.015625, m = 1.640625, g + m/2 = 1.8359375.
  CHECK(path(1, 1, 2, {.lr = 0.5, .momentum = 0.5, .nesterov = true, .weight_decay = 0.25}) ==
        std::vector{0.0625, -0.85546875});
}

TEST_CASE("groups have their own learning rate and weight decay; set_lr changes the next step") {
  const Variable a = scalar(1), b = scalar(1), c = scalar(1);
  Sgd sgd({{.parameters = {{"a", a}}, .weight_decay = 0.5},
           {.parameters = {{"b", b}, {"c", c}}, .lr_multiplier = 0.25}},
          {.lr = 0.5});
  const std::vector<Variable> gradients{Tensor::from<double>({1}, {1}), Tensor::from<double>({1}, {1}),
                                        Tensor::from<double>({2}, {1})};
  sgd.step(gradients);
  CHECK(a.item() == 0.25);
  CHECK(b.item() == 0.875);
  CHECK(c.item() == 0.75);
  sgd.set_lr(0.25);
  CHECK(sgd.lr() == 0.25);
  sgd.step(gradients);
  CHECK(a.item() == 0.25 - 0.25 * 1.125);
  CHECK(b.item() == 0.8125);
  CHECK(sgd.parameters().size() == 3);
  CHECK(sgd.state().empty());
}

TEST_CASE("large f32 tensors: the same as scalar arithmetic, the same bits for any thread count") {
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 5}) {
    set_num_threads(threads);
    Random random(1);
    const Variable p = Variable::leaf(random_normal({3, 70001}, DType::f32, random));
    const auto start = p.value().to_vector<float>();
    Sgd sgd({{"p", p}}, {.lr = 0.1, .momentum = 0.9, .nesterov = true, .weight_decay = 1e-4});
    const std::vector<Variable> g{random_normal({3, 70001}, DType::f32, random)};
    sgd.step(g);
    sgd.step(g);
    results.push_back(p.value().to_vector<float>());
    double worst = 0;
    for (std::size_t i = 0; i < start.size(); ++i) {
      double w = start[i], m = 0;
      for (int step = 0; step < 2; ++step) {
        const double d = g[0].value().data<float>()[i] + 1e-4 * w;
        m = 0.9 * m + d;
        w -= 0.1 * (d + 0.9 * m);
      }
      worst = std::max(worst, std::abs(w - results.back()[i]));
    }
    CHECK(worst < 4e-6);  // a few roundings of numbers below 8
  }
  set_num_threads(0);
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
}

TEST_CASE("a step over parameters of all sizes moves each as a step over it alone") {
  // The chunks of one loop over all of them begin and end inside some, and hold several others; one is empty.
  const std::vector<std::int64_t> sizes{5, 0, 70000, 3, 1, 33000, 16};
  const auto all_parameters = [&](DType dtype) {
    Random random(9);
    std::vector<NamedParameter> parameters;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      parameters.push_back({fmt::format("p{}", i), Variable::leaf(random_normal({sizes[i]}, dtype, random))});
    }
    return parameters;
  };
  for (const DType dtype : {DType::f32, DType::f64}) {
    const auto together = all_parameters(dtype), alone = all_parameters(dtype),
               adam_together = all_parameters(dtype), adam_alone = all_parameters(dtype);
    const SgdOptions options{.lr = 0.1, .momentum = 0.9, .nesterov = true};
    std::vector<ParameterGroup> groups;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const auto rank = static_cast<double>(i);
      groups.push_back({.parameters = {together[i]}, .lr_multiplier = 1 + rank, .weight_decay = 0.01 * rank});
    }
    Sgd sgd(groups, options);
    Adam adam(adam_together, {});
    Random random(10);
    std::vector<std::vector<Variable>> steps(3);
    for (auto& gradients : steps) {
      for (const std::int64_t size : sizes) gradients.emplace_back(random_normal({size}, dtype, random));
      sgd.step(gradients);
      adam.step(gradients);
    }
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      CAPTURE(i);
      ParameterGroup own = groups[i];
      own.parameters = {alone[i]};
      Sgd one({own}, options);
      Adam adam_one({adam_alone[i]}, {});
      for (const auto& gradients : steps) {
        one.step(std::span(&gradients[i], 1));
        adam_one.step(std::span(&gradients[i], 1));
      }
      const auto equal = [](const NamedParameter& a, const NamedParameter& b) {
        return a.variable.value().to(DType::f64).to_vector<double>() ==
               b.variable.value().to(DType::f64).to_vector<double>();
      };
      const bool same = equal(together[i], alone[i]), adam_same = equal(adam_together[i], adam_alone[i]);
      CHECK(same);
      CHECK(adam_same);
    }
  }
}

TEST_CASE("training resumes from the saved state with the same bits") {
  const SgdOptions options{.lr = 0.05, .momentum = 0.9, .nesterov = true, .weight_decay = 1e-3};
  Random random(2);
  const Variable a = Variable::leaf(random_normal({4, 3}, DType::f32, random));
  const Variable b = Variable::leaf(random_normal({7}, DType::f32, random));
  std::vector<std::vector<Variable>> gradients;
  for (int i = 0; i < 6; ++i) {
    gradients.push_back({random_normal({4, 3}, DType::f32, random), random_normal({7}, DType::f32, random)});
  }
  Sgd whole({{"a", a}, {"b", b}}, options);
  for (int i = 0; i < 3; ++i) whole.step(gradients[static_cast<std::size_t>(i)]);
  const auto state = saved(whole);
  CHECK(state[0].first == "momentum.a");
  CHECK(state[1].first == "momentum.b");
  const Variable a2 = Variable::leaf(a.value().clone()), b2 = Variable::leaf(b.value().clone());
  for (int i = 3; i < 6; ++i) whole.step(gradients[static_cast<std::size_t>(i)]);

  Sgd resumed({{"a", a2}, {"b", b2}}, options);
  resumed.load_state(state, "run/state.safetensors");
  for (int i = 3; i < 6; ++i) resumed.step(gradients[static_cast<std::size_t>(i)]);
  CHECK(a2.value().to_vector<float>() == a.value().to_vector<float>());
  CHECK(b2.value().to_vector<float>() == b.value().to_vector<float>());
}

TEST_CASE("a state that does not fit is refused, naming file and tensor, and changes nothing") {
  const Variable a = scalar(1), b = scalar(2);
  Sgd sgd({{"a", a}, {"b", b}}, {.momentum = 0.9});
  sgd.step(std::vector<Variable>{Tensor::from<double>({1}, {1}), Tensor::from<double>({2}, {1})});
  auto state = saved(sgd);
  state[0].second.fill(7);
  auto missing = state;
  missing.pop_back();
  CHECK_THROWS_WITH_AS(
      sgd.load_state(missing, "f.st"),
      "[Sgd::load_state] f.st: tensor 'momentum.b' is missing; resume with the options the run was "
      "started with, or start anew",
      Error);
  auto extra = state;
  extra.emplace_back("momentum.c", Tensor::zeros({1}, DType::f64));
  CHECK_THROWS_WITH_AS(
      sgd.load_state(extra, "f.st"),
      "[Sgd::load_state] f.st: tensor 'momentum.c' does not belong here; resume with the options "
      "the run was started with",
      Error);
  auto twice = state;
  twice.push_back(state[0]);
  CHECK_THROWS_AS(sgd.load_state(twice, "f.st"), Error);
  auto misshapen = state;
  misshapen[1].second = Tensor::zeros({2}, DType::f64);
  CHECK_THROWS_WITH_AS(
      sgd.load_state(misshapen, "f.st"),
      "[Sgd::load_state] f.st: tensor 'momentum.b' is f64 [2] instead of f64 [1]; resume with the "
      "model the run was started with",
      Error);
  auto other_type = state;
  other_type[1].second = Tensor::zeros({1}, DType::f32);
  CHECK_THROWS_AS(sgd.load_state(other_type, "f.st"), Error);
  CHECK(sgd.state()[0].tensor.item() == 1);
}

TEST_CASE("Adam: closed forms") {
  // A constant gradient: m̂ = g and v̂ = g² at every step, so each step is lr · g/(|g| + eps).
  for (double g : {0.5, -3.0}) {
    const Variable p = scalar(1);
    Adam adam({{"p", p}}, {.lr = 0.1, .eps = 1e-3});
    for (int t = 1; t <= 20; ++t) {
      adam.step(std::vector<Variable>{Tensor::from<double>({g}, {1})});
      CHECK(p.item() == Approx(1 - t * 0.1 * g / (std::abs(g) + 1e-3)).epsilon(1e-12));
    }
  }
  // Gradients 1 and then −2, with β₁ = ½, β₂ = ¾: m̂ = 1, v̂ = 1; then m = ½·½ − 1 = −¾, m̂ = −1 and
  // v = ¾·¼ + ¼·4 = 19/16, v̂ = (19/16)/(7/16) = 19/7.
  const Variable p = scalar(2);
  Adam adam({{"p", p}}, {.lr = 0.5, .beta1 = 0.5, .beta2 = 0.75, .eps = 1e-12});
  adam.step(std::vector<Variable>{Tensor::from<double>({1}, {1})});
  CHECK(p.item() == Approx(1.5).epsilon(1e-11));
  adam.step(std::vector<Variable>{Tensor::from<double>({-2}, {1})});
  CHECK(p.item() == Approx(1.5 + 0.5 / std::sqrt(19.0 / 7)).epsilon(1e-11));
  // Weight decay is part of the gradient: without any other, the step is lr towards zero.
  const Variable q = scalar(4);
  Adam decays({{"q", q}}, {.lr = 0.25, .eps = 1e-12, .weight_decay = 0.01});
  decays.step(std::vector<Variable>{Tensor::zeros({1}, DType::f64)});
  CHECK(q.item() == Approx(3.75).epsilon(1e-9));
}

TEST_CASE("Adam: resumes with the same bits, for any number of threads, and refuses what does not fit") {
  const AdamOptions options{.lr = 0.05, .weight_decay = 1e-3};
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    Random random(2);
    const Variable a = Variable::leaf(random_normal({4, 10007}, DType::f32, random));
    std::vector<Tensor> gradients;
    for (int i = 0; i < 6; ++i) gradients.push_back(random_normal({4, 10007}, DType::f32, random));
    Adam whole({{"a", a}}, options);
    for (int i = 0; i < 3; ++i) whole.step(std::vector<Variable>{gradients[static_cast<std::size_t>(i)]});
    std::vector<std::pair<std::string, Tensor>> state;
    for (const NamedBuffer& b : whole.state()) state.emplace_back(b.name, b.tensor.clone());
    const Variable a2 = Variable::leaf(a.value().clone());
    Adam resumed({{"a", a2}}, options);
    resumed.load_state(state, "f.st");
    for (std::size_t i = 3; i < 6; ++i) {
      whole.step(std::vector<Variable>{gradients[i]});
      resumed.step(std::vector<Variable>{gradients[i]});
    }
    CHECK(a.value().to_vector<float>() == a2.value().to_vector<float>());
    results.push_back(a.value().to_vector<float>());
    state.pop_back();
    CHECK_THROWS_WITH_AS(resumed.load_state(state, "f.st"),
                         "[Adam::load_state] f.st: tensor 'adam.v.a' is missing; resume with the options the "
                         "run was started with, or start anew",
                         Error);
  }
  set_num_threads(0);
  CHECK(results[0] == results[1]);
  const Variable p = scalar(1);
  CHECK_THROWS_AS(Adam({{"p", p}}, {.lr = -1}), Error);
  CHECK_THROWS_AS(Adam({{"p", p}}, {.beta1 = 1}), Error);
  CHECK_THROWS_AS(Adam({{"p", p}}, {.beta2 = -0.1}), Error);
  CHECK_THROWS_AS(Adam({{"p", p}}, {.eps = 0}), Error);
  CHECK_THROWS_AS(Adam({{"p", p}}, {.weight_decay = -1}), Error);
  CHECK_THROWS_AS(Adam({{"p", p}, {"p", p}}, {}), Error);
  CHECK_THROWS_AS(Adam({{"p", Variable()}}, {}), Error);
  Adam adam({{"p", p}}, {});
  CHECK_THROWS_AS(adam.step(std::vector<Variable>{}), Error);
  CHECK_THROWS_AS(adam.step(std::vector<Variable>{Tensor::zeros({2}, DType::f64)}), Error);
  CHECK_THROWS_AS(adam.set_lr(-1), Error);
  // A damaged state: in the step that follows it would divide by 1 − β⁰.
  adam.state().front().tensor.fill(-1);
  CHECK_THROWS_WITH_AS(adam.step(std::vector<Variable>{Tensor::full({1}, DType::f64, 1)}),
                       "[Adam] the state counts -1 steps; it is damaged, load another or start anew", Error);
  CHECK(p.item() == 1);
}

TEST_CASE("bad options and gradients are refused before anything changes") {
  const Variable a = scalar(1), b = scalar(2);
  CHECK_THROWS_AS(Sgd({{"a", a}}, {.lr = -1}), Error);
  CHECK_THROWS_AS(Sgd({{"a", a}}, {.momentum = 1}), Error);
  CHECK_THROWS_AS(Sgd({{"a", a}}, {.nesterov = true}), Error);
  CHECK_THROWS_AS(Sgd({{"a", a}}, {.weight_decay = -1e-4}), Error);
  CHECK_THROWS_AS(Sgd({{"a", a}, {"a", b}}, {}), Error);
  CHECK_THROWS_AS(Sgd({{"a", Variable()}}, {}), Error);
  // What two layers share would be moved twice, each time by the whole gradient.
  CHECK_THROWS_WITH_AS(Sgd({{"a", a}, {"b", a}}, {}),
                       "[Sgd] parameters 'a' and 'b' are the same; give what layers share once", Error);
  CHECK_THROWS_AS(Adam({{"a", a}, {"b", a}}, {}), Error);
  std::vector<ParameterGroup> groups(2);
  groups[0].parameters = {{"a", a}};
  groups[1].parameters = {{"b", a}};
  CHECK_THROWS_AS(Sgd(groups, {}), Error);
  groups[1].parameters = {{"b", b}};
  groups[1].lr_multiplier = -1;
  CHECK_THROWS_AS(Sgd(groups, {}), Error);
  Sgd sgd({{"a", a}, {"b", b}}, {.lr = 1});
  const Tensor good = Tensor::full({1}, DType::f64, 1);
  CHECK_THROWS_AS(sgd.set_lr(-1), Error);
  CHECK_THROWS_AS(sgd.step(std::vector<Variable>{good}), Error);
  CHECK_THROWS_AS(sgd.step(std::vector<Variable>{good, Tensor::zeros({2}, DType::f64)}), Error);
  CHECK_THROWS_AS(sgd.step(std::vector<Variable>{good, Tensor::zeros({1}, DType::f32)}), Error);
  CHECK_THROWS_AS(sgd.step(std::vector<Variable>{good, Variable()}), Error);
  CHECK(a.item() == 1);
}
