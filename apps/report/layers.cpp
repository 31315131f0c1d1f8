// The report's section on the layers: bits, curvature, noise and Ω along the network.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "apps/report/sections.hpp"
#include "apps/reproduce_cifar/rows.hpp"
#include "apps/support/figure_text.hpp"
#include "core/error.hpp"

namespace goshawk {
namespace {

// Assignments in the order of the table, those of unknown rows last.
std::vector<std::pair<std::string, const BitAssignment*>> assignments(const ReportRun& run) {
  std::vector<std::pair<std::string, const BitAssignment*>> all;
  for (const Row& row : rows()) {
    if (const auto it = run.bits.find(row.slug); it != run.bits.end())
      all.emplace_back(it->first, &it->second);
  }
  for (const auto& [slug, bits] : run.bits) {
    const auto known = [&wanted = slug](const auto& entry) { return entry.first == wanted; };
    if (std::none_of(all.begin(), all.end(), known)) all.emplace_back(slug, &bits);
  }
  return all;
}

bool is_uniform(const BitAssignment& bits) {
  return std::all_of(bits.layers.begin(), bits.layers.end(),
                     [&](const LayerBits& layer) { return layer.weight == bits.layers.front().weight; });
}

std::optional<int> bits_of(const ReportRun& run, const std::string& slug, const std::string& layer) {
  const auto it = run.bits.find(slug);
  if (it == run.bits.end()) return std::nullopt;
  for (const LayerBits& bits : it->second.layers) {
    if (bits.name == layer) return bits.weight;
  }
  return std::nullopt;
}

// ── bits ──

std::optional<ReportFigure> bits_figure(const ReportRun& run) {
  Figure figure{.title = "Weight bits of each layer",
                .x = {.scale = AxisScale::categories},
                .y = {.scale = AxisScale::categories}};
  std::vector<std::string> uniform;
  double most = 2;
  for (const auto& [slug, bits] : assignments(run)) {
    if (bits->layers.empty()) continue;
    if (is_uniform(*bits)) {
      uniform.push_back(
          fmt::format("{}: {} bits in every layer", job_title(slug), bits->layers.front().weight));
      continue;
    }
    const auto x = static_cast<double>(figure.x.categories.size());
    figure.x.categories.push_back(job_title(slug));
    for (const LayerBits& layer : bits->layers) {
      auto& names = figure.y.categories;
      auto at = std::find(names.begin(), names.end(), layer.name);
      if (at == names.end()) at = names.insert(names.end(), layer.name);
      const auto y = static_cast<double>(at - names.begin());
      most = std::max<double>(most, layer.weight);
      figure.cells.push_back(
          {.x = {x - 0.5, x + 0.5},
           .y = {y - 0.5, y + 0.5},
           .shade = static_cast<double>(layer.weight),
           .text = std::to_string(layer.weight),
           .tip = fmt::format("{}\n{}: {} bits{}\n{} weights, {} bytes", layer.name, job_title(slug),
                              layer.weight, layer.pinned ? " (pinned)" : "",
                              with_thousands(static_cast<double>(layer.parameters)),
                              with_thousands(static_cast<double>(layer.parameters * layer.weight) / 8))});
    }
  }
  if (figure.cells.empty()) return std::nullopt;
  // From 1 bit on, evenly in the number of levels' logarithm's logarithm: 2, 4 and 8 are equally far apart.
  for (FigureCell& cell : figure.cells) cell.shade = 0.08 + 0.9 * std::log2(cell.shade) / std::log2(most);
  std::string caption = "From the first layer at the top to the last.";
  if (!uniform.empty()) caption += fmt::format(" {}.", fmt::join(uniform, "; "));
  return ReportFigure{.name = "bits", .figure = std::move(figure), .caption = std::move(caption)};
}

// ── curvature and noise ──

FigureAxis layer_axis(const Sensitivity& sensitivity) {
  FigureAxis axis{.scale = AxisScale::categories};
  for (const LayerSensitivity& layer : sensitivity.layers) axis.categories.push_back(layer.name);
  return axis;
}

ReportFigure trace_figure(const Sensitivity& sensitivity) {
  FigureSeries traces{.name = "mean trace, Tr(H)/n ± standard error", .colour = 0, .markers = true};
  FigureSeries lambdas{.name = "λ/n", .colour = 1, .markers = true, .hollow = true};
  for (std::size_t l = 0; l < sensitivity.layers.size(); ++l) {
    const LayerSensitivity& layer = sensitivity.layers[l];
    const auto n = static_cast<double>(layer.parameters);
    const double mean = layer.mean_trace(), error = layer.trace.standard_error / n;
    traces.points.push_back(
        {.x = mean,
         .y = static_cast<double>(l),
         .x_error = FigureInterval{mean - error, mean + error},
         .tip = fmt::format("{}\nTr(H)/n: {} ± {}\nTr(H): {}, n: {}", layer.name, readable(mean),
                            readable(error, 2), readable(layer.trace.value), with_thousands(n))});
    lambdas.points.push_back(
        {.x = layer.lambda_max / n,
         .y = static_cast<double>(l),
         .tip = fmt::format("{}\nλ/n: {}\nλ: {}", layer.name, readable(layer.lambda_max / n),
                            readable(layer.lambda_max))});
  }
  Figure figure{.title = "Mean trace of each layer's Hessian block",
                .x = {.label = "per weight (log scale)", .scale = AxisScale::log},
                .y = layer_axis(sensitivity),
                .series = {std::move(traces), std::move(lambdas)}};
  std::string caption = fmt::format(
      "Of the mean loss over {} training pictures. HAWQ-V2 orders the layers by the mean "
      "trace, HAWQ by λ/n, λ being the top eigenvalue.",
      with_thousands(static_cast<double>(sensitivity.images)));
  caption += hidden_points(figure);
  return {.name = "mean-trace", .figure = std::move(figure), .caption = std::move(caption)};
}

// The row whose bits the noise figure rings: the last one that chose its bits by HAWQ or HAWQ-V2.
std::string ringed_row(const ReportRun& run) {
  for (const char* slug : {"hawq-v2", "hawq"}) {
    if (run.bits.contains(slug)) return slug;
  }
  return "";
}

ReportFigure noise_figure(const ReportRun& run) {
  const Sensitivity& sensitivity = *run.sensitivity;
  const std::string ringed = ringed_row(run);
  std::set<int> widths;
  for (const LayerSensitivity& layer : sensitivity.layers) {
    for (const auto& [bits, norm] : layer.perturbation) widths.insert(bits);
  }
  Figure figure{.title = "Quantization noise of each layer",
                .x = {.label = "‖Q(W) − W‖² (log scale)", .scale = AxisScale::log},
                .y = layer_axis(sensitivity)};
  int colour = 0;
  for (const int width : widths) {
    FigureSeries series{.name = fmt::format("{} bits", width),
                        .colour = colour % kFigureColours,
                        .markers = true,
                        .hollow = colour >= kFigureColours};
    ++colour;
    for (std::size_t l = 0; l < sensitivity.layers.size(); ++l) {
      const LayerSensitivity& layer = sensitivity.layers[l];
      const auto it = layer.perturbation.find(width);
      if (it == layer.perturbation.end()) continue;
      const bool chosen = bits_of(run, ringed, layer.name) == width;
      series.points.push_back(
          {.x = it->second,
           .y = static_cast<double>(l),
           .tip = fmt::format("{}\n{} bits{}\n‖Q(W) − W‖²: {}\nper weight: {}", layer.name, width,
                              chosen ? fmt::format(" ({})", job_title(ringed)) : "", readable(it->second),
                              readable(it->second / static_cast<double>(layer.parameters))),
           .emphasised = chosen});
    }
    figure.series.push_back(std::move(series));
  }
  std::string caption = fmt::format("Quantizer: {}.", sensitivity.quantizer);
  if (!ringed.empty())
    caption += fmt::format(" Ringed: the bits that {} gives the layer.", job_title(ringed));
  return {.name = "noise", .figure = std::move(figure), .caption = std::move(caption)};
}

// ── Ω ──

// What a layer costs at some bits by one sensitivity; nothing when it is not known. Runs of earlier versions
// have no costs, and Ω is what the two papers make of curvature and noise.
std::optional<double> omega_of(const ReportRun& run, const std::string& costs, const std::string& layer,
                               int bits) {
  if (const auto it = run.costs.find(costs); it != run.costs.end()) {
    for (const LayerCosts& known : it->second.layers) {
      if (known.name != layer) continue;
      for (const CostChoice& choice : known.choices) {
        if (choice.bits == bits) return choice.cost;
      }
    }
    return std::nullopt;
  }
  if (!run.sensitivity || (costs != "hawq" && costs != "hawq-v2")) return std::nullopt;
  for (const LayerSensitivity& known : run.sensitivity->layers) {
    const auto noise = known.perturbation.find(bits);
    if (known.name != layer || noise == known.perturbation.end()) continue;
    return (costs == "hawq" ? known.lambda_max : known.mean_trace()) * noise->second;
  }
  return std::nullopt;
}

std::string omega_meaning(const std::string& costs) {
  if (costs == "hawq") return "Ω: top eigenvalue times ‖Q(W) − W‖².";
  if (costs == "hawq-v2") return "Ω: mean trace times ‖Q(W) − W‖².";
  return fmt::format("Ω: cost by the sensitivity {}.", costs);
}

// What every width would cost in each layer of the one model, with the chosen one ringed.
std::optional<ReportFigure> cost_figure(const ReportRun& run) {
  const auto it = run.costs.find(run.model_costs);
  if (it == run.costs.end()) return std::nullopt;
  Figure figure{.title = "Cost of each layer at every width",
                .x = {.label = fmt::format("{} (log scale)", run.model_costs), .scale = AxisScale::log},
                .y = {.scale = AxisScale::categories}};
  std::map<int, FigureSeries> series;  // by width
  for (const LayerCosts& layer : it->second.layers) {
    const auto y = static_cast<double>(figure.y.categories.size());
    figure.y.categories.push_back(layer.name);
    const std::optional<int> taken = bits_of(run, kModelJob, layer.name);
    for (const CostChoice& choice : layer.choices) {
      const bool chosen = taken == choice.bits;
      series[choice.bits].points.push_back(
          {.x = choice.cost,
           .y = y,
           .tip = fmt::format("{}\n{} bits{}\ncost: {}\n{} bytes", layer.name, choice.bits,
                              !chosen        ? ""
                              : layer.pinned ? " (pinned)"
                                             : " (chosen)",
                              readable(choice.cost), with_thousands(choice.bytes)),
           .emphasised = chosen});
    }
  }
  for (auto& [width, points] : series) {
    points.name = fmt::format("{} bits", width);
    const auto colour = static_cast<int>(figure.series.size());
    points.colour = colour % kFigureColours;
    points.markers = true;
    points.hollow = colour >= kFigureColours;
    figure.series.push_back(std::move(points));
  }
  const bool of_the_papers = run.model_costs == "hawq" || run.model_costs == "hawq-v2";
  std::string caption = of_the_papers ? omega_meaning(run.model_costs)
                                      : fmt::format("What the sensitivity {} expects.", run.model_costs);
  if (run.bits.contains(kModelJob)) caption += " Ringed: the bits that the layer got.";
  if (!it->second.pairs.empty()) caption += " What pairs of layers cost together comes on top.";
  caption += hidden_points(figure);
  return ReportFigure{.name = "costs", .figure = std::move(figure), .caption = std::move(caption)};
}

// Ω of every layer at the bits of a row.
FigureSeries omega_series(const ReportRun& run, const std::string& costs, const std::string& slug,
                          const BitAssignment& bits) {
  FigureSeries series{.name = fmt::format("at the bits of {}", job_title(slug)), .markers = true};
  for (std::size_t l = 0; l < bits.layers.size(); ++l) {
    const LayerBits& layer = bits.layers[l];
    const auto omega = omega_of(run, costs, layer.name, layer.weight);
    if (!omega) continue;
    series.points.push_back({.x = *omega,
                             .y = static_cast<double>(l),
                             .tip = fmt::format("{}\n{} at {} bits\nΩ: {}", layer.name, job_title(slug),
                                                layer.weight, readable(*omega))});
  }
  return series;
}

// Ω of every layer at the fewest bits that it could have.
FigureSeries least_omega_series(const ReportRun& run, const std::string& costs, const BitAssignment& bits) {
  FigureSeries series{.name = "at the fewest bits", .colour = 6, .markers = true, .hollow = true};
  for (std::size_t l = 0; l < bits.layers.size(); ++l) {
    const std::string& name = bits.layers[l].name;
    for (int width = 1; width <= 8; ++width) {
      const auto omega = omega_of(run, costs, name, width);
      if (!omega) continue;
      series.points.push_back({.x = *omega,
                               .y = static_cast<double>(l),
                               .tip = fmt::format("{}\n{} bits\nΩ: {}", name, width, readable(*omega))});
      break;
    }
  }
  return series;
}

bool same_bits(const BitAssignment& a, const BitAssignment& b) {
  return std::equal(
      a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(),
      [](const LayerBits& x, const LayerBits& y) { return x.name == y.name && x.weight == y.weight; });
}

// One figure for all rows whose bits come from the same costs.
std::optional<ReportFigure> omega_figure(const ReportRun& run, const std::string& costs) {
  Figure figure{.title = fmt::format("Ω of each layer, by {}", job_title(costs)),
                .x = {.label = "Ω (log scale)", .scale = AxisScale::log},
                .y = {.scale = AxisScale::categories}};
  std::string caption = omega_meaning(costs);
  std::vector<std::pair<std::string, const BitAssignment*>> shown;
  for (const auto& [slug, bits] : assignments(run)) {
    if (run.costs_of(slug) != costs) continue;
    // Marks in the same places would hide each other.
    const auto twin = std::find_if(shown.begin(), shown.end(), [&, &known = *bits](const auto& row) {
      return same_bits(*row.second, known);
    });
    if (twin != shown.end()) {
      caption += fmt::format(" {} has the bits of {}.", job_title(slug), job_title(twin->first));
      continue;
    }
    FigureSeries series = omega_series(run, costs, slug, *bits);
    if (series.points.empty()) continue;
    series.colour = static_cast<int>(shown.size());
    if (shown.empty()) {
      for (const LayerBits& layer : bits->layers) figure.y.categories.push_back(layer.name);
      figure.series.push_back(least_omega_series(run, costs, *bits));
    }
    shown.emplace_back(slug, bits);
    figure.series.push_back(std::move(series));
  }
  if (shown.empty()) return std::nullopt;
  caption += hidden_points(figure);
  return ReportFigure{
      .name = "omega-" + file_name_part(costs), .figure = std::move(figure), .caption = std::move(caption)};
}

// ── fine-tuning order ──

std::optional<ReportFigure> order_figure(const ReportRun& run) {
  Figure figure{.title = "Stage in which each layer becomes quantized",
                .x = {.scale = AxisScale::categories},
                .y = {.scale = AxisScale::categories}};
  for (const auto& [slug, bits] : assignments(run)) {
    const auto order = run.orders.find(slug);
    if (order == run.orders.end() || order->second.size() < 2) continue;
    const auto x = static_cast<double>(figure.x.categories.size());
    const double last = static_cast<double>(order->second.size()) - 1;
    if (figure.y.categories.empty()) {
      for (const LayerBits& layer : bits->layers) figure.y.categories.push_back(layer.name);
    }
    bool any = false;
    for (std::size_t stage = 0; stage < order->second.size(); ++stage) {
      for (const std::string& layer : order->second[stage]) {
        const auto at = std::find(figure.y.categories.begin(), figure.y.categories.end(), layer);
        if (at == figure.y.categories.end()) continue;
        const auto y = static_cast<double>(at - figure.y.categories.begin());
        figure.cells.push_back({.x = {x - 0.5, x + 0.5},
                                .y = {y - 0.5, y + 0.5},
                                .shade = 0.15 + 0.8 * static_cast<double>(stage) / last,
                                .text = std::to_string(stage + 1),
                                .tip = fmt::format("{}\n{}: stage {} of {}", layer, job_title(slug),
                                                   stage + 1, order->second.size())});
        any = true;
      }
    }
    if (any) figure.x.categories.push_back(job_title(slug));
  }
  if (figure.cells.empty()) return std::nullopt;
  return ReportFigure{.name = "order",
                      .figure = std::move(figure),
                      .caption = fmt::format(
                          "Fine-tuning begins with the layers of stage 1 quantized{}.",
                          !run.one_model ? ", those whose Ω is largest (smallest where the order is reversed)"
                          : !run.model_costs.empty() ? ", those that cost most"
                                                     : "")};
}

// ── table ──

// Rows that do not give all layers the same bits.
std::vector<std::string> mixed_rows(const ReportRun& run) {
  std::vector<std::string> slugs;
  for (const auto& [slug, bits] : assignments(run)) {
    if (!is_uniform(*bits)) slugs.push_back(slug);
  }
  return slugs;
}

// More of them would make the table of the layers too wide to read; only the papers' two methods stay in it.
constexpr std::size_t kMostColumns = 3;

ReportTable layer_table(const ReportRun& run) {
  ReportTable table{.caption = "All numbers of the layers", .folded = true};
  std::vector<std::string> slugs = mixed_rows(run);
  if (slugs.size() > kMostColumns) {
    std::erase_if(slugs, [](const std::string& slug) { return slug != "hawq" && slug != "hawq-v2"; });
  }
  std::vector<std::string> head{"layer", "n", "λ", "residual", "Tr(H)", "± error", "samples", "Tr(H)/n"};
  for (const std::string& slug : slugs) {
    head.push_back(job_title(slug) + " bits");
    if (!run.costs_of(slug).empty()) head.push_back(job_title(slug) + " Ω");
  }
  table.rows.push_back(std::move(head));
  for (const LayerSensitivity& layer : run.sensitivity->layers) {
    std::vector<std::string> line{layer.name,
                                  with_thousands(static_cast<double>(layer.parameters)),
                                  readable(layer.lambda_max),
                                  readable(layer.lambda_residual, 2),
                                  readable(layer.trace.value),
                                  readable(layer.trace.standard_error, 2),
                                  std::to_string(layer.trace.samples),
                                  readable(layer.mean_trace())};
    for (const std::string& slug : slugs) {
      const auto bits = bits_of(run, slug, layer.name);
      line.push_back(bits ? std::to_string(*bits) : "-");
      if (run.costs_of(slug).empty()) continue;
      const auto omega = bits ? omega_of(run, run.costs_of(slug), layer.name, *bits) : std::nullopt;
      line.push_back(omega ? readable(*omega) : "-");
    }
    table.rows.push_back(std::move(line));
  }
  return table;
}

// Each row's bits from the first layer to the last, where the table of the layers has no room for all.
std::optional<ReportTable> rows_bits_table(const ReportRun& run) {
  const std::vector<std::string> slugs = mixed_rows(run);
  if (slugs.size() <= kMostColumns) return std::nullopt;
  ReportTable table{
      .rows = {{"quantization", "bytes of the weights", "bits, from the first layer to the last"}},
      .caption = "Weight bits of each row",
      .folded = true};
  for (const std::string& slug : slugs) {
    const BitAssignment& bits = run.bits.at(slug);
    std::vector<int> widths;
    for (const LayerBits& layer : bits.layers) widths.push_back(layer.weight);
    table.rows.push_back({job_title(slug), with_thousands(size_report(bits).weight_bytes()),
                          fmt::format("{}", fmt::join(widths, " "))});
  }
  return table;
}

// Of one model: what its layers got and what every width would have cost.
ReportTable bits_table(const ReportRun& run, const BitAssignment& bits) {
  ReportTable table{.rows = {{"layer", "n", "w-bits", "a-bits", "bytes"}},
                    .caption = "All numbers of the layers",
                    .folded = true};
  std::set<int> widths;
  if (const auto it = run.costs.find(run.model_costs); it != run.costs.end()) {
    for (const LayerCosts& layer : it->second.layers) {
      for (const CostChoice& choice : layer.choices) widths.insert(choice.bits);
    }
  }
  for (const int width : widths) table.rows[0].push_back(fmt::format("cost at {}", width));
  for (const LayerBits& layer : bits.layers) {
    const auto n = static_cast<double>(layer.parameters);
    const bool first = &layer == &bits.layers.front();
    std::vector<std::string>& line = table.rows.emplace_back(std::vector<std::string>{
        layer.name, with_thousands(n), fmt::format("{}{}", layer.weight, layer.pinned ? " (pinned)" : ""),
        std::to_string(first ? picture_bits(layer.activation) : layer.activation),
        with_thousands(n * layer.weight / 8)});
    for (const int width : widths) {
      const auto cost = omega_of(run, run.model_costs, layer.name, width);
      line.push_back(cost ? readable(*cost) : "-");
    }
  }
  return table;
}

std::string how_bits_were_chosen(const ReportRun& run, const BitAssignment& bits) {
  std::string text = fmt::format("Bits by {}", bits.method);
  if (bits.budget_bytes > 0)
    text += fmt::format(", within {} bytes of weights", with_thousands(bits.budget_bytes));
  text += fmt::format("; they take {}.", with_thousands(size_report(bits).weight_bytes()));
  const auto order = run.orders.find(kModelJob);
  if (order != run.orders.end() && order->second.size() < 2) text += " All layers were quantized at once.";
  return text;
}

ReportSection one_model_section(const ReportRun& run) {
  ReportSection section{.id = "layers", .title = "Layer by layer"};
  const auto it = run.bits.find(kModelJob);
  const bool known = it != run.bits.end() && !it->second.layers.empty();
  if (known) section.blocks.emplace_back(ReportText{how_bits_were_chosen(run, it->second)});
  for (auto& figure : {bits_figure(run), cost_figure(run), order_figure(run)}) {
    if (figure) section.blocks.emplace_back(*figure);
  }
  if (known) section.blocks.emplace_back(bits_table(run, it->second));
  return section;
}

}  // namespace

ReportSection layers_section(const ReportRun& run) {
  if (run.one_model) return one_model_section(run);
  ReportSection section{.id = "layers", .title = "Layer by layer"};
  const auto add = [&](std::optional<ReportFigure> figure) {
    if (figure) section.blocks.emplace_back(std::move(*figure));
  };
  add(bits_figure(run));
  if (run.sensitivity && !run.sensitivity->layers.empty()) {
    add(trace_figure(*run.sensitivity));
    add(noise_figure(run));
  }
  std::set<std::string> shown;
  for (const auto& [slug, bits] : assignments(run)) {
    const std::string costs = run.costs_of(slug);
    if (!costs.empty() && shown.insert(costs).second) add(omega_figure(run, costs));
  }
  add(order_figure(run));
  if (run.sensitivity && !run.sensitivity->layers.empty()) section.blocks.emplace_back(layer_table(run));
  if (auto table = rows_bits_table(run)) section.blocks.emplace_back(std::move(*table));
  return section;
}

}  // namespace goshawk
