// Draws the figures of the course: course_figures [DIRECTORY], from the repository's root, since two of them
// show measured results in docs/results. The same bits each time on one machine.
#include "docs/figures.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <sstream>

#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/lanczos.hpp"
#include "autograd/curvature/power_iteration.hpp"
#include "core/file.hpp"
#include "quant/cost_allocation.hpp"
#include "quant/sensitivities/naive.hpp"
#include "quant/sensitivities/registry.hpp"
#include "quant/sensitivity.hpp"

namespace goshawk {
namespace {

constexpr const char* kResults = "docs/results/";

Figure difference_errors() {
  Random random(1);
  const TwoLayers problem(random);
  const Vector v = normal_vector(std::vector<Shape>{{20, 16}, {16, 4}}, DType::f64, random);
  Figure figure{.title = "Hv by differences of gradients",
                .x = {.label = "step h", .scale = AxisScale::log},
                .y = {.label = "relative error of Hv", .scale = AxisScale::log}};
  const auto add = [&](const char* name, int colour, Variable (*activation)(const Variable&)) {
    const auto gradient = [&](double h) {
      const Vector moved = clone(problem.w);
      axpy(h, v, moved);
      const std::vector<Variable> p = TwoLayers::leaves(moved);
      return GradientGraph(problem.loss(p, activation), p);
    };
    const Vector hv = gradient(0).apply(v);
    FigureSeries series{.name = name, .colour = colour, .line = true, .markers = true};
    for (int k = 2; k <= 24; ++k) {
      const double h = std::pow(10.0, -k / 2.0);
      const Vector error = clone(hv);
      for (const double side : {1.0, -1.0}) {
        const GradientGraph at = gradient(side * h);
        axpy(-side / (2 * h), {at.gradient()[0].value(), at.gradient()[1].value()}, error);
      }
      series.points.push_back({.x = h, .y = norm(error) / norm(hv)});
    }
    figure.series.push_back(series);
  };
  add("tanh", 0, tanh);
  add("ReLU", 1, relu);
  return figure;
}

Figure derivatives() {
  const std::int64_t points = 121;
  const Tensor at = Tensor::empty({points}, DType::f64);
  for (std::int64_t i = 0; i < points; ++i) {
    at.data<double>()[i] = -6 + 12.0 * static_cast<double>(i) / (points - 1);
  }
  // tanh(x) e^(−x²/8): differentiated point by point, since each output depends on its own input alone.
  const Variable x = Variable::leaf(at);
  Variable f = mul(tanh(x), exp(scale(mul(x, x), -0.125)));
  Figure figure{.title = "A function and its derivatives, each the gradient of the one before",
                .x = {.label = "x"},
                .y = {.label = "value"}};
  const char* names[] = {"f", "f′", "f″", "f‴"};
  for (int order = 0; order < 4; ++order) {
    FigureSeries series{.name = names[order], .colour = order, .line = true};
    for (std::int64_t i = 0; i < points; ++i) {
      series.points.push_back({.x = at.data<double>()[i], .y = f.value().data<double>()[i]});
    }
    figure.series.push_back(series);
    f = grad(sum(f), std::vector{x}, {.create_graph = true})[0];
  }
  return figure;
}

Figure eigenvalue_errors() {
  Random random(1);
  const TwoLayers problem(random);
  const HessianOperator h = problem.hessian();
  const double top = lanczos(h, {.tolerance = 1e-12}).largest[0].value;
  FigureSeries power{.name = "power iteration", .colour = 0, .line = true, .markers = true};
  FigureSeries krylov{.name = "Lanczos", .colour = 1, .line = true, .markers = true};
  const auto add = [&](FigureSeries& series, int products, double value) {
    const double error = std::abs(1 - value / top);
    // Below this, rounding would be drawn.
    if (error > 1e-15) series.points.push_back({.x = static_cast<double>(products), .y = error});
  };
  power_iteration(
      h, {.tolerance = 1e-15, .max_iterations = 40, .progress = [&](int, int iteration, double value) {
            add(power, iteration, value);
            return true;
          }});
  lanczos(h, {.tolerance = 1e-15,
              .max_products = 25,
              .progress = [&](const LanczosState& state, std::span<const RitzValue> largest, auto) {
                add(krylov, state.products, largest[0].value);
                return true;
              }});
  return {.title = "The largest eigenvalue, product by product",
          .x = {.label = "products"},
          .y = {.label = "relative error", .scale = AxisScale::log},
          .series = {power, krylov}};
}

/// Where a hundred runs of each stopping rule of chapter 4 end.
Figure stopping_rules(const TrainedNet& trained) {
  const SensitivityData few(*trained.net, {trained.images[0]}, {trained.labels[0]});
  const HessianOperator h = few.hessian().block(7);
  const double exact = exact_traces(few.pass(), few.sizes()).layers[7].weight.value;
  FigureSeries naive{.name = "the mean moved by less than 1 %", .colour = 1, .markers = true, .hollow = true};
  FigureSeries honest{.name = "the standard error is below 5 %", .colour = 0, .markers = true};
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const auto moved = [last = 0.0](const HutchinsonState&, std::span<const Estimate> now) mutable {
      return std::abs(now[0].value - std::exchange(last, now[0].value)) > 0.01 * now[0].value;
    };
    const Estimate early =
        hutchinson(h, {.seed = seed, .relative_error = 0, .probes_per_pass = 1, .progress = moved});
    const Estimate late = hutchinson(h, {.seed = seed, .relative_error = 0.05, .probes_per_pass = 1});
    naive.points.push_back({.x = static_cast<double>(early.samples), .y = early.value});
    honest.points.push_back({.x = static_cast<double>(late.samples), .y = late.value});
  }
  return {.title = "Two stopping rules, a hundred runs each",
          .x = {.label = "probes when it stopped"},
          .y = {.label = "estimated trace"},
          .series = {naive, honest},
          .rules = {{.value = exact, .name = "exact trace of the same pictures"}}};
}

Figure pictures(const TrainedNet& trained) {
  const SensitivityData all(*trained.net, trained.images, trained.labels);
  const std::vector<double> each =
      exact_traces(all.pass(), all.sizes(), {.activations = false}).layers[7].weight_per_image;
  FigureSeries series{.name = "exact trace ± 2 standard errors", .colour = 0, .line = true, .markers = true};
  for (std::size_t n = 16; n <= each.size(); n *= 2) {
    const Estimate e = estimate_mean(std::span(each).first(n));
    series.points.push_back(
        {.x = static_cast<double>(n),
         .y = e.value,
         .y_error = FigureInterval{e.value - 2 * e.standard_error, e.value + 2 * e.standard_error}});
  }
  return {.title = "The same trace from more and more pictures, without any probe",
          .x = {.label = "pictures", .scale = AxisScale::log},
          .y = {.label = "trace of the last layer"},
          .series = {series}};
}

Figure spectrum() {
  const std::string directory = std::string(kResults) + "spectrum-resnet20/";
  const nlohmann::json report = nlohmann::json::parse(read_file(directory + "curvature.json"))["network"];
  const auto n = report["parameters"].get<double>();
  // A single eigenvalue, spread as goshawk curvature spreads it: by a hundredth of the spectrum's width.
  const std::vector<double> top = report["top_eigenvalues"], bottom = report["bottom_eigenvalues"];
  const double smoothing = (top.front() - bottom.front()) / 100;
  const double single = 1 / (n * smoothing * std::sqrt(2 * std::acos(-1.0)));
  FigureSeries density{.name = "density", .colour = 0, .line = true};
  std::istringstream file(read_file(directory + "density-network.csv"));
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    double x = 0, y = 0;
    if (std::sscanf(line.c_str(), "%lf,%lf", &x, &y) == 2)
      density.points.push_back({x, std::max(y, single / 100)});
  }
  FigureSeries found{
      .name = "by Lanczos, at the height of one eigenvalue", .colour = 1, .markers = true, .hollow = true};
  for (const double value : top) found.points.push_back({value, single});
  for (const double value : bottom) found.points.push_back({value, single});
  return {.title = "All eigenvalues of ResNet-20's Hessian, 128 pictures",
          .x = {.label = "eigenvalue"},
          .y = {.label = "density", .scale = AxisScale::log, .low = single / 30, .high = 3},
          .series = {density, found}};
}

