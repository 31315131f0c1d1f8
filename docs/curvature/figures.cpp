// Draws the figures of the estimators' pages: curvature_figures [DIRECTORY], by default into
// docs/curvature/figures below the present directory. The same bits each time on one machine.
#include "docs/figures.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>

#include "autograd/curvature/diagonal.hpp"
#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/hutchpp.hpp"
#include "autograd/curvature/lanczos.hpp"
#include "autograd/curvature/power_iteration.hpp"
#include "autograd/curvature/spectral_density.hpp"
#include "autograd/curvature/xtrace.hpp"
#include "quant/sensitivities/data.hpp"

namespace goshawk {
namespace {

/// The first seed of runs. Networks and matrices are drawn from seed 1: a probe from the same stream as a
/// matrix would be one of its eigenvectors.
constexpr std::uint64_t kFirstSeed = 100;

/// f(w) = ½ wᵀ A w, whose Hessian A = Qᵀ diag(eigenvalues) Q has the eigenvalues that are asked for, and a
/// random orthogonal Q.
class Quadratic {
 public:
  explicit Quadratic(const std::vector<double>& eigenvalues) {
    const auto n = static_cast<std::int64_t>(eigenvalues.size());
    Random random(1);
    const Tensor q = Tensor::empty({n, n}, DType::f64), scaled = Tensor::empty({n, n}, DType::f64);
    std::vector<Vector> rows;
    for (std::int64_t k = 0; k < n; ++k) {
      const Vector row = normal_vector(std::vector<Shape>{{n}}, DType::f64, random);
      orthonormalise(row, rows);
      rows.push_back(row);
      for (std::int64_t i = 0; i < n; ++i) {
        const double element = row[0].data<double>()[i];
        q.data<double>()[k * n + i] = element;
        scaled.data<double>()[k * n + i] = eigenvalues[static_cast<std::size_t>(k)] * element;
      }
    }
    a_ = matmul(q, scaled, true).value();
    w_ = Variable::leaf(random_normal({n, 1}, DType::f64, random));
  }
  /// Refers to this object.
  HessianOperator hessian() const {
    return {{w_}, {1}, [this](std::size_t) { return scale(sum(mul(w_, matmul(a_, w_))), 0.5); }};
  }

