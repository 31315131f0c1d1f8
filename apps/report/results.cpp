// The report's sections on results: the table against the paper, the frontier, sizes, training.
#include <algorithm>
#include <cmath>
#include <map>

#include "apps/report/sections.hpp"
#include "apps/support/figure_text.hpp"

namespace goshawk {
namespace {

/// More points of a frontier than could be told apart are thinned, and sooner in deep networks, where the
/// assignment of each is a long text.
std::size_t most_frontier_points(std::size_t layers) {
  return std::clamp<std::size_t>(5000 / std::max<std::size_t>(layers, 1), 80, 200);
}

std::string ratio(double value) {
  return fmt::format("{:.2f}×", value);
}

double weights_of(const BitAssignment& bits) {
  double n = 0;
  for (const LayerBits& layer : bits.layers) n += static_cast<double>(layer.parameters);
  return n;
}

// ── the table ──

ReportTable main_table(const ReportRun& run) {
  const bool paper = std::any_of(run.rows.begin(), run.rows.end(), [](const auto& row) { return row.paper; });
  const bool packed =
      std::any_of(run.rows.begin(), run.rows.end(), [](const auto& row) { return row.packed; });
  ReportTable table;
  const bool untuned =
      std::any_of(run.rows.begin(), run.rows.end(), [](const auto& row) { return row.untuned; });
  std::vector<std::string> head{"quantization", "w-bits", "a-bits"};
  if (untuned) head.emplace_back("untuned");
  head.insert(head.end(), {"accuracy", "drop", "W-comp", "A-comp"});
  if (packed) head.emplace_back("packed kB");
  table.groups = {{"", 1}, {"this run", static_cast<int>(head.size()) - 1}};
  if (paper) {
    head.insert(head.end(), {"accuracy", "drop", "W-comp", "A-comp"});
    table.groups.emplace_back("paper", 4);
  }
  table.rows.push_back(std::move(head));
  for (const ReportRow& row : run.rows) {
    std::vector<std::string> line{row.name, row.weight_bits, row.activation_bits};
    if (untuned) line.push_back(row.untuned ? fmt::format("{:.2f}", *row.untuned) : "-");
    line.insert(line.end(),
                {row.seeds > 1 ? fmt::format("{:.2f} ± {:.2f} ({})", row.accuracy, row.deviation, row.seeds)
                               : fmt::format("{:.2f}", row.accuracy),
                 row.drop ? fmt::format("{:.2f}", *row.drop) : "-", ratio(row.weight_compression),
                 ratio(row.activation_compression)});
    if (packed)
      line.push_back(row.packed ? fmt::format("{:.1f}", static_cast<double>(row.packed->total()) / 1000)
                                : "-");
    if (paper && row.paper) {
      line.insert(line.end(),
                  {fmt::format("{:.2f}", row.paper->accuracy), fmt::format("{:.2f}", row.paper->drop),
                   ratio(row.paper->weight_compression), ratio(row.paper->activation_compression)});
    } else if (paper) {
      line.insert(line.end(), 4, "-");
    }
    table.rows.push_back(std::move(line));
  }
  table.caption =
      "Accuracy in percent of the test pictures after the last epoch, drop from each one's own baseline in "
      "points. "
      "W-comp: bits of the weights against 32; A-comp: bits of the layers' inputs against 32.";
  if (untuned)
    table.caption +=
        " Untuned: accuracy right before fine-tuning, with every layer quantized and the inputs' ranges "
        "calibrated.";
  if (paper) table.caption += " Paper: Dong et al., HAWQ, ICCV 2019, table of CIFAR-10 on ResNet20.";
  return table;
}

// One model before and after, in a sentence.
std::string before_and_after(const ReportRun& run) {
  const ReportRow* before = run.baseline();
  const ReportRow* after = run.row(kModelJob);
  std::string text;
  if (before != nullptr && after != nullptr && after->drop) {
    const double drop = *after->drop;
    text = drop == 0 ? "Quantization costs no accuracy."
                     : fmt::format("Quantization {} {:.2f} points of accuracy.", drop > 0 ? "costs" : "wins",
                                   std::abs(drop));
    text += fmt::format(" Test loss: {} before, {} after.", readable(*before->loss), readable(*after->loss));
  }
  if (const ReportRow* row = after != nullptr ? after : before) {
    text +=
        fmt::format("{}The standard error of an accuracy on {} pictures is {:.2f} points.",
                    text.empty() ? "" : " ", with_thousands(static_cast<double>(row->images)), row->spread());
  }
  return text;
}

// A sentence on the rows whose drop is not the paper's within the noise of both.
std::string comparison(const ReportRun& run) {
  std::string text;
  bool compared = false;
  for (const ReportRow& row : run.rows) {
    if (!row.paper || !row.drop || row.slug == kBaselineJob) continue;
    compared = true;
    // The paper's accuracy is of CIFAR-10's 10,000 test pictures and one run.
    const double p = row.paper->accuracy / 100;
    const double spread = std::hypot(row.spread(), 100 * std::sqrt(p * (1 - p) / 10000));
    const double difference = *row.drop - row.paper->drop;
    if (std::abs(difference) <= 2 * spread) continue;
    text +=
        fmt::format(" {}: {:.2f} instead of {:.2f}, {:.1f} standard deviations {}.", row.name, *row.drop,
                    row.paper->drop, std::abs(difference) / spread, difference > 0 ? "larger" : "smaller");
  }
  if (!compared) return "";
  return text.empty() ? "No drop differs from the paper's by more than two standard deviations."
                      : "Drops that differ from the paper's by more than two standard deviations:" + text;
}

std::optional<ReportFigure> drop_figure(const ReportRun& run) {
  Figure figure{.title = "Drop from the baseline, in points",
                .x = {.label = "points of accuracy lost"},
                .y = {.scale = AxisScale::categories}};
  FigureSeries ours{.name = "this run ± 2 standard deviations", .colour = 0, .markers = true};
  FigureSeries papers{.name = "paper", .colour = 1, .markers = true, .hollow = true};
  for (const ReportRow& row : run.rows) {
    if (row.slug == kBaselineJob || !row.drop) continue;
    const auto y = static_cast<double>(figure.y.categories.size());
    figure.y.categories.push_back(row.name);
    const double error = 2 * row.spread();
    ours.points.push_back(
        {.x = *row.drop,
         .y = y,
         .x_error = FigureInterval{*row.drop - error, *row.drop + error},
         .tip = fmt::format("{}\ndrop {:.2f} ± {:.2f}\naccuracy {:.2f} %, W-comp {}", row.name, *row.drop,
                            error, row.accuracy, ratio(row.weight_compression))});
    if (!row.paper) continue;
    papers.points.push_back(
        {.x = row.paper->drop,
         .y = y,
         .tip = fmt::format("{}, paper\ndrop {:.2f}\naccuracy {:.2f} %, W-comp {}", row.name, row.paper->drop,
                            row.paper->accuracy, ratio(row.paper->weight_compression))});
  }
  if (ours.points.empty()) return std::nullopt;
  figure.plot_height = std::max(90.0, 26.0 * static_cast<double>(figure.y.categories.size()));
  figure.series.push_back(std::move(ours));
  if (!papers.points.empty()) figure.series.push_back(std::move(papers));
  figure.rules.push_back({.vertical = true, .value = 0, .name = "baseline"});
  return ReportFigure{.name = "drops",
                      .figure = std::move(figure),
                      .caption = "Each against its own baseline; further left is better."};
}

// ── the frontier ──

// The point that the row took: that of its assignment, bit by bit.
std::optional<std::size_t> chosen_point(const ReportRun& run, const ReportFrontier& frontier) {
  const auto it = run.bits.find(frontier.slug);
  if (it == run.bits.end()) return std::nullopt;
  std::map<std::string, int> wanted;
  for (const LayerBits& layer : it->second.layers) wanted[layer.name] = layer.weight;
  for (std::size_t k = 0; k < frontier.points.size(); ++k) {
    std::map<std::string, int> has;
    for (std::size_t l = 0; l < frontier.layers.size(); ++l)
      has[frontier.layers[l]] = frontier.points[k].bits[l];
    if (has == wanted) return k;
  }
  return std::nullopt;
}

ReportFigure frontier_figure(const ReportRun& run, const ReportFrontier& frontier) {
  const std::optional<std::size_t> chosen = chosen_point(run, frontier);
  const std::size_t count = frontier.points.size();
  const std::size_t most = most_frontier_points(frontier.layers.size());
  const std::size_t every = (count + most - 1) / most;
  FigureSeries points{
      .name = fmt::format("assignments ({})", count), .colour = 5, .line = true, .markers = true};
  FigureSeries taken{
      .name = fmt::format("taken by {}", job_title(frontier.slug)), .colour = 1, .markers = true};
  bool positive = true;
  const auto show = [&](const FrontierPoint& point, bool is_chosen) {
    positive = positive && point.objective > 0;
    FigurePoint shown{
        .x = point.bytes / 1000,
        .y = point.objective,
        .tip = fmt::format("{} bytes, {} {}{}{}", with_thousands(point.bytes), frontier.quantity,
                           readable(point.objective),
                           is_chosen ? fmt::format(" (taken by {})", job_title(frontier.slug)) : "",
                           assignment_text(frontier.layers, point.bits)),
        .emphasised = is_chosen};
    (is_chosen ? taken : points).points.push_back(std::move(shown));
  };
  for (std::size_t k = 0; k < count; ++k) {
    const bool is_chosen = chosen == k;
    if (is_chosen || k % every == 0 || k + 1 == count) show(frontier.points[k], is_chosen);
  }
  if (!chosen && frontier.taken) show(*frontier.taken, true);
  Figure figure{.title = fmt::format("Pareto frontier, {}", job_title(frontier.slug)),
                .x = {.label = "weights, kB"},
                .y = {.label = fmt::format("{} of the whole network{}", frontier.quantity,
                                           positive ? " (log scale)" : ""),
                      .scale = positive ? AxisScale::log : AxisScale::linear},
                .series = {std::move(points)}};
  if (!taken.points.empty()) figure.series.push_back(std::move(taken));
  if (const auto it = run.bits.find(frontier.slug); it != run.bits.end() && it->second.budget_bytes > 0) {
    figure.rules.push_back({.vertical = true, .value = it->second.budget_bytes / 1000, .name = "budget"});
  }
  std::string caption = "Hover a point, or focus the figure and use the arrow keys, to see its assignment.";
  if (every > 1) caption += fmt::format(" One point in {} is shown.", every);
  return {.name = "pareto-" + file_name_part(frontier.slug),
          .figure = std::move(figure),
          .caption = std::move(caption)};
}

bool same_points(const ReportFrontier& a, const ReportFrontier& b) {
  return a.layers == b.layers &&
         std::equal(a.points.begin(), a.points.end(), b.points.begin(), b.points.end(),
                    [](const FrontierPoint& p, const FrontierPoint& q) {
                      return p.bytes == q.bytes && p.objective == q.objective && p.bits == q.bits;
                    });
}

// ── training ──

/// A quantity of an epoch, for a figure.
struct Curve {
  const char* name;
  double (*value)(const ReportEpoch&);
};

FigureSeries curve(const ReportRun& run, const std::string& job, const Curve& what) {
  FigureSeries series{.line = true};
  std::int64_t stage = -1;
  for (const ReportEpoch& epoch : run.epochs) {
    if (epoch.job != job) continue;
    const bool new_stage = stage >= 0 && epoch.stage != stage;
    stage = epoch.stage;
    series.points.push_back({.x = static_cast<double>(epoch.epoch + 1),
                             .y = what.value(epoch),
                             .tip = fmt::format("{}, {}: {}\nepoch {}, stage {}, learning rate {}",
                                                job_title(job), what.name, readable(what.value(epoch)),
                                                epoch.epoch + 1, epoch.stage + 1, readable(epoch.lr, 2)),
                             .emphasised = new_stage});
  }
  return series;
}

bool has_stages(const FigureSeries& series) {
  return std::any_of(series.points.begin(), series.points.end(), [](const auto& p) { return p.emphasised; });
}
constexpr const char* kRingedEpochs = "Ringed: the first epoch with another part of the layers quantized.";

ReportFigure training_figure(const ReportRun& run, const std::string& job, bool loss) {
  static constexpr Curve kLosses[] = {{"training loss", [](const ReportEpoch& e) { return e.train_loss; }},
                                      {"test loss", [](const ReportEpoch& e) { return e.test_loss; }}};
  static constexpr Curve kAccuracies[] = {
      {"training accuracy", [](const ReportEpoch& e) { return 100 * e.train_accuracy; }},
      {"test accuracy", [](const ReportEpoch& e) { return 100 * e.test_accuracy; }}};
  const std::string quantity = loss ? "Loss" : "Accuracy";
  Figure figure{.title = run.one_model ? quantity : fmt::format("{} of {}", quantity, job_title(job)),
                .x = {.label = "epoch"},
                .y = {.scale = loss ? AxisScale::log : AxisScale::linear}};
  figure.y.label = loss ? "loss (log scale)" : "percent";
  int colour = 0;
  bool staged = false;
  for (const Curve& what : loss ? kLosses : kAccuracies) {
    FigureSeries series = curve(run, job, what);
    series.name = what.name;
    series.colour = colour++;
    staged = staged || has_stages(series);
    figure.series.push_back(std::move(series));
  }
  if (const ReportRow* baseline = run.baseline(); baseline != nullptr && !loss && job != kBaselineJob) {
    figure.rules.push_back({.value = baseline->accuracy, .name = "full precision, test"});
  }
  return {.name = fmt::format("training-{}", loss ? "loss" : "accuracy"),
          .figure = std::move(figure),
          .caption = staged ? kRingedEpochs : ""};
}

/// Several, where one has not enough colours and lines to tell all rows apart.
std::vector<ReportFigure> finetuning_figures(const ReportRun& run, bool loss) {
  const Curve what = loss
                         ? Curve{"training loss", [](const ReportEpoch& e) { return e.train_loss; }}
                         : Curve{"test accuracy", [](const ReportEpoch& e) { return 100 * e.test_accuracy; }};
  std::vector<std::string> jobs;
  for (const ReportEpoch& epoch : run.epochs) {
    if (epoch.job != kBaselineJob && std::find(jobs.begin(), jobs.end(), epoch.job) == jobs.end())
      jobs.push_back(epoch.job);
  }
  constexpr std::size_t kColours = kFigureColours, kEach = 2 * kColours;
  const std::string name = loss ? "finetuning-loss" : "finetuning-accuracy";
  std::vector<ReportFigure> figures;
  for (std::size_t first = 0; first < jobs.size(); first += kEach) {
    Figure figure{.title = loss ? "Training loss while fine-tuning" : "Test accuracy while fine-tuning",
                  .x = {.label = "epoch"},
                  .y = {.label = loss ? "loss (log scale)" : "percent",
                        .scale = loss ? AxisScale::log : AxisScale::linear}};
    bool staged = false;
    for (std::size_t k = 0; k < std::min(kEach, jobs.size() - first); ++k) {
      const std::string& job = jobs[first + k];
      FigureSeries series = curve(run, job, what);
      series.name = job_title(job);
      series.colour = static_cast<int>(k % kColours);
      series.dashed = k >= kColours;
      staged = staged || has_stages(series);
      figure.series.push_back(std::move(series));
    }
    if (const ReportRow* baseline = run.baseline(); baseline != nullptr && !loss) {
      figure.rules.push_back({.value = baseline->accuracy, .name = "baseline"});
    }
    figures.push_back({.name = first == 0 ? name : fmt::format("{}-{}", name, first / kEach + 1),
                       .figure = std::move(figure),
                       .caption = staged ? kRingedEpochs : ""});
  }
  return figures;
}

// ── sizes ──

struct SizePart {
  const char* name;
  const char* column;  // short, so that the table fits
  std::int64_t PackedSize::*bytes;
};
constexpr SizePart kSizeParts[] = {{"weights' codes", "codes", &PackedSize::codes},
                                   {"weights in f32", "f32 weights", &PackedSize::full_weights},
                                   {"weight scales", "scales", &PackedSize::scales},
                                   {"activation ranges", "ranges", &PackedSize::ranges},
                                   {"batch norm, biases", "batch norm, biases", &PackedSize::other},
                                   {"names, shapes", "names, shapes", &PackedSize::header}};

ReportFigure layer_bytes_figure(const BitAssignment& bits) {
  Figure figure{.title = "Bytes of each layer's weights",
                .x = {.label = "kB"},
                .y = {.scale = AxisScale::categories},
                .series = {{.colour = 0, .bars = true}}};
  for (const LayerBits& layer : bits.layers) {
    const double bytes = static_cast<double>(layer.parameters) * layer.weight / 8;
    figure.series[0].points.push_back(
        {.x = bytes / 1000,
         .y = static_cast<double>(figure.y.categories.size()),
         .tip = fmt::format("{}\n{} weights of {} bits: {} bytes", layer.name,
                            with_thousands(static_cast<double>(layer.parameters)), layer.weight,
                            with_thousands(bytes))});
    figure.y.categories.push_back(layer.name);
  }
  return {.name = "layer-bytes", .figure = std::move(figure), .caption = "Their codes alone."};
}

}  // namespace

std::string assignment_text(const std::vector<std::string>& layers, const std::vector<int>& bits) {
  std::map<int, std::string, std::greater<>> names;
  for (std::size_t l = 0; l < bits.size(); ++l) {
    std::string& text = names[bits[l]];
    text += (text.empty() ? "" : ", ") + (l < layers.size() ? layers[l] : fmt::format("layer {}", l + 1));
  }
  std::string text;
  for (const auto& [width, list] : names) text += fmt::format("\n{} bits: {}", width, list);
  return text;
}

ReportSection table_section(const ReportRun& run) {
  ReportSection section{.id = "table", .title = "Results"};
  if (run.rows.empty()) return section;
  section.blocks.emplace_back(main_table(run));
  if (run.one_model) {
    section.blocks.emplace_back(ReportText{before_and_after(run)});
    return section;
  }
  if (const std::string text = comparison(run); !text.empty()) section.blocks.emplace_back(ReportText{text});
  for (const auto& figure : {drop_figure(run), choices_figure(run)}) {
    if (figure) section.blocks.emplace_back(*figure);
  }
  return section;
}

ReportSection frontier_section(const ReportRun& run) {
  ReportSection section{.id = "frontier", .title = "Pareto frontier"};
  for (std::size_t k = 0; k < run.frontiers.size(); ++k) {
    const ReportFrontier& frontier = run.frontiers[k];
    const auto seen = [&](const ReportFrontier& earlier) { return same_points(earlier, frontier); };
    if (std::any_of(run.frontiers.begin(), run.frontiers.begin() + static_cast<std::ptrdiff_t>(k), seen))
      continue;
    section.blocks.emplace_back(frontier_figure(run, frontier));
  }
  return section;
}

ReportSection training_section(const ReportRun& run) {
  ReportSection section{.id = "training", .title = "Training and fine-tuning"};
  for (const char* job : {kBaselineJob, kModelJob}) {
    const auto trained = [job](const ReportEpoch& epoch) { return epoch.job == job; };
    if (std::none_of(run.epochs.begin(), run.epochs.end(), trained)) continue;
    section.blocks.emplace_back(training_figure(run, job, false));
    section.blocks.emplace_back(training_figure(run, job, true));
  }
  if (run.one_model) return section;
  for (const bool loss : {false, true}) {
    for (ReportFigure& figure : finetuning_figures(run, loss)) section.blocks.emplace_back(std::move(figure));
  }
  return section;
}

ReportSection size_section(const ReportRun& run) {
  ReportSection section{.id = "size", .title = "Model size"};
  Figure figure{.title = "Size by part", .x = {.label = "kB"}, .y = {.scale = AxisScale::categories}};
  ReportTable table;
  const bool packed =
      std::any_of(run.rows.begin(), run.rows.end(), [](const auto& row) { return row.packed; });
  if (packed) {
    std::vector<std::string> head{"bytes"};
    for (const SizePart& part : kSizeParts) {
      figure.series.push_back(
          {.name = part.name, .colour = static_cast<int>(figure.series.size()), .bars = true});
      head.emplace_back(part.column);
    }
    head.emplace_back("file");
    table.rows.push_back(std::move(head));
    for (const ReportRow& row : run.rows) {
      if (!row.packed) continue;
      const auto y = static_cast<double>(figure.y.categories.size());
      figure.y.categories.push_back(row.name);
      std::vector<std::string> line{row.name};
      for (std::size_t p = 0; p < std::size(kSizeParts); ++p) {
        const auto bytes = static_cast<double>((*row.packed).*kSizeParts[p].bytes);
        line.push_back(with_thousands(bytes));
        if (bytes == 0) continue;
        figure.series[p].points.push_back(
            {.x = bytes / 1000,
             .y = y,
             .tip =
                 fmt::format("{}\n{}: {} bytes, {:.1f} %", row.name, kSizeParts[p].name,
                             with_thousands(bytes), 100 * bytes / static_cast<double>(row.packed->total()))});
      }
      line.push_back(with_thousands(static_cast<double>(row.packed->total())));
      table.rows.push_back(std::move(line));
    }
    table.caption = "The packed file of each row, as it is on disk.";
  } else if (!run.bits.empty()) {
    figure.series.push_back({.colour = 0, .bars = true});
    table.rows.push_back({"bytes", "weights", "at 32 bits", "W-comp"});
    for (const auto& [slug, bits] : run.bits) {
      if (bits.layers.empty()) continue;
      const SizeReport size = size_report(bits);
      figure.series[0].points.push_back({.x = size.weight_bytes() / 1000,
                                         .y = static_cast<double>(figure.y.categories.size()),
                                         .tip = fmt::format("{}\nweights: {} bytes", job_title(slug),
                                                            with_thousands(size.weight_bytes()))});
      figure.y.categories.push_back(job_title(slug));
      table.rows.push_back({job_title(slug), with_thousands(size.weight_bytes()),
                            with_thousands(4 * weights_of(bits)), ratio(size.weight_compression())});
    }
    table.caption = "The weights' bits alone; the run does not say how large its packed files are.";
  }
  if (figure.y.categories.empty()) return section;
  // A part that no file has needs no place in the legend.
  std::erase_if(figure.series, [](const FigureSeries& series) { return series.points.empty(); });
  figure.plot_height = std::max(60.0, 28.0 * static_cast<double>(figure.y.categories.size()));
  std::string caption;
  if (!run.bits.empty() && !run.bits.begin()->second.layers.empty()) {
    caption = fmt::format("In full precision the weights alone are {} kB.",
                          with_thousands(4 * weights_of(run.bits.begin()->second) / 1000));
  }
  section.blocks.emplace_back(
      ReportFigure{.name = "size", .figure = std::move(figure), .caption = std::move(caption)});
  if (const auto it = run.bits.find(kModelJob); it != run.bits.end()) {
    section.blocks.emplace_back(layer_bytes_figure(it->second));
  }
  section.blocks.emplace_back(std::move(table));
  return section;
}

}  // namespace goshawk