Figure predictions(const TrainedNet& trained) {
  const SensitivityData data(*trained.net, trained.images, trained.labels);
  const WeightCandidates candidates = weight_candidates(data, {3, 4, 6, 8}, {.clip = ClipRule::min_max});
  SensitivityMeasurement measurement(data, candidates);
  const CostTable quadratic = measurement.measure("exact-quadratic").costs;
  const CostTable trace = measurement.measure("hawq-v2").costs;
  FigureSeries by_quadratic{.name = "½ ΔwᵀHΔw, summed", .colour = 0, .markers = true};
  FigureSeries by_trace{.name = "½ Ω of HAWQ-V2", .colour = 1, .markers = true, .hollow = true};
  FigureSeries equal{.name = "right", .colour = 2, .line = true, .dashed = true};
  const double loss = data.loss();
  Random random(2);
  double low = 1, high = 0;  // of the predictions
  for (int k = 0; k < 48; ++k) {
    double from_quadratic = 0, from_trace = 0;
    std::vector<int> choice;
    for (std::size_t l = 0; l < quadratic.size(); ++l) {
      choice.push_back(static_cast<int>(random.below(4)));
      from_quadratic += quadratic[l][static_cast<std::size_t>(choice.back())];
      from_trace += trace[l][static_cast<std::size_t>(choice.back())] / 2;
    }
    const double change = assignment_loss_change(data, candidates, choice, loss);
    if (change <= 0) continue;  // no place on a logarithmic axis
    by_quadratic.points.push_back({from_quadratic, change});
    by_trace.points.push_back({from_trace, change});
    low = std::min({low, from_quadratic, from_trace});
    high = std::max({high, from_quadratic, from_trace});
  }
  equal.points = {{low, low}, {high, high}};
  return {.title = "Random assignments of 3 to 8 bits: predicted and true",
          .x = {.label = "predicted change of the loss", .scale = AxisScale::log},
          .y = {.label = "measured", .scale = AxisScale::log},
          .series = {by_quadratic, by_trace, equal}};
}

