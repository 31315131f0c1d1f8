// The report's section on curvature.json: traces with both of their errors, spectral densities, the
// landscape.
#include <algorithm>
#include <cmath>
#include <filesystem>

#include "apps/report/sections.hpp"
#include "apps/support/csv_file.hpp"
#include "apps/support/figure_axis.hpp"
#include "apps/support/figure_text.hpp"
#include "core/error.hpp"

namespace goshawk {
namespace {

std::string name_of(const JsonObject& part) {
  return part.has("name") ? part.string("name") : "network";
}

std::string beside(const ReportRun& run, const std::string& name) {
  return (std::filesystem::path(run.curvature_path) / name).string();
}

// Error of the probes and that of the choice of images, which are independent.
double whole_error(const JsonObject& trace) {
  const double probes = trace.number("standard_error");
  return trace.has("image_error") ? std::hypot(probes, trace.number("image_error")) : probes;
}

double largest_of(const JsonObject& part, const char* key) {
  const nlohmann::json& values = part.json().at(key);
  check(values.is_array() && !values.empty() && values[0].is_number(),
        "[report] {}: \"{}\" must be a list of numbers", part.where(), key);
  return values[0].get<double>();
}

std::optional<ReportFigure> trace_figure(const std::vector<JsonObject>& parts) {
  FigureAxis names{.scale = AxisScale::categories};
  FigureSeries traces{.name = "trace / n ± standard error", .colour = 0, .markers = true};
  FigureSeries tops{.name = "top eigenvalue / n", .colour = 1, .markers = true, .hollow = true};
  for (const JsonObject& part : parts) {
    if (!part.has("name") || (!part.has("trace") && !part.has("top_eigenvalues"))) continue;
    const auto y = static_cast<double>(names.categories.size());
    const double n = static_cast<double>(std::max<std::int64_t>(1, part.integer("parameters")));
    names.categories.push_back(name_of(part));
    if (part.has("trace")) {
      const JsonObject trace = part.object("trace");
      const double mean = trace.number("estimate") / n, error = whole_error(trace) / n;
      traces.points.push_back({.x = mean,
                               .y = y,
                               .x_error = FigureInterval{mean - error, mean + error},
                               .tip = fmt::format("{}\ntrace / n: {} ± {}\nn: {}", name_of(part),
                                                  readable(mean), readable(error, 2), with_thousands(n))});
    }
    if (part.has("top_eigenvalues")) {
      const double top = largest_of(part, "top_eigenvalues");
      tops.points.push_back(
          {.x = top / n, .y = y, .tip = fmt::format("{}\ntop eigenvalue: {}", name_of(part), readable(top))});
    }
  }
  if (names.categories.empty()) return std::nullopt;
  Figure figure{.title = "Curvature of each layer", .x = {.scale = AxisScale::log}, .y = names};
  figure.x.label = "per weight";
  for (FigureSeries* series : {&traces, &tops}) {
    if (!series->points.empty()) figure.series.push_back(std::move(*series));
  }
  std::string caption =
      "From curvature.json. The error of a trace is that of the random probes and of the choice of pictures "
      "together.";
  caption += hidden_points(figure);
  return ReportFigure{.name = "curvature", .figure = std::move(figure), .caption = std::move(caption)};
}

ReportFigure density_figure(const ReportRun& run, const JsonObject& part, bool small) {
  const JsonObject density = part.object("density");
  const auto curve = read_csv(beside(run, density.string("curve")), "eigenvalue,density,standard_error");
  const std::string name = name_of(part);
  Figure figure{.title = "Spectral density, " + name,
                .x = {.label = "eigenvalue"},
                .y = {.label = "density (log scale)", .scale = AxisScale::log}};
  // A single eigenvalue of n, as wide as the smoothing, is this high: what is far below is the tail of the
  // smoothing, which on a log scale would fill the figure.
  const double n = static_cast<double>(std::max<std::int64_t>(1, part.integer("parameters")));
  const double smoothing = density.number("smoothing");
  const double single = 1 / (n * std::max(smoothing, 1e-300) * std::sqrt(2 * M_PI));
  double most = 0;
  FigureSeries series{.colour = 0, .line = true, .band = true};
  for (const std::vector<double>& row : curve) {
    most = std::max(most, row[1] + row[2]);
    series.points.push_back({.x = row[0],
                             .y = row[1],
                             .y_error = FigureInterval{std::max(row[1] - row[2], 0.0), row[1] + row[2]}});
  }
  figure.y.low = std::min(single, most) / 10;
  figure.y.high = std::max(most * 2, *figure.y.low * 100);
  figure.series.push_back(std::move(series));
  if (small) figure.plot_height = 130;
  return {.name = "density-" + file_name_part(name),
          .figure = std::move(figure),
          .caption = fmt::format("{}: eigenvalues from {} to {}, {} probes.", name,
                                 readable(density.number("lowest")), readable(density.number("highest")),
                                 density.integer("probes")),
          .small = small};
}

std::vector<double> numbers(const JsonObject& json, const char* key) {
  check(json.has(key) && json.json().at(key).is_array(), "[report] {}: \"{}\" must be a list of numbers",
        json.where(), key);
  std::vector<double> values;
  // A loss that overflowed is null in JSON: a gap in the line.
  for (const nlohmann::json& value : json.json().at(key)) {
    values.push_back(value.is_number() ? value.get<double>() : NAN);
  }
  return values;
}

ReportFigure landscape_lines(const JsonObject& landscape, const std::optional<double>& loss) {
  Figure figure{.title = "Loss along two directions",
                .x = {.label = "step"},
                .y = {.label = "loss (log scale)", .scale = AxisScale::log}};
  const std::vector<double> steps = numbers(landscape, "steps");
  int colour = 0;
  for (const auto& [key, name] :
       {std::pair("eigenvector", "top eigenvector"), std::pair("random", "random")}) {
    FigureSeries series{.name = name, .colour = colour++, .line = true, .markers = true};
    const std::vector<double> losses = numbers(landscape.object(key), "losses");
    for (std::size_t i = 0; i < std::min(steps.size(), losses.size()); ++i) {
      series.points.push_back(
          {.x = steps[i],
           .y = losses[i],
           .tip = fmt::format("{}, step {}\nloss {}", name, readable(steps[i]), readable(losses[i]))});
    }
    figure.series.push_back(std::move(series));
  }
  // What a second-order model expects along the eigenvector: a step of 1 raises the loss by 1.
  if (loss && landscape.object("eigenvector").number("eigenvalue") > 0) {
    FigureSeries parabola{.name = "parabola", .colour = 6, .line = true, .dashed = true};
    for (int k = -40; k <= 40; ++k) parabola.points.push_back({.x = k / 40.0, .y = *loss + k * k / 1600.0});
    figure.series.push_back(std::move(parabola));
  }
  return {.name = "landscape",
          .figure = std::move(figure),
          .caption = fmt::format(
              "A step of 1 along the top eigenvector (eigenvalue {}) would raise a parabola by 1; the random "
              "direction is scaled filter by filter to the weights.",
              readable(landscape.object("eigenvector").number("eigenvalue")))};
}

// At the round numbers of the colour bar. Between fields the logarithm of the loss is linear, as the colours
// are.
std::vector<FigureContour> loss_contours(const std::vector<std::vector<double>>& rows,
                                         const std::vector<double>& steps, double low, double high) {
  std::vector<double> values(steps.size() * steps.size(), NAN);
  const auto place = [&](double step) {
    return static_cast<std::size_t>(std::lower_bound(steps.begin(), steps.end(), step) - steps.begin());
  };
  for (const auto& row : rows) {
    const std::size_t i = place(row[0]), k = place(row[1]);
    // The plane's steps are the same along both directions.
    if (i < steps.size() && k < steps.size() && row[2] > 0) values[i * steps.size() + k] = std::log(row[2]);
  }
  std::vector<FigureContour> contours;
  if (!(high > low)) return contours;
  const AxisMap map({.scale = AxisScale::log, .low = low, .high = high}, {});
  for (const AxisTick& tick : map.ticks(6)) {
    if (tick.label.empty()) continue;
    contours.push_back({.shade = std::log(tick.value / low) / std::log(high / low),
                        .label = tick.label,
                        .lines = contour_lines(steps, steps, values, std::log(tick.value))});
  }
  return contours;
}

ReportFigure landscape_plane(const ReportRun& run, const JsonObject& landscape) {
  const auto rows = read_csv(beside(run, landscape.string("plane")), "eigenvector,random,loss");
  std::vector<double> steps;
  double low = INFINITY, high = 0;
  for (const auto& row : rows) {
    steps.push_back(row[0]);
    if (std::isfinite(row[2]) && row[2] > 0) {
      low = std::min(low, row[2]);
      high = std::max(high, row[2]);
    }
  }
  std::sort(steps.begin(), steps.end());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  check(steps.size() >= 2 && low <= high, "[report] {} has no plane of losses",
        beside(run, landscape.string("plane")));
  const double half = (steps[1] - steps[0]) / 2;
  Figure figure{
      .title = "Loss over the plane of both directions",
      .x = {.label = "along the top eigenvector", .low = steps.front() - half, .high = steps.back() + half},
      .y = {.label = "along a random direction", .low = steps.front() - half, .high = steps.back() + half},
      .colour_bar = FigureColourBar{"loss (log scale)", AxisScale::log, {low, high}}};
  const double range = high > low ? std::log(high / low) : 1;
  for (const auto& row : rows) {
    figure.cells.push_back({.x = {row[0] - half, row[0] + half},
                            .y = {row[1] - half, row[1] + half},
                            .shade = row[2] > 0 ? std::log(row[2] / low) / range : 1,
                            .tip = fmt::format("eigenvector {}, random {}\nloss {}", readable(row[0]),
                                               readable(row[1]), readable(row[2]))});
  }
  figure.contours = loss_contours(rows, steps, low, high);
  return {.name = "landscape-plane",
          .figure = std::move(figure),
          .caption = "Every field is one evaluation; lines join equal losses."};
}

}  // namespace

ReportSection curvature_section(const ReportRun& run) {
  ReportSection section{.id = "curvature", .title = "Spectrum and landscape"};
  if (!run.curvature) return section;
  const JsonObject& json = *run.curvature;
  const std::vector<JsonObject> parts = curvature_parts(run);
  section.blocks.emplace_back(ReportText{fmt::format(
      "Measured by goshawk curvature on {} pictures, mean loss {}.",
      with_thousands(static_cast<double>(json.integer("images"))), readable(json.number("loss")))});
  if (auto traces = trace_figure(parts)) section.blocks.emplace_back(std::move(*traces));
  for (const JsonObject& part : parts) {
    if (!part.has("name") && part.has("density"))
      section.blocks.emplace_back(density_figure(run, part, false));
  }
  for (const JsonObject& part : parts) {
    if (!part.has("landscape")) continue;
    const JsonObject landscape = part.object("landscape");
    section.blocks.emplace_back(landscape_lines(landscape, json.number("loss")));
    if (landscape.has("plane")) section.blocks.emplace_back(landscape_plane(run, landscape));
  }
  for (const JsonObject& part : parts) {
    if (part.has("name") && part.has("density")) section.blocks.emplace_back(density_figure(run, part, true));
  }
  return section;
}

}  // namespace goshawk
