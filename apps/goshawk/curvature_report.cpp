#include "apps/goshawk/curvature_report.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <functional>
#include <vector>

namespace goshawk {
namespace {

using Json = nlohmann::ordered_json;

/// "12.3 ± 0.2 ± 1.1", the second number that of the probes and the third that of the images.
std::string with_errors(const Json& trace) {
  const double probes = trace.at("standard_error");
  std::string text = fmt::format("{:.4g} ± ", trace.at("estimate").get<double>());
  text += probes == 0 ? "0" : fmt::format("{:.2g}", probes);
  if (trace.contains("image_error")) text += fmt::format(" ± {:.2g}", trace.at("image_error").get<double>());
  return text + (trace.at("converged").get<bool>() ? "" : " (!)");
}

std::string numbers(const Json& values) {
  std::vector<std::string> texts;
  for (const Json& value : values) texts.push_back(fmt::format("{:.4g}", value.get<double>()));
  return fmt::format("{}", fmt::join(texts, ", "));
}

struct Column {
  std::string title;
  std::function<bool(const Json&)> has;
  std::function<std::string(const Json&)> text;
};

std::vector<Column> columns() {
  const auto has = [](const std::string& key) {
    return [key](const Json& part) { return part.contains(key); };
  };
  const auto has_within = [](const std::string& outer, const std::string& key) {
    return [outer, key](const Json& part) { return part.contains(outer) && part.at(outer).contains(key); };
  };
  return {
      {"parameters", has("parameters"),
       [](const Json& part) { return fmt::format("{}", part.at("parameters").get<std::int64_t>()); }},
      {"top eigenvalues", has("top_eigenvalues"),
       [](const Json& part) {
         return numbers(part.at("top_eigenvalues")) +
                (part.at("eigenvalues").at("converged").get<bool>() ? "" : " (!)");
       }},
      {"most negative", has("bottom_eigenvalues"),
       [](const Json& part) { return numbers(part.at("bottom_eigenvalues")); }},
      {"trace ± probes ± images", has("trace"),
       [](const Json& part) { return with_errors(part.at("trace")); }},
      {"mean trace", has("mean_trace"),
       [](const Json& part) { return fmt::format("{:.4g}", part.at("mean_trace").get<double>()); }},
      {"density from … to", has("density"),
       [](const Json& part) {
         return fmt::format("{:.4g} … {:.4g}", part.at("density").at("lowest").get<double>(),
                            part.at("density").at("highest").get<double>());
       }},
      {"activation trace ± probes ± images", has_within("activations", "trace"),
       [](const Json& part) { return with_errors(part.at("activations").at("trace")); }},
      {"Fisher trace ± probes ± images", has_within("fisher", "trace"),
       [](const Json& part) { return with_errors(part.at("fisher").at("trace")); }},
      {"Fisher's top eigenvalues", has_within("fisher", "top_eigenvalues"),
       [](const Json& part) { return numbers(part.at("fisher").at("top_eigenvalues")); }},
  };
}

/// Columns in display width; every character here takes one cell.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string layout(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width(row[c]));
  }
  std::string text;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t c = 0; c < widths.size(); ++c) {
      const std::string& cell = rows[r][c];
      const std::string space(widths[c] - width(cell), ' ');
      text += fmt::format("| {}{} ", c == 0 ? cell : space, c == 0 ? space : cell);
    }
    text += "|\n";
    if (r > 0) continue;
    for (std::size_t c = 0; c < widths.size(); ++c) {
      text += "|" + std::string(widths[c] + 1, '-') + (c == 0 ? "-" : ":");
    }
    text += "|\n";
  }
  return text;
}

}  // namespace

std::string curvature_table(const Json& curvature) {
  std::vector<Json> rows;
  for (const char* key : {"layers", "blocks"}) {
    if (!curvature.contains(key)) continue;
    for (const Json& part : curvature.at(key)) rows.push_back(part);
  }
  if (curvature.contains("network")) {
    rows.push_back(curvature.at("network"));
    rows.back()["name"] = "network";
  }
  std::vector<Column> used;
  for (const Column& column : columns()) {
    if (std::any_of(rows.begin(), rows.end(), column.has)) used.push_back(column);
  }
  std::vector<std::vector<std::string>> cells(1, {"name"});
  for (const Column& column : used) cells[0].push_back(column.title);
  bool unfinished = false;
  for (const Json& row : rows) {
    auto& line = cells.emplace_back(1, row.at("name").get<std::string>());
    for (const Column& column : used) {
      line.push_back(column.has(row) ? column.text(row) : "");
      unfinished = unfinished || line.back().ends_with("(!)");
    }
  }
  std::string text =
      fmt::format("{} on {} images, loss {:.6g}; road: {} ({})\n\n{}",
                  curvature.at("model").get<std::string>(), curvature.at("images").get<std::int64_t>(),
                  curvature.at("loss").get<double>(), curvature.at("road").at("taken").get<std::string>(),
                  curvature.at("road").at("why").get<std::string>(), layout(cells));
  if (unfinished)
    text += "\n(!) ended by --max-samples or --max-products before the wanted error was reached\n";
  return text;
}

}  // namespace goshawk
