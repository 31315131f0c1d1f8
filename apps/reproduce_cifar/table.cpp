#include "apps/reproduce_cifar/table.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "apps/support/fine_tuning.hpp"
#include "apps/support/text_table.hpp"

namespace goshawk {
namespace {

using Cells = std::vector<std::vector<std::string>>;

std::string ratio(double value) {
  return fmt::format("{:.2f}x", value);
}

std::string show(const Accuracy& a) {
  return a.seeds > 1 ? fmt::format("{:.2f} ± {:.2f} ({})", a.mean, a.deviation, a.seeds)
                     : fmt::format("{:.2f}", a.mean);
}

// What the drop from the baseline is made of.
struct Drop {
  double value;
  double spread;
};

Drop drop_of(const Accuracy& baseline, const Accuracy& row) {
  return {baseline.mean - row.mean, row.spread()};
}

// The rows that have results, in the table's order.
std::vector<std::pair<const Row*, const std::vector<JobResult>*>> finished_rows(const TableInput& input) {
  std::vector<std::pair<const Row*, const std::vector<JobResult>*>> finished;
  for (const Row& row : rows()) {
    const auto it = input.results.find(row.slug);
    if (it != input.results.end() && !it->second.empty()) finished.emplace_back(&row, &it->second);
  }
  return finished;
}

std::optional<Accuracy> baseline_of(const TableInput& input) {
  const auto it = input.results.find(baseline_row().slug);
  if (it == input.results.end() || it->second.empty()) return std::nullopt;
  return accuracy_of(it->second);
}

Cells main_table(const TableInput& input) {
  Cells cells{{"quantization", "w-bits", "a-bits", "untuned", "accuracy", "drop", "W-comp", "A-comp",
               "packed kB", "paper: accuracy", "drop", "W-comp", "A-comp"}};
  const std::optional<Accuracy> baseline = baseline_of(input);
  for (const auto& [row, results] : finished_rows(input)) {
    const JobResult& r = results->front();
    const Accuracy accuracy = accuracy_of(*results);
    const std::optional<double> untuned = r.untuned_accuracy();
    std::vector<std::string> line{row->name, r.weight_bits, r.activation_bits,
                                  untuned ? fmt::format("{:.2f}", *untuned) : "-", show(accuracy)};
    line.push_back(baseline ? fmt::format("{:.2f}", drop_of(*baseline, accuracy).value) : "");
    line.push_back(ratio(r.weight_compression));
    line.push_back(ratio(r.activation_compression));
    const std::int64_t packed = r.packed.total();
    line.push_back(packed == 0 ? "-" : fmt::format("{:.1f}", static_cast<double>(packed) / 1000));
    if (row->paper) {
      line.insert(line.end(),
                  {fmt::format("{:.2f}", row->paper->accuracy),
                   fmt::format("{:.2f}", baseline_row().paper->accuracy - row->paper->accuracy),
                   ratio(row->paper->weight_compression), ratio(row->paper->activation_compression)});
    } else {
      line.insert(line.end(), 4, "-");
    }
    cells.push_back(std::move(line));
  }
  return cells;
}

// A sentence for each row whose drop is not the paper's, or one that says that there is none.
std::string disagreements(const TableInput& input) {
  const std::optional<Accuracy> baseline = baseline_of(input);
  if (!baseline) return "";
  std::string text;
  bool compared = false;
  for (const auto& [row, results] : finished_rows(input)) {
    if (!row->paper || row->bits == BitsFrom::nothing) continue;
    compared = true;
    const Drop drop = drop_of(*baseline, accuracy_of(*results));
    const double paper = baseline_row().paper->accuracy - row->paper->accuracy;
    // The paper's accuracy is of 10,000 test pictures and one run.
    const double p = row->paper->accuracy / 100;
    const double spread = std::hypot(drop.spread, 100 * std::sqrt(p * (1 - p) / 10000));
    if (std::abs(drop.value - paper) <= 2 * spread) continue;
    text += fmt::format("{}: our drop of {:.2f} is {:.2f} {} than the paper's, {:.1f} standard deviations.\n",
                        row->name, drop.value, std::abs(drop.value - paper),
                        drop.value > paper ? "larger" : "smaller", std::abs(drop.value - paper) / spread);
  }
  if (!compared) return "";
  return text.empty() ? "No drop differs from the paper's by more than two standard deviations.\n"
                      : "More than two standard deviations from the paper:\n" + text;
}

Cells layer_table(const TableInput& input) {
  Cells cells{{"layer", "n", "lambda", "residual", "trace", "± error", "samples", "trace/n", "HAWQ bits",
               "HAWQ Omega", "V2 bits", "V2 Omega"}};
  for (const LayerSensitivity& layer : input.sensitivity->layers) {
    std::vector<std::string> line{layer.name,
                                  std::to_string(layer.parameters),
                                  fmt::format("{:.4g}", layer.lambda_max),
                                  fmt::format("{:.1e}", layer.lambda_residual),
                                  fmt::format("{:.4g}", layer.trace.value),
                                  fmt::format("{:.2g}", layer.trace.standard_error),
                                  std::to_string(layer.trace.samples),
                                  fmt::format("{:.3e}", layer.mean_trace())};
    const auto add = [&](const char* slug, const std::optional<Costs>& costs) {
      const auto it = input.bits.find(slug);
      if (it == input.bits.end() || !costs) {
        line.insert(line.end(), 2, "-");
        return;
      }
      const int width = it->second.layer(layer.name).weight;
      line.push_back(std::to_string(width));
      line.push_back(fmt::format("{:.3e}", costs->choice(layer.name, width).cost));
    };
    add("hawq", input.hawq);
    add("hawq-v2", input.hawq_v2);
    cells.push_back(std::move(line));
  }
  return cells;
}

// The weights' widths of every mixed row, layer by layer.
Cells bits_table(const TableInput& input) {
  Cells cells{{"bits in network order", "weights' bytes", "layers"}};
  for (const Row& row : rows()) {
    const auto it = input.bits.find(row.slug);
    if (it == input.bits.end() || row.bits == BitsFrom::uniform) continue;
    std::string widths;
    for (const LayerBits& layer : it->second.layers) widths += fmt::format("{} ", layer.weight);
    widths.pop_back();
    cells.push_back({row.name, fmt::format("{:.0f}", size_report(it->second).weight_bytes()), widths});
  }
  return cells;
}

// How far mixed precision is above two bits everywhere, which is what HAWQ's table is about.
std::string leads_over_direct(const TableInput& input) {
  const auto find = [](const auto& by_slug, const char* slug) {
    const auto it = by_slug.find(slug);
    return it == by_slug.end() || it->second.empty() ? nullptr : &it->second;
  };
  const auto* const direct = find(input.results, kComparedRows[0]);
  if (direct == nullptr) return "";
  const auto* const direct_pictures = find(input.predictions, kComparedRows[0]);
  const Row& paper_direct = *find_rows(kComparedRows[0]).front();
  std::string text;
  bool paired = false, independent = false;
  for (const char* slug : {kComparedRows[1], kComparedRows[2]}) {
    const auto* const results = find(input.results, slug);
    if (results == nullptr) continue;
    const Row& row = *find_rows(slug).front();
    const Accuracy low = accuracy_of(*direct), high = accuracy_of(*results);
    const auto* const pictures = find(input.predictions, slug);
    double error = std::hypot(low.standard_error(), high.standard_error());
    const bool both = pictures != nullptr && direct_pictures != nullptr;
    if (both) error = 100 * paired_lead(*pictures, *direct_pictures).standard_error();
    (both ? paired : independent) = true;
    text += fmt::format("{} leads {} by {:.2f} ± {:.2f} points", row.name, paper_direct.name,
                        high.mean - low.mean, error);
    if (row.paper)
      text += fmt::format("; in the paper by {:.2f}", row.paper->accuracy - paper_direct.paper->accuracy);
    text += ".\n";
  }
  if (paired) {
    text +=
        "±: standard error, from the seeds where there are several and from the choice of test pictures, of "
        "which only\nthose count that one row gets right and the other does not (McNemar).\n";
  }
  if (independent) {
    text +=
        "±: standard error, from the seeds where there are several and from the number of test pictures as "
        "if the two\nrows' errors were independent, which is more than it is on the same pictures.\n";
  }
  return text;
}

}  // namespace

double Accuracy::standard_error() const {
  const double p = mean / 100;
  return std::hypot(deviation / std::sqrt(static_cast<double>(seeds)),
                    100 * std::sqrt(p * (1 - p) / static_cast<double>(images)));
}

double Accuracy::spread() const {
  const double p = mean / 100;
  return std::hypot(deviation, 100 * std::sqrt(p * (1 - p) / static_cast<double>(images)));
}

Accuracy accuracy_of(const std::vector<JobResult>& results) {
  Accuracy a{.seeds = static_cast<std::int64_t>(results.size()), .images = results.front().images};
  for (const JobResult& r : results) a.mean += r.accuracy();
  a.mean /= static_cast<double>(results.size());  // at the end, so that a mean of 100s is 100
  for (const JobResult& r : results) a.deviation += (r.accuracy() - a.mean) * (r.accuracy() - a.mean);
  a.deviation = a.seeds > 1 ? std::sqrt(a.deviation / static_cast<double>(a.seeds - 1)) : 0;
  return a;
}

nlohmann::ordered_json table_json(const TableInput& input) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  const std::optional<Accuracy> baseline = baseline_of(input);
  for (const auto& [row, results] : finished_rows(input)) {
    const JobResult& r = results->front();
    const Accuracy accuracy = accuracy_of(*results);
    nlohmann::ordered_json line{{"row", row->slug},
                                {"name", row->name},
                                {"weight_bits", r.weight_bits},
                                {"activation_bits", r.activation_bits},
                                {"accuracy", accuracy.mean},
                                {"standard_deviation", accuracy.deviation},
                                {"images", r.images},
                                {"weight_compression", r.weight_compression},
                                {"activation_compression", r.activation_compression},
                                {"total_compression", r.total_compression},
                                {"packed_bytes", packed_to_json(r.packed)}};
    if (const auto untuned = r.untuned_accuracy()) line["untuned_accuracy"] = *untuned;
    if (baseline) line["drop"] = baseline->mean - accuracy.mean;
    if (row->paper) {
      line["paper"] = {{"accuracy", row->paper->accuracy},
                       {"drop", baseline_row().paper->accuracy - row->paper->accuracy},
                       {"weight_compression", row->paper->weight_compression},
                       {"activation_compression", row->paper->activation_compression}};
    }
    line["seeds"] = nlohmann::ordered_json::array();
    for (const JobResult& seed : *results)
      line["seeds"].push_back(
          {{"seed", seed.seed}, {"accuracy", seed.accuracy()}, {"correct", seed.correct}});
    json.push_back(std::move(line));
  }
  return json;
}

