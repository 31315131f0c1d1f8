// predictions.json of predict_loss: what the sensitivities expected of random assignments, and what these
// did.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "quant/json_file.hpp"

namespace goshawk {

inline constexpr const char* kPredictionsFormat = "goshawk-predictions-1";

/// A rank correlation, or a difference of two, with its interval.
struct ReportCorrelation {
  double value = 0, low = 0, high = 0;
};

struct ReportPredictor {
  std::string name = {};  ///< as --cost has it
  ReportCorrelation held_out = {}, calibration = {};
  /// By how much the best one's correlation on the held-out pictures is higher; earlier versions do not say.
  std::optional<ReportCorrelation> behind = {};
  std::vector<double> predicted = {};  ///< for each draw
};

/// The draws from one set of widths.
struct ReportPredictionSet {
  std::string widths;                  ///< "2,3,4"
  std::vector<double> mean_bits = {};  ///< of each draw, as all that follow
  std::vector<double> bytes = {};      ///< empty in files of earlier versions
  std::vector<double> true_held_out = {}, true_calibration = {};
  std::vector<std::vector<int>> bits = {};     ///< of the layers
  std::vector<ReportPredictor> measured = {};  ///< in the order of the file's names
  ReportPredictor narrowness = {},
                  true_other = {};  ///< all that is known is the size; the truth on other pictures

  std::size_t draws() const { return true_held_out.size(); }
  const ReportPredictor* predictor(const std::string& name) const;
};

struct ReportPredictions {
  std::string model;
  std::int64_t calibration_images = 0, held_out_images = 0;
  std::string calibration_split = {}, held_out_split = {};  ///< empty: both from the same pictures
  double calibration_loss = 0, held_out_loss = 0;
  double interval = 0;                   ///< the level of all intervals
  std::vector<std::string> layers = {};  ///< empty in files of earlier versions
  /// From the widest widths to the narrowest.
  std::vector<ReportPredictionSet> sets = {};
  /// Names of the sensitivities, by their mean correlation over all sets on the held-out pictures, best
  /// first.
  std::vector<std::string> ranking = {};

  /// On the held-out pictures, over all sets.
  double mean_correlation(const std::string& name) const;
};

/// Throws Error naming the file and the entry for what cannot be read.
ReportPredictions read_predictions(const JsonObject& json);

}  // namespace goshawk
