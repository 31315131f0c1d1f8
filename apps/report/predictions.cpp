#include "apps/report/predictions.hpp"

#include <algorithm>
#include <map>
#include <numeric>

#include "core/error.hpp"

namespace goshawk {
namespace {

constexpr const char* kNarrowness = "mean-bits";
constexpr const char* kTrueOther = "true-on-calibration";

/// A number for each of `count` draws; 0: for as many as there are.
std::vector<double> numbers(const JsonObject& json, const char* key, std::size_t count) {
  const nlohmann::json list = json.has(key) ? json.json().at(key) : nlohmann::json();
  const auto is_number = [](const nlohmann::json& value) { return value.is_number(); };
  check(list.is_array() && !list.empty() && (count == 0 || list.size() == count) &&
            std::all_of(list.begin(), list.end(), is_number),
        "[report] {}: \"{}\" must be a list of {} numbers", json.where(), key,
        count == 0 ? "" : std::to_string(count));
  return list.get<std::vector<double>>();
}

ReportCorrelation correlation(const JsonObject& json, const char* value) {
  return {json.number(value, -2, 2), json.number("low", -2, 2), json.number("high", -2, 2)};
}

ReportPredictor read_predictor(const JsonObject& methods, const std::string& name) {
  const JsonObject json = methods.object(name.c_str());
  ReportPredictor predictor{.name = name,
                            .held_out = correlation(json.object("held_out"), "spearman"),
                            .calibration = correlation(json.object("calibration"), "spearman")};
  if (json.has("behind_best")) predictor.behind = correlation(json.object("behind_best"), "difference");
  return predictor;
}

std::vector<std::vector<int>> read_bits(const JsonObject& json, std::size_t count) {
  const char* key = "widths_of_layers";
  const nlohmann::json list = json.has(key) ? json.json().at(key) : nlohmann::json();
  const auto is_width = [](const nlohmann::json& value) {
    return value.is_number_integer() && value >= 1 && value <= 32;
  };
  const auto is_assignment = [&](const nlohmann::json& widths) {
    return widths.is_array() && widths.size() == list[0].size() &&
           std::all_of(widths.begin(), widths.end(), is_width);
  };
  check(list.is_array() && list.size() == count && std::all_of(list.begin(), list.end(), is_assignment),
        "[report] {}: \"{}\" must be {} equally long lists of widths", json.where(), key, count);
  return list.get<std::vector<std::vector<int>>>();
}

ReportPredictionSet read_set(const JsonObject& json, const std::string& widths) {
  ReportPredictionSet set{.widths = widths, .true_held_out = numbers(json, "true_held_out", 0)};
  const std::size_t draws = set.draws();
  set.true_calibration = numbers(json, "true_calibration", draws);
  set.mean_bits = numbers(json, "mean_bits", draws);
  if (json.has("bytes")) set.bytes = numbers(json, "bytes", draws);
  set.bits = read_bits(json, draws);
  const JsonObject methods = json.object("methods");
  for (const auto& [name, method] : methods.json().items()) {
    ReportPredictor predictor = read_predictor(methods, name);
    if (name == kNarrowness) {
      predictor.predicted = set.mean_bits;
      set.narrowness = std::move(predictor);
    } else if (name == kTrueOther) {
      predictor.predicted = set.true_calibration;
      set.true_other = std::move(predictor);
    } else {
      predictor.predicted = numbers(methods.object(name.c_str()), "predicted", draws);
      set.measured.push_back(std::move(predictor));
    }
  }
  check(!set.measured.empty(), "[report] {} has no sensitivity", methods.where());
  for (const auto& [predictor, name] :
       {std::pair{&set.narrowness, kNarrowness}, std::pair{&set.true_other, kTrueOther}}) {
    check(!predictor->name.empty(), "[report] {} has no \"{}\"", methods.where(), name);
  }
  return set;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::vector<std::string> rank(const ReportPredictions& predictions) {
  std::vector<std::string> names;
  for (const ReportPredictor& predictor : predictions.sets.front().measured) names.push_back(predictor.name);
  std::map<std::string, double> correlation;
  for (const std::string& name : names) correlation[name] = predictions.mean_correlation(name);
  std::stable_sort(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
    return correlation.at(a) > correlation.at(b);
  });
  return names;
}

}  // namespace

const ReportPredictor* ReportPredictionSet::predictor(const std::string& wanted) const {
  const auto it =
      std::find_if(measured.begin(), measured.end(), [&](const auto& p) { return p.name == wanted; });
  return it == measured.end() ? nullptr : &*it;
}

double ReportPredictions::mean_correlation(const std::string& name) const {
  double sum = 0;
  for (const ReportPredictionSet& set : sets) {
    const ReportPredictor* predictor = set.predictor(name);
    check(predictor != nullptr, "[report] {} is not among the predictions for {}", name, set.widths);
    sum += predictor->held_out.value;
  }
  return sum / static_cast<double>(sets.size());
}

ReportPredictions read_predictions(const JsonObject& json) {
  // Earlier versions wrote no format.
  if (json.has("format")) json.require_format(kPredictionsFormat);
  ReportPredictions predictions{.model = json.string("model"),
                                .calibration_images = json.integer("calibration_images"),
                                .held_out_images = json.integer("held_out_images"),
                                .calibration_loss = json.number("calibration_loss"),
                                .held_out_loss = json.number("held_out_loss"),
                                .interval = json.number("interval", 0, 1)};
  if (json.has("held_out_split")) {
    predictions.calibration_split = json.string("calibration_split");
    predictions.held_out_split = json.string("held_out_split");
  }
  if (json.has("layers")) predictions.layers = json.strings("layers");
  const JsonObject sets = json.object("sets");
  for (const auto& [widths, set] : sets.json().items()) {
    predictions.sets.push_back(read_set(sets.object(widths.c_str()), widths));
    check(predictions.layers.empty() || predictions.sets.back().bits[0].size() == predictions.layers.size(),
          "[report] {}: widths of {} layers, and there are {}", sets.where(),
          predictions.sets.back().bits[0].size(), predictions.layers.size());
  }
  check(!predictions.sets.empty(), "[report] {} has no draws", sets.where());
  std::stable_sort(predictions.sets.begin(), predictions.sets.end(),
                   [](const auto& a, const auto& b) { return mean(a.mean_bits) > mean(b.mean_bits); });
  predictions.ranking = rank(predictions);
  return predictions;
}

}  // namespace goshawk