std::string table_markdown(const TableInput& input) {
  std::string text = text_table(main_table(input));
  text +=
      "\nAccuracy and drop (from each one's own baseline) in percent of the test pictures, after the last "
      "epoch;\nwith several seeds their mean ± standard deviation (number of seeds).\n"
      "untuned: accuracy right before fine-tuning, with every layer quantized and the inputs' ranges "
      "calibrated.\n"
      "W-comp: 32 x weights / (sum of weights x bits) over all convolution and linear weight tensors, "
      "counted at the\n"
      "bits each is stored with.\nA-comp: 32 / mean bits of the layers' inputs; the picture itself (8 bits) "
      "is not counted.\n"
      "packed: the file with everything, also batch norm, biases and the quantizers' scales, in f32.\n"
      "Paper: Dong et al., HAWQ, ICCV 2019, table of CIFAR-10 on ResNet20.\n";
  text += leads_over_direct(input);
  text += disagreements(input);
  const Cells bits = bits_table(input);
  if (bits.size() > 1) text += "\n" + text_table(bits);
  if (input.sensitivity) {
    text += "\n" + text_table(layer_table(input));
    text += fmt::format(
        "\nlambda: top eigenvalue of the layer's Hessian block (power iteration; residual ‖Hv − λv‖/|λ|). "
        "trace ± its standard\n"
        "error. Both of the mean loss over {} training pictures, batch norm in eval mode.\n"
        "Omega: lambda (HAWQ) or trace/n (V2) times ‖Q(W) − W‖² at the assigned bits.\n",
        input.sensitivity->images);
  }
  return text;
}

}  // namespace goshawk
