// The report's sections on predict_loss: how well each sensitivity ranks assignments, and all of these.
#include <algorithm>
#include <cmath>
#include <limits>

#include "apps/report/sections.hpp"
#include "apps/support/figure_text.hpp"

namespace goshawk {
namespace {

struct PredictorTitle {
  const char* name;
  const char* title;
  bool loss;  ///< in units of the loss, so that it can be compared with the truth not by order alone
};

constexpr PredictorTitle kTitles[] = {{"delta-norm", "‖ΔW‖²", false},
                                      {"snr", "SNR", false},
                                      {"loss-change", "each layer alone", true},
                                      {"hawq", "λ", false},
                                      {"hawq-s", "λ/n", false},
                                      {"hawq-v2", "mean trace", false},
                                      {"hawq-v2-hutchinson", "trace, Hutchinson", false},
                                      {"fisher", "Fisher", true},
                                      {"exact-quadratic", "exact quadratic", true},
                                      {"exact-taylor", "exact Taylor", true},
                                      {"joint", "joint", true},
                                      {"mean-bits", "bits alone (floor)", false},
                                      {"true-on-calibration", "truth (ceiling)", true}};

const PredictorTitle* known_title(const std::string& name) {
  const auto* it =
      std::find_if(std::begin(kTitles), std::end(kTitles), [&](const auto& t) { return t.name == name; });
  return it == std::end(kTitles) ? nullptr : it;
}

std::string text_of(const ReportCorrelation& c) {
  return fmt::format("{:.2f} [{:.2f}, {:.2f}]", c.value, c.low, c.high);
}

// "2, 3, 4" of "2,3,4".
std::string spaced(const std::string& widths) {
  std::string text;
  for (const char c : widths) text += c == ',' ? std::string(", ") : std::string(1, c);
  return text;
}

// "512 pictures of the train split".
std::string pictures(std::int64_t count, const std::string& split, const char* otherwise) {
  const std::string number = with_thousands(static_cast<double>(count));
  return split.empty() ? fmt::format("{} {}", number, otherwise)
                       : fmt::format("{} pictures of the {} split", number, split);
}

// Whether the best one of its set is not known to be better.
bool is_among_the_best(const ReportPredictor& predictor) {
  return predictor.behind && predictor.behind->low <= 0;
}

const ReportPredictor& best_of(const ReportPredictionSet& set) {
  return *std::max_element(set.measured.begin(), set.measured.end(),
                           [](const auto& a, const auto& b) { return a.held_out.value < b.held_out.value; });
}

// ── rank correlations ──

// The sensitivities, best first, between what bounds them.
std::vector<const ReportPredictor*> shown(const ReportPredictions& predictions,
                                          const ReportPredictionSet& set) {
  std::vector<const ReportPredictor*> all{&set.true_other};
  for (const std::string& name : predictions.ranking) all.push_back(set.predictor(name));
  all.push_back(&set.narrowness);
  std::erase(all, nullptr);
  return all;
}

Figure correlation_panel(const ReportPredictions& predictions, const ReportPredictionSet& set, double low) {
  Figure panel{.title = fmt::format("Widths {}", spaced(set.widths)),
               .x = {.label = "rank correlation (Spearman)", .low = low, .high = 1.02},
               .y = {.scale = AxisScale::categories}};
  FigureSeries held_out{.colour = 0, .markers = true},
      calibration{.colour = 1, .markers = true, .hollow = true};
  FigureSeries bounds{.colour = 6, .markers = true};
  for (const ReportPredictor* predictor : shown(predictions, set)) {
    const auto row = static_cast<double>(panel.y.categories.size());
    const bool is_bound = predictor == &set.true_other || predictor == &set.narrowness;
    panel.y.categories.push_back(predictor_title(predictor->name));
    const auto point = [&](const ReportCorrelation& c, double dy, const char* on) {
      return FigurePoint{.x = c.value,
                         .y = row + dy,
                         .x_error = FigureInterval{c.low, c.high},
                         .tip = fmt::format("{} ({}), widths {}\n{}: {}", predictor_title(predictor->name),
                                            predictor->name, spaced(set.widths), on, text_of(c))};
    };
    FigurePoint& there = (is_bound ? bounds : held_out)
                             .points.emplace_back(point(predictor->held_out, -0.17, "held-out pictures"));
    if (is_among_the_best(*predictor)) there.emphasised = true;
    if (predictor->behind) there.tip += fmt::format("\nbehind the best: {}", text_of(*predictor->behind));
    // The truth predicts itself.
    if (predictor != &set.true_other)
      calibration.points.push_back(point(predictor->calibration, 0.17, "calibration pictures"));
    if (is_bound) panel.rules.push_back({.vertical = true, .value = predictor->held_out.value});
  }
  panel.series = {std::move(calibration), std::move(held_out), std::move(bounds)};
  panel.plot_height = 24.0 * static_cast<double>(panel.y.categories.size());
  return panel;
}

ReportFigure correlation_figure(const ReportPredictions& predictions) {
  double low = 0;
  for (const ReportPredictionSet& set : predictions.sets) {
    for (const ReportPredictor* predictor : shown(predictions, set))
      low = std::min({low, predictor->held_out.low, predictor->calibration.low});
  }
  Figure figure{.title = "Predicted against true loss change: rank correlation",
                .series = {{.name = "held-out pictures", .colour = 0, .markers = true},
                           {.name = "the pictures that the costs were measured on",
                            .colour = 1,
                            .markers = true,
                            .hollow = true},
                           {.name = "floor and ceiling", .colour = 6, .markers = true}}};
  bool compared = false;
  for (const ReportPredictionSet& set : predictions.sets) {
    figure.panels.push_back(correlation_panel(predictions, set, low < 0 ? low - 0.02 : 0));
    for (const ReportPredictor& predictor : set.measured) compared = compared || predictor.behind;
  }
  figure.columns = figure.panels.size() > 1 ? 2 : 1;
  std::string caption = fmt::format(
      "Further right is better. Bars: {:g} % bootstrap intervals over the assignments. Dashed, on the "
      "held-out "
      "pictures: the floor is what the number of bits alone would have told; the ceiling is the true change "
      "on "
      "the calibration pictures, and the choice of pictures is all that separates it from 1. The "
      "sensitivities "
      "stand in the order of their mean over the panels.",
      100 * predictions.interval);
  if (compared) {
    caption += fmt::format(
        " Ringed: the best of a panel, and those behind it by no more than chance (the difference on the "
        "same "
        "assignments, {:g} % interval, each by itself).",
        100 * predictions.interval);
  }
  return {.name = "correlations", .figure = std::move(figure), .caption = std::move(caption)};
}

std::string winner(const ReportPredictionSet& set) {
  const ReportPredictor& best = best_of(set);
  std::string text = fmt::format("Widths {}: {} ranks best, {}.", spaced(set.widths),
                                 predictor_title(best.name), text_of(best.held_out));
  if (!best.behind) return text;
  std::string equals;
  for (const ReportPredictor& predictor : set.measured) {
    if (&predictor == &best || !is_among_the_best(predictor)) continue;
    equals += (equals.empty() ? "" : ", ") + predictor_title(predictor.name);
  }
  return text + (equals.empty() ? " All others are behind it."
                                : fmt::format(" Not told apart from it: {}.", equals));
}

ReportTable correlation_table(const ReportPredictions& predictions, ReportCorrelation ReportPredictor::*where,
                              std::string caption) {
  ReportTable table{.rows = {{"predicted by", "--cost"}}, .caption = std::move(caption), .folded = true};
  for (const ReportPredictionSet& set : predictions.sets) {
    table.rows[0].push_back(spaced(set.widths));
    std::size_t r = 0;
    for (const ReportPredictor* predictor : shown(predictions, set)) {
      if (++r == table.rows.size()) {
        const bool is_cost = predictor != &set.true_other && predictor != &set.narrowness;
        table.rows.push_back({predictor_title(predictor->name), is_cost ? predictor->name : "-"});
      }
      table.rows[r].push_back(text_of(predictor->*where));
    }
  }
  return table;
}

// ── every assignment ──

/// An axis of a scatter plot, and where its values are on it.
struct ScatterAxis {
  FigureAxis axis;
  std::size_t at_edge = 0;  ///< values that are not positive, on a logarithmic axis