Figure bits_by_trace() {
  const Sensitivity measured = read_sensitivity(std::string(kResults) + "cifar10-resnet20/sensitivity.json");
  Costs costs;
  Figure figure{.title = "HAWQ-V2's bits for ResNet-20 on CIFAR-10",
                .x = {.label = "mean trace ± 2 standard errors", .scale = AxisScale::log},
                .y = {.scale = AxisScale::categories}};
  for (const LayerSensitivity& layer : measured.layers) {
    const auto n = static_cast<double>(layer.parameters);
    LayerCosts& c = costs.layers.emplace_back();
    c.name = layer.name;
    c.parameters = layer.parameters;
    c.score = layer.mean_trace();
    for (const auto& [bits, perturbation] : layer.perturbation) {
      c.choices.push_back({.bits = bits, .bytes = n * bits / 8, .cost = layer.mean_trace() * perturbation});
    }
    figure.y.categories.push_back(layer.name);
  }
  const CostAllocation found =
      allocate(costs, AllocationMethod::pareto, {.bytes = full_precision_bytes(costs) / 13.11});
  for (const int bits : {2, 3, 4, 8}) {
    FigureSeries series{.name = fmt::format("{} bits", bits), .colour = bits % 7, .markers = true};
    for (std::size_t l = 0; l < measured.layers.size(); ++l) {
      if (found.layers[l].bits != bits) continue;
      const LayerSensitivity& layer = measured.layers[l];
      const double mean = layer.mean_trace();
      const double error = 2 * layer.trace.standard_error / static_cast<double>(layer.parameters);
      // A lower end at or below zero has no place on a logarithmic axis.
      series.points.push_back({.x = mean,
                               .y = static_cast<double>(l),
                               .x_error = FigureInterval{std::max(mean - error, mean / 20), mean + error}});
    }
    if (!series.points.empty()) figure.series.push_back(series);
  }
  return figure;
}

}  // namespace
}  // namespace goshawk

int main(int argc, char** argv) {
  using namespace goshawk;
  return draw_figures("course_figures", "docs/course/figures", argc, argv, [](const WriteFigure& write) {
    write("1-differences", difference_errors());
    write("2-derivatives", derivatives());
    write("3-eigenvalues", eigenvalue_errors());
    const TrainedNet trained;
    write("4-stopping", stopping_rules(trained));
    write("4-pictures", pictures(trained));
    write("5-spectrum", spectrum());
    write("6-predictions", predictions(trained));
    write("7-bits", bits_by_trace());
  });
}