 private:
  Tensor a_;
  Variable w_;
};

/// `count` numbers from `from` to `to`, equally far apart.
std::vector<double> evenly(double from, double to, int count) {
  std::vector<double> values;
  for (int k = 0; k < count; ++k) values.push_back(from + (to - from) * k / (count - 1));
  return values;
}

double sum_of(const std::vector<double>& values) {
  double total = 0;
  for (const double value : values) total += value;
  return total;
}

/// All elements of the operator, a row after the other.
std::vector<std::vector<double>> dense(const LinearOperator& a) {
  std::vector<std::vector<double>> rows;
  for (std::size_t block = 0; block < a.shapes().size(); ++block) {
    for (std::int64_t i = 0; i < a.shapes()[block].numel(); ++i) {
      const Vector unit = zero_vector(a.shapes(), a.dtype());
      unit[block].data<double>()[i] = 1;
      std::vector<double>& row = rows.emplace_back();
      for (const Tensor& part : a.apply(unit)) {
        row.insert(row.end(), part.data<double>(), part.data<double>() + part.numel());
      }
    }
  }
  return rows;
}

double trace_of(const std::vector<std::vector<double>>& rows) {
  double trace = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) trace += rows[i][i];
  return trace;
}

Figure power_iteration_errors() {
  constexpr int kProducts = 60;
  Figure figure{.title = "Power iteration: the gap between the first two eigenvalues decides",
                .x = {.label = "products"},
                .y = {.label = "relative error of λ₁", .scale = AxisScale::log, .low = 1e-14, .high = 3}};
  FigureSeries theory{.name = "slope (λ₂/λ₁)² a product", .colour = 6, .line = true, .dashed = true};
  int colour = 0;
  for (const double ratio : {0.5, 0.8, 0.95}) {
    std::vector<double> eigenvalues = evenly(-0.4, 0.4, 98);
    eigenvalues.insert(eigenvalues.end(), {1, ratio});
    const Quadratic quadratic(eigenvalues);
    const HessianOperator h = quadratic.hessian();
    const int stopped = power_iteration(h)[0].iterations;
    FigureSeries series{.name = fmt::format("λ₂/λ₁ = {}", ratio), .colour = colour++, .line = true};
    power_iteration(
        h, {.tolerance = 1e-16,
            .residual_tolerance = 1e-16,
            .max_iterations = kProducts,
            .progress = [&](int, int products, double value) {
              const double error = std::abs(value - 1);
              // Below this, rounding would be drawn.
              if (error < 1e-14) return false;
              series.points.push_back(
                  {.x = static_cast<double>(products), .y = error, .emphasised = products == stopped});
              return true;
            }});
    // Through the last point: there the two eigenvectors are alone.
    const FigurePoint last = series.points.back();
    if (!theory.points.empty()) theory.points.push_back({.x = 1, .y = NAN});
    for (const double x : {1.0, last.x})
      theory.points.push_back({.x = x, .y = last.y * std::pow(ratio, 2 * (x - last.x))});
    figure.series.push_back(series);
  }
  figure.series.push_back(theory);
  return figure;
}

/// The spectrum of both figures of Lanczos.
const std::vector<double> kTop{2.0, 1.6, 1.25, 0.95}, kBottom{-1.1, -0.85, -0.65};
constexpr double kBulk = 0.4;

Quadratic both_ends() {
  std::vector<double> eigenvalues = evenly(-kBulk, kBulk, 193);
  eigenvalues.insert(eigenvalues.end(), kTop.begin(), kTop.end());
  eigenvalues.insert(eigenvalues.end(), kBottom.begin(), kBottom.end());
  return Quadratic(eigenvalues);
}

Figure ritz_values() {
  constexpr int kSteps = 24;
  const Quadratic quadratic = both_ends();
  FigureSeries rest{.colour = 5, .band = true};
  for (const double x : {0.0, kSteps + 1.0})
    rest.points.push_back({.x = x, .y = 0, .y_error = FigureInterval{-kBulk, kBulk}});
  FigureSeries open{.name = "Ritz value", .colour = 1, .markers = true, .hollow = true};
  FigureSeries converged{.name = "the same, residual below 10⁻³", .colour = 0, .markers = true};
  // With as many pairs wanted as there are steps, all Ritz values are among the largest.
  lanczos(quadratic.hessian(),
          {.largest = kSteps,
           .tolerance = 1e-16,
           .max_products = kSteps,
           .progress = [&](const LanczosState& state, auto all, auto) {
             for (const RitzValue& ritz : all) {
               const bool good = ritz.residual <= 1e-3 * std::abs(ritz.value);
               (good ? converged : open).points.push_back({static_cast<double>(state.products), ritz.value});
             }
             return true;
           }});
  Figure figure{.title = "Lanczos: the ends of the spectrum converge first, both at once",
                .x = {.label = "products", .low = 0, .high = kSteps + 1.0},
                .y = {.label = "eigenvalue"},
                .series = {rest, open, converged}};
  for (const double value : kTop) figure.rules.push_back({.value = value});
  for (const double value : kBottom) figure.rules.push_back({.value = value});
  figure.rules[0].name = "the outer eigenvalues";
  return figure;
}

Figure lanczos_errors() {
  const Quadratic quadratic = both_ends();
  FigureSeries series[] = {
      {.name = "residual of the largest", .colour = 0, .line = true, .dashed = true},
      {.name = "its error", .colour = 0, .line = true, .markers = true},
      {.name = "residual of the most negative", .colour = 1, .line = true, .dashed = true},
      {.name = "its error", .colour = 1, .line = true, .markers = true}};
  lanczos(quadratic.hessian(),
          {.largest = 1,
           .smallest = 1,
           .tolerance = 1e-16,
           .max_products = 40,
           .progress = [&](const LanczosState& state, auto largest, auto smallest) {
             const auto add = [&](std::size_t at, std::span<const RitzValue> found, double exact) {
               if (found.empty()) return;
               const auto x = static_cast<double>(state.products);
               const double size = std::abs(exact), error = std::abs(found[0].value - exact) / size;
               const double residual = found[0].residual / size;
               // Below this, rounding would be drawn.
               if (residual > 1e-15) series[at].points.push_back({x, residual});
               if (error > 1e-15) series[at + 1].points.push_back({x, error});
             };
             add(0, largest, kTop[0]);
             add(2, smallest, kBottom[0]);
             return true;
           }});
  return {.title = "Lanczos: an eigenvalue is far better than its residual",
          .x = {.label = "products"},
          .y = {.label = "relative to |λ|", .scale = AxisScale::log, .low = 1e-15, .high = 3},
          .series = {std::begin(series), std::end(series)}};
}

Figure hutchinson_intervals() {
  Random random(1);
  const TwoLayers problem(random);
  const HessianOperator h = problem.hessian().block(1);
  const double exact = trace_of(dense(h));
  FigureSeries covers{.name = "covers the exact trace", .colour = 0, .markers = true};
  FigureSeries misses{.name = "does not", .colour = 1, .markers = true};
  for (std::uint64_t run = 1; run <= 60; ++run) {
    const Estimate e = hutchinson(h, {.seed = kFirstSeed + run, .relative_error = 0.05});
    const Interval i = confidence_interval(e, 0.95);
    (i.low <= exact && exact <= i.high ? covers : misses)
        .points.push_back({.x = static_cast<double>(run),
                           .y = e.value,
                           .y_error = FigureInterval{i.low, i.high},
                           .tip = fmt::format("run {}: {} probes", run, e.samples)});
  }
  return {.title = "Hutchinson: sixty runs with their 95 % intervals",
          .x = {.label = "run"},
          .y = {.label = "estimated trace"},
          .series = {covers, misses},
          .rules = {{.value = exact, .name = "exact trace"}}};
}

Figure hutchinson_errors() {
  constexpr int kProbes = 51'200;
  Random random(1);
  const TwoLayers problem(random);
  const HessianOperator h = problem.hessian().block(1);
  const std::vector<std::vector<double>> elements = dense(h);
  const double exact = trace_of(elements);
  double all = 0, diagonal = 0;  // sums of squares
  for (std::size_t i = 0; i < elements.size(); ++i) {
    for (const double element : elements[i]) all += element * element;
    diagonal += elements[i][i] * elements[i][i];
  }
  Figure figure{.title = "Hutchinson: four times the probes for half the error",
                .x = {.label = "probes m", .scale = AxisScale::log},
                .y = {.label = fmt::format("root-mean-square error of {} / m estimates / trace", kProbes),
                      .scale = AxisScale::log}};
  const auto add = [&](const char* name, int colour, Probe probe, double variance) {
    HutchinsonState state;
    hutchinson(h,
               {.probe = probe,
                .seed = kFirstSeed,
                .relative_error = 0,
                .min_samples = kProbes,
                .max_samples = kProbes,
                .probes_per_pass = 256},
               &state);
    FigureSeries measured{.name = name, .colour = colour, .markers = true};
    FigureSeries theory{.name = "its formula", .colour = colour, .line = true, .dashed = true};
    for (std::size_t m = 1; m <= 256; m *= 2) {
      const auto x = static_cast<double>(m);
      // The samples in groups of m, each an estimate.
      double squares = 0;
      for (std::size_t begin = 0; begin < state.samples.size(); begin += m) {
        double total = 0;
        for (std::size_t k = begin; k < begin + m; ++k) total += state.samples[k][0];
        squares += std::pow(total / x - exact, 2);
      }
      measured.points.push_back({x, std::sqrt(squares * x / kProbes) / exact});
      theory.points.push_back({x, std::sqrt(variance / x) / exact});
    }
    figure.series.push_back(measured);
    figure.series.push_back(theory);
  };
  add("N(0, 1)", 1, Probe::gaussian, 2 * all);
  add("Rademacher", 0, Probe::rademacher, 2 * (all - diagonal));
  return figure;
}

/// Root-mean-square errors of 100 runs on one spectrum.
Figure three_traces(const char* title, const std::vector<double>& eigenvalues, FigureInterval limits) {
  constexpr int kRuns = 100;
  const Quadratic quadratic(eigenvalues);
  const HessianOperator h = quadratic.hessian();
  const double exact = sum_of(eigenvalues);
  Figure figure{.title = title,
                .x = {.label = "products"},
                .y = {.label = "root-mean-square error of 100 runs / trace",
                      .scale = AxisScale::log,
                      .low = limits.low,
                      .high = limits.high}};
  const auto add = [&](const char* name, int colour, const auto& run) {
    FigureSeries series{.name = name, .colour = colour, .line = true, .markers = true};
    for (int products = 24; products <= 96; products += 12) {
      double squares = 0;
      for (std::uint64_t seed = 0; seed < kRuns; ++seed) {
        squares += std::pow(run(products, kFirstSeed + seed).value / exact - 1, 2) / kRuns;
      }
      series.points.push_back({static_cast<double>(products), std::sqrt(squares)});
    }
    figure.series.push_back(series);
  };
  add("Hutchinson", 0, [&](int products, std::uint64_t seed) {
    return hutchinson(h,
                      {.seed = seed, .relative_error = 0, .min_samples = products, .max_samples = products});
  });
  add("Hutch++", 1, [&](int products, std::uint64_t seed) {
    const int third = products / 3;
    return hutchpp(
        h, {.rank = third, .seed = seed, .relative_error = 0, .min_samples = third, .max_samples = third});
  });
  add("XTrace", 2, [&](int products, std::uint64_t seed) {
    const int probes = products / 2;
    return xtrace(h, {.seed = seed, .relative_error = 0, .min_probes = probes, .max_probes = probes});
  });
  return figure;
}

Figure density() {
  // A bulk that thins out to both sides, as a network's does, and a few eigenvalues apart from it.
  constexpr int kBulkSize = 495;
  std::vector<double> eigenvalues;
  for (int k = 0; k < kBulkSize; ++k) {
    const double u = (2 * k + 1.0) / kBulkSize - 1;  // −1 … 1
    eigenvalues.push_back(0.6 * u * u * u + 0.2 * u);
  }
  eigenvalues.insert(eigenvalues.end(), {-1.2, 1.4, 1.7, 2.4, 3.0});
  const Quadratic quadratic(eigenvalues);
  const HessianOperator h = quadratic.hessian();
  constexpr double kSmoothing = 0.03;
  const std::vector<double> grid = evenly(-1.5, 3.3, 321);
  const double floor = 1e-3;
  const auto add = [&](FigureSeries series, const DensityCurve& curve, bool band) {
    for (std::size_t i = 0; i < grid.size(); ++i) {
      FigurePoint& point = series.points.emplace_back();
      point.x = grid[i];
      point.y = std::max(curve.density[i], floor / 10);
      const double error = 2 * curve.standard_error[i];
      if (band) {
        point.y_error = FigureInterval{std::max(curve.density[i] - error, floor / 10),
                                       std::max(curve.density[i] + error, floor / 10)};
      }
    }
    return series;
  };
  const auto estimate = [&](int steps) {
    const SpectralDensity found =
        spectral_density(h, {.steps = steps, .relative_error = 0, .min_probes = 8, .max_probes = 8});
    return density_curve(found.quadratures, grid, kSmoothing);
  };
  // The eigenvalues themselves are the quadrature without an error.
  const std::vector<Quadrature> truth{
      {eigenvalues, std::vector<double>(eigenvalues.size(), 1.0 / static_cast<double>(eigenvalues.size()))}};
  return {.title = "Stochastic Lanczos quadrature: the density of 500 known eigenvalues",
          .x = {.label = "eigenvalue", .low = -1.5, .high = 3.3},
          .y = {.label = "density", .scale = AxisScale::log, .low = floor, .high = 10},
          .series = {add({.name = "10 steps", .colour = 1, .line = true}, estimate(10), false),
                     add({.name = "80 steps, ± 2 standard errors", .colour = 0, .line = true, .band = true},
                         estimate(80), true),
                     add({.name = "exact", .colour = 6, .line = true, .dashed = true},
                         density_curve(truth, grid, kSmoothing), false)}};
}

Figure diagonals() {
  Random random(1);
  const TwoLayers problem(random);
  const HessianOperator h = problem.hessian();
  const std::vector<std::vector<double>> elements = dense(h);
  Figure figure{.title = "The diagonal of the second layer's 64 weights",
                .x = {.label = "exact second derivative"},
                .y = {.label = "estimate ± 2 standard errors"}};
  const auto add = [&](int probes, int colour, bool hollow) {
    const DiagonalEstimate d =
        diagonal(h, {.relative_error = 0, .min_samples = probes, .max_samples = probes});
    FigureSeries series{
        .name = fmt::format("{} probes", probes), .colour = colour, .markers = true, .hollow = hollow};
    const auto first = static_cast<std::size_t>(d.value[0].numel());
    for (std::size_t i = 0; i < static_cast<std::size_t>(d.value[1].numel()); ++i) {
      const double value = d.value[1].data<double>()[i];
      const double error = 2 * d.standard_error[1].data<double>()[i];
      FigurePoint point{.x = elements[first + i][first + i], .y = value};
      if (!hollow) point.y_error = FigureInterval{value - error, value + error};
      series.points.push_back(point);
    }
    figure.series.push_back(series);
  };
  add(32, 1, true);
  add(2048, 0, false);
  FigureSeries equal{.name = "estimate = exact", .colour = 2, .line = true, .dashed = true};
  const auto [low, high] =
      std::minmax_element(figure.series[0].points.begin(), figure.series[0].points.end(),
                          [](const FigurePoint& a, const FigurePoint& b) { return a.x < b.x; });
  equal.points = {{low->x, low->x}, {high->x, high->x}};
  figure.series.push_back(equal);
  return figure;
}

Figure two_roads() {
  const TrainedNet trained;
  const SensitivityData data(*trained.net, {trained.images[0]}, {trained.labels[0]});
  const ExactTraces exact = exact_traces(data.pass(), data.sizes(), {.activations = false});
  const HessianOperator h = data.hessian();
  Figure figure{.title = "The trace of each layer of a small trained ResNet, by two roads",
                .x = {.label = "Hutchinson's estimate and its 95 % interval / exact trace"},
                .y = {.label = "layer, and its exact trace", .scale = AxisScale::categories},
                .rules = {{.vertical = true, .value = 1, .name = "exact road"}},
                .plot_height = 260};
  for (const LayerTraces& layer : exact.layers) {
    figure.y.categories.push_back(fmt::format("{}: {:.3g}", layer.name, layer.weight.value));
  }
  const auto add = [&](int probes, int colour, double beside) {
    FigureSeries series{.name = fmt::format("{} probes a layer", probes), .colour = colour, .markers = true};
    for (std::size_t l = 0; l < exact.layers.size(); ++l) {
      const double trace = exact.layers[l].weight.value;
      const Estimate e = hutchinson(
          h.block(l),
          {.seed = kFirstSeed + l, .relative_error = 0, .min_samples = probes, .max_samples = probes});
      const Interval i = confidence_interval(e, 0.95);
      series.points.push_back({.x = e.value / trace,
                               .y = static_cast<double>(l) + beside,
                               .x_error = FigureInterval{i.low / trace, i.high / trace}});
    }
    figure.series.push_back(series);
  };
  add(16, 1, -0.2);
  add(128, 0, 0.2);
  return figure;
}

}  // namespace
}  // namespace goshawk

int main(int argc, char** argv) {
  using namespace goshawk;
  return draw_figures(
      "curvature_figures", "docs/curvature/figures", argc, argv, [](const WriteFigure& write) {
        write("power_iteration", power_iteration_errors());
        write("lanczos", ritz_values());
        write("lanczos-errors", lanczos_errors());
        write("hutchinson", hutchinson_intervals());
        write("hutchinson-errors", hutchinson_errors());
        std::vector<double> decaying;
        for (int k = 0; k < 100; ++k) decaying.push_back(std::pow(0.7, k));
        write("hutchpp_and_xtrace-decaying",
              three_traces("The trace where the spectrum decays: λᵢ = 0.7ⁱ", decaying, {1e-9, 1}));
        write("hutchpp_and_xtrace-flat", three_traces("The trace where it is flat: evenly from 3 to 1",
                                                      evenly(3, 1, 100), {2e-3, 0.05}));
        write("spectral_density", density());
        write("diagonal", diagonals());
        write("exact-road", two_roads());
      });
}