  ScatterAxis(const std::vector<double>& values, const std::string& label) {
    double least = INFINITY, least_positive = INFINITY, most = -INFINITY;
    for (const double value : values) {
      least = std::min(least, value);
      most = std::max(most, value);
      if (value > 0) least_positive = std::min(least_positive, value);
      at_edge += value > 0 ? 0 : 1;
    }
    // Orders of magnitude need a logarithm; a few values without one can stand at the edge.
    const bool log = at_edge * 10 <= values.size() && most >= 5 * least_positive;
    axis = {.label = label + (log ? " (log scale)" : ""), .scale = log ? AxisScale::log : AxisScale::linear};
    if (log) {
      const double margin = std::pow(most / least_positive, 0.06);
      axis.low = least_positive / margin / (at_edge > 0 ? margin : 1);
      axis.high = most * margin;
    } else {
      const double margin = 0.05 * std::max(most - least, std::numeric_limits<double>::min());
      axis.low = least - margin;
      axis.high = most + margin;
      at_edge = 0;
    }
  }
  bool is_log() const { return axis.scale == AxisScale::log; }
  bool cuts(double value) const { return is_log() && value <= 0; }
  double place(double value) const { return cuts(value) ? *axis.low : value; }
};

Figure scatter_panel(const ReportPredictionSet& set, const ReportPredictor& predictor,
                     const ScatterAxis& truth) {
  const bool is_bound = &predictor == &set.true_other || &predictor == &set.narrowness;
  const char* label = &predictor == &set.narrowness   ? "mean bits"
                      : &predictor == &set.true_other ? "true on calibration pictures"
                                                      : "predicted";
  const ScatterAxis x(predictor.predicted, label);
  Figure panel{.title = fmt::format("{}: {}", predictor_title(predictor.name), text_of(predictor.held_out)),
               .x = x.axis,
               .y = truth.axis,
               .plot_height = 190};
  const int colour = is_bound ? 6 : 0;
  FigureSeries points{.colour = colour, .markers = true},
      edge{.colour = colour, .markers = true, .hollow = true};
  for (std::size_t d = 0; d < set.draws(); ++d) {
    const double predicted = predictor.predicted[d], true_change = set.true_held_out[d];
    (x.cuts(predicted) || truth.cuts(true_change) ? edge : points)
        .points.push_back(
            {.x = x.place(predicted),
             .y = truth.place(true_change),
             .tip = fmt::format("{} {}, true {}", label, readable(predicted), readable(true_change)),
             .note = d});
  }
  // Where prediction and truth are equal; through what both axes show.
  const PredictorTitle* title = known_title(predictor.name);
  if (title != nullptr && title->loss) {
    const double from = std::max(*x.axis.low, *truth.axis.low), to = std::min(*x.axis.high, *truth.axis.high);
    FigureSeries equal{.colour = 1, .line = true, .dashed = true};
    for (int k = 0; from < to && k <= 40; ++k) {
      const double at = x.is_log() ? from * std::pow(to / from, k / 40.0) : from + (to - from) * k / 40;
      equal.points.push_back({.x = at, .y = at});
    }
    if (!equal.points.empty()) panel.series.push_back(std::move(equal));
  }
  for (FigureSeries* series : {&points, &edge}) {
    if (!series->points.empty()) panel.series.push_back(std::move(*series));
  }
  return panel;
}

ReportFigure scatter_figure(const ReportPredictions& predictions, const ReportPredictionSet& set) {
  const ScatterAxis truth(set.true_held_out, "true loss change");
  Figure figure{.title = fmt::format("Widths {}", spaced(set.widths)),
                .series = {{.name = "an assignment", .colour = 0, .markers = true},
                           {.name = "floor and ceiling", .colour = 6, .markers = true},
                           {.name = "as predicted", .colour = 1, .line = true, .dashed = true}},
                .columns = 3};
  bool edge = truth.at_edge > 0;
  for (const ReportPredictor* predictor : shown(predictions, set)) {
    edge = edge || ScatterAxis(predictor->predicted, "").at_edge > 0;
    figure.panels.push_back(scatter_panel(set, *predictor, truth));
  }
  for (std::size_t d = 0; d < set.draws(); ++d) {
    const std::string size =
        set.bytes.empty() ? "" : fmt::format("{} bytes of weights, ", with_thousands(set.bytes[d]));
    figure.notes.push_back(fmt::format("{}{:.2f} bits a weight{}", size, set.mean_bits[d],
                                       assignment_text(predictions.layers, set.bits[d])));
  }
  std::string caption = fmt::format(
      "{} random assignments on the held-out pictures, and Spearman's rank correlation [{:g} % interval]. "
      "Hover "
      "a point to see its assignment.",
      set.draws(), 100 * predictions.interval);
  if (edge) caption += " Hollow, at an axis: a value that is not above zero, which has no logarithm.";
  return {.name = "predicted-" + file_name_part(set.widths),
          .figure = std::move(figure),
          .caption = std::move(caption)};
}

}  // namespace

std::string predictor_title(const std::string& name) {
  const PredictorTitle* known = known_title(name);
  return known == nullptr ? name : known->title;
}

ReportSection ranking_section(const ReportRun& run) {
  ReportSection section{.id = "ranking", .title = "Who predicts best?"};
  if (!run.predictions) return section;
  const ReportPredictions& predictions = *run.predictions;
  section.blocks.emplace_back(ReportText{
      fmt::format("Random assignments draw every layer's width from a set of widths, and the weights are "
                  "rounded to them. What "
                  "that does to the mean loss before any fine-tuning is predicted from costs measured on {} "
                  "(loss {}), and "
                  "measured on {} (loss {}).",
                  pictures(predictions.calibration_images, predictions.calibration_split, "pictures"),
                  readable(predictions.calibration_loss),
                  pictures(predictions.held_out_images, predictions.held_out_split, "others"),
                  readable(predictions.held_out_loss))});
  section.blocks.emplace_back(correlation_figure(predictions));
  ReportList winners;
  for (const ReportPredictionSet& set : predictions.sets) winners.items.push_back(winner(set));
  section.blocks.emplace_back(std::move(winners));
  section.blocks.emplace_back(correlation_table(predictions, &ReportPredictor::held_out,
                                                "Rank correlation on the held-out pictures"));
  section.blocks.emplace_back(
      correlation_table(predictions, &ReportPredictor::calibration,
                        "Rank correlation on the pictures that the costs were measured on"));
  return section;
}

ReportSection predictions_section(const ReportRun& run) {
  ReportSection section{.id = "predictions", .title = "Predicted against true"};
  if (!run.predictions) return section;
  for (const ReportPredictionSet& set : run.predictions->sets)
    section.blocks.emplace_back(scatter_figure(*run.predictions, set));
  return section;
}

}  // namespace goshawk
