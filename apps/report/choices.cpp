// The report's figure of the choices of bits at one size: what each is worth before and after fine-tuning.
#include <algorithm>
#include <map>
#include <utility>

#include "apps/report/sections.hpp"
#include "apps/support/figure_text.hpp"

namespace goshawk {
namespace {

struct Choice {
  const ReportRow* row;
  const BitAssignment* bits;
};

/// The rows whose bits were chosen for one and the same budget; where there are several budgets, for that of
/// most rows. The best before fine-tuning first.
std::vector<Choice> choices_of_one_size(const ReportRun& run) {
  std::map<double, std::vector<Choice>> by_budget;
  for (const ReportRow& row : run.rows) {
    const auto it = run.bits.find(row.slug);
    if (!row.untuned || it == run.bits.end() || it->second.budget_bytes <= 0) continue;
    by_budget[it->second.budget_bytes].push_back({&row, &it->second});
  }
  std::vector<Choice> most;
  for (auto& [budget, choices] : by_budget) {
    if (choices.size() > most.size()) most = std::move(choices);
  }
  std::stable_sort(most.begin(), most.end(),
                   [](const Choice& a, const Choice& b) { return *a.row->untuned > *b.row->untuned; });
  return most;
}

/// The same training without quantization: what the choices can be expected to reach.
const ReportRow* unquantized(const ReportRun& run) {
  const auto it = std::find_if(run.rows.begin(), run.rows.end(), [](const ReportRow& row) {
    return row.untuned && row.slug != kBaselineJob && row.weight_compression == 1 &&
           row.activation_compression == 1;
  });
  return it == run.rows.end() ? nullptr : &*it;
}

std::string tip_of(const ReportRow& row, const BitAssignment* bits) {
  std::string tip =
      fmt::format("{}\nbefore: {:.2f} %\nafter: {:.2f} ± {:.2f} %, {} seed{}", row.name, *row.untuned,
                  row.accuracy, 2 * row.spread(), row.seeds, row.seeds == 1 ? "" : "s");
  if (bits == nullptr) return tip;
  std::vector<std::string> layers;
  std::vector<int> widths;
  for (const LayerBits& layer : bits->layers) {
    layers.push_back(layer.name);
    widths.push_back(layer.weight);
  }
  return tip + fmt::format("\nweights smaller by {:.2f}", row.weight_compression) +
         assignment_text(layers, widths);
}

}  // namespace

std::optional<ReportFigure> choices_figure(const ReportRun& run) {
  const std::vector<Choice> choices = choices_of_one_size(run);
  if (choices.size() < 2) return std::nullopt;
  const ReportRow* const reference = unquantized(run);
  Figure before{.title = "Before fine-tuning",
                .x = {.label = "percent of the test pictures"},
                .y = {.scale = AxisScale::categories},
                .plot_height = 22.0 * static_cast<double>(choices.size() + (reference == nullptr ? 0 : 1))};
  Figure after = before;
  after.title = "After fine-tuning";
  FigureSeries quantized{.colour = 0, .markers = true}, full{.colour = 6, .markers = true, .hollow = true};
  Figure figure{
      .title = fmt::format("{} rows with bits for one size, before and after fine-tuning", choices.size())};
  figure.series = {quantized};
  figure.series[0].name = "bits within the same budget";
  if (reference != nullptr) {
    figure.series.push_back(full);
    figure.series[1].name = "as many epochs without quantization";
  }
  const ReportRow* const baseline = run.baseline();
  if (baseline != nullptr) figure.rules.push_back({.value = baseline->accuracy, .name = "baseline"});

  for (Figure* panel : {&before, &after}) {
    FigureSeries these = quantized, reached = full;
    const auto add = [&](FigureSeries& to, const ReportRow& row, const BitAssignment* bits) {
      FigurePoint& point = to.points.emplace_back();
      point.y = static_cast<double>(panel->y.categories.size());
      point.tip = tip_of(row, bits);
      if (panel == &before) {
        point.x = *row.untuned;
      } else {
        point.x = row.accuracy;
        point.x_error = FigureInterval{row.accuracy - 2 * row.spread(), row.accuracy + 2 * row.spread()};
      }
      panel->y.categories.push_back(row.name);
    };
    for (const Choice& choice : choices) add(these, *choice.row, choice.bits);
    if (reference != nullptr) add(reached, *reference, nullptr);
    panel->series = {std::move(these)};
    if (reference != nullptr) panel->series.push_back(std::move(reached));
    if (baseline != nullptr) panel->rules.push_back({.vertical = true, .value = baseline->accuracy});
  }
  figure.panels = {std::move(before), std::move(after)};
  return ReportFigure{
      .name = "choices",
      .figure = std::move(figure),
      .caption =
          "The best before fine-tuning on top, in both panels; their scales differ. Bars: two standard "
          "deviations, from the choice of test pictures and between seeds. The rows see the same pictures, "
          "so "
          "that a difference of two is known better than either. Hover a point to see its bits."};
}

}  // namespace goshawk
