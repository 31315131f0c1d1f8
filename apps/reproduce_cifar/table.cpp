#include "apps/reproduce_cifar/table.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace goshawk {
namespace {

using Cells = std::vector<std::vector<std::string>>;

// Columns padded to one width, numbers to the right, so that the text is a table to the eye as well.
std::string align(const Cells& cells) {
  std::vector<std::size_t> width(cells.front().size());
  const auto length = [](const std::string& s) {  // in code points
    return static_cast<std::size_t>(
        std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xC0) != 0x80; }));
  };
  for (const auto& row : cells) {
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], length(row[c]));
  }
  std::string text;
  for (std::size_t r = 0; r < cells.size(); ++r) {
    text += "|";
    for (std::size_t c = 0; c < cells[r].size(); ++c) {
      const std::string padding(width[c] - length(cells[r][c]), ' ');
      text += c == 0 ? " " + cells[r][c] + padding + " |" : " " + padding + cells[r][c] + " |";
    }
    text += "\n";
    if (r > 0) continue;
    text += "|";
    for (std::size_t c = 0; c < width.size(); ++c)
      text += std::string(width[c] + 1, '-') + (c == 0 ? "-|" : ":|");
    text += "\n";
  }
  return text;
}

std::string ratio(double value) {
  return fmt::format("{:.2f}x", value);
}

Cells main_table(const std::map<std::string, RowResult>& results) {
  Cells cells{{"quantization", "w-bits", "a-bits", "accuracy", "drop", "W-comp", "A-comp", "paper: accuracy",
               "drop", "W-comp", "A-comp"}};
  const auto baseline = results.find("baseline");
  const double paper_baseline = rows().front().paper->accuracy;
  for (const Row& row : rows()) {
    const auto it = results.find(row.slug);
    if (it == results.end()) continue;
    const RowResult& r = it->second;
    std::vector<std::string> line{row.name, r.weight_bits, r.activation_bits,
                                  fmt::format("{:.2f}", r.accuracy())};
    line.push_back(
        baseline == results.end() ? "" : fmt::format("{:.2f}", baseline->second.accuracy() - r.accuracy()));
    line.push_back(ratio(r.weight_compression));
    line.push_back(ratio(r.activation_compression));
    if (row.paper) {
      line.insert(line.end(),
                  {fmt::format("{:.2f}", row.paper->accuracy),
                   fmt::format("{:.2f}", paper_baseline - row.paper->accuracy),
                   ratio(row.paper->weight_compression), ratio(row.paper->activation_compression)});
    } else {
      line.insert(line.end(), 4, "-");
    }
    cells.push_back(std::move(line));
  }
  return cells;
}

Cells layer_table(const Sensitivity& sensitivity, const std::map<std::string, BitAssignment>& bits) {
  const auto hawq = bits.find("hawq"), v2 = bits.find("hawq-v2");
  Cells cells{{"layer", "n", "lambda", "residual", "trace", "± error", "probes", "trace/n", "HAWQ bits",
               "HAWQ Omega", "V2 bits", "V2 Omega"}};
  for (const LayerSensitivity& layer : sensitivity.layers) {
    std::vector<std::string> line{layer.name,
                                  std::to_string(layer.parameters),
                                  fmt::format("{:.4g}", layer.lambda_max),
                                  fmt::format("{:.1e}", layer.lambda_residual),
                                  fmt::format("{:.4g}", layer.trace.value),
                                  fmt::format("{:.2g}", layer.trace.standard_error),
                                  std::to_string(layer.trace.samples),
                                  fmt::format("{:.3e}", layer.mean_trace())};
    const auto add = [&](auto it, auto omega) {
      if (it == bits.end()) {
        line.insert(line.end(), 2, "-");
        return;
      }
      const int width = it->second.layer(layer.name).weight;
      line.push_back(std::to_string(width));
      line.push_back(fmt::format("{:.3e}", omega(width)));
    };
    add(hawq, [&](int b) { return layer.hawq_omega(b); });
    add(v2, [&](int b) { return layer.hawq_v2_omega(b); });
    cells.push_back(std::move(line));
  }
  return cells;
}

}  // namespace

nlohmann::ordered_json to_json(const RowResult& r) {
  return {{"row", r.slug},
          {"weight_bits", r.weight_bits},
          {"activation_bits", r.activation_bits},
          {"accuracy", r.accuracy()},
          {"correct", r.correct},
          {"images", r.images},
          {"weight_compression", r.weight_compression},
          {"activation_compression", r.activation_compression},
          {"total_compression", r.total_compression}};
}

RowResult row_result_from_json(const nlohmann::json& value) {
  return {.slug = value.at("row"),
          .weight_bits = value.at("weight_bits"),
          .activation_bits = value.at("activation_bits"),
          .correct = value.at("correct"),
          .images = value.at("images"),
          .weight_compression = value.at("weight_compression"),
          .activation_compression = value.at("activation_compression"),
          .total_compression = value.at("total_compression")};
}

std::string table_markdown(const std::map<std::string, RowResult>& results, const Sensitivity* sensitivity,
                           const std::map<std::string, BitAssignment>& bits) {
  std::string text = align(main_table(results));
  text +=
      "\nAccuracy and drop (from each one's own baseline) in percent of the test pictures, after the last "
      "epoch.\n"
      "W-comp: 32 x weights / (sum of weights x bits) over all convolution and linear weight tensors, "
      "counted at the\n"
      "bits each is stored with; batch norm, biases and quantizer scales stay in f32 and are not counted "
      "(with them:";
  for (const Row& row : rows()) {
    if (const auto it = results.find(row.slug); it != results.end() && row.kind != RowKind::baseline) {
      text += fmt::format(" {} {:.2f}x", row.name, it->second.total_compression);
    }
  }
  text +=
      ").\nA-comp: 32 / mean bits of the layers' inputs; the picture itself (8 bits) is not counted.\n"
      "Paper: Dong et al., HAWQ, ICCV 2019, table of CIFAR-10 on ResNet20.\n";
  if (sensitivity != nullptr) {
    text += "\n" + align(layer_table(*sensitivity, bits));
    text += fmt::format(
        "\nlambda: top eigenvalue of the layer's Hessian block (power iteration; residual ‖Hv − λv‖/|λ|). "
        "trace: Hutchinson's\n"
        "estimate ± its standard error. Both of the mean loss over {} training pictures, batch norm in eval "
        "mode.\n"
        "Omega: lambda (HAWQ) or trace/n (V2) times ‖Q(W) − W‖² at the assigned bits.\n",
        sensitivity->images);
  }
  return text;
}

}  // namespace goshawk
