// A finished or unfinished run directory as the report reads it: everything that is there, and what is not.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/report/predictions.hpp"
#include "quant/bits.hpp"
#include "quant/cost_allocation.hpp"
#include "quant/costs.hpp"
#include "quant/json_file.hpp"
#include "quant/packed_model.hpp"
#include "quant/sensitivity.hpp"

namespace goshawk {

/// A line of table.json. Runs of earlier versions do not say the row's name and the paper's numbers; these
/// are then those that reproduce_cifar knows today.
struct ReportRow {
  struct Paper {
    double accuracy = 0, drop = 0, weight_compression = 1, activation_compression = 1;
  };
  std::string slug, name, weight_bits, activation_bits;
  std::optional<double> untuned = {};  ///< accuracy right before fine-tuning, percent
  double accuracy = 0;                 ///< percent, the mean over the seeds
  double deviation = 0;                ///< between seeds
  std::int64_t images = 0;
  std::size_t seeds = 1;
  std::optional<double> drop = {};
  std::optional<double> loss = {};  ///< mean cross-entropy of the test pictures
  double weight_compression = 1, activation_compression = 1;
  std::optional<PackedSize> packed = {};
  std::optional<Paper> paper = {};

  /// Standard deviation of the accuracy: between seeds, and from the choice of test pictures.
  double spread() const;
};

/// pareto-ROW.json, or for one model what its costs.json implies. The points' bits are in the order of
/// `layers`.
struct ReportFrontier {
  std::string slug;
  std::string quantity = "Ω";  ///< what a point's objective is called
  std::vector<std::string> layers = {};
  std::vector<FrontierPoint> points = {};
  std::optional<FrontierPoint> taken = {};  ///< of one model; need not be one of the points
};

/// The job of goshawk train's epochs, and the row of the full-precision weights.
inline constexpr const char* kBaselineJob = "baseline";
/// The row and the job of goshawk finetune and quantize.
inline constexpr const char* kModelJob = "model";

/// An epoch in log.jsonl. What was not a number when it was logged is NaN.
struct ReportEpoch {
  std::string job;  ///< slug, with "-seedN" for other seeds than the run's
  std::int64_t stage = 0, epoch = 0;
  double lr = 0, train_loss = 0, train_accuracy = 0, test_loss = 0, test_accuracy = 0;
};

/// Stages of fine-tuning, each with the layers that become quantized in it: order-JOB.json.
using ReportStages = std::vector<std::vector<std::string>>;

struct ReportRun {
  std::string path;
  nlohmann::json config = nullptr;  ///< null when there is none
  std::string program = {};         ///< "goshawk quantize", "predict_loss"; empty for reproduce_cifar
  /// Of one model, as goshawk train, finetune and quantize write it, and not of a table.
  bool one_model = false;
  std::string model, data;  ///< as table.json says, or else config.json
  std::vector<ReportRow> rows = {};
  std::optional<Sensitivity> sensitivity = {};
  std::map<std::string, Costs> costs = {};         ///< by the name of the sensitivity
  std::map<std::string, BitAssignment> bits = {};  ///< by slug
  std::string model_costs = {};                    ///< what costs.json holds, a key of costs
  std::vector<ReportFrontier> frontiers = {};
  std::vector<ReportEpoch> epochs = {};
  std::map<std::string, ReportStages> orders = {};  ///< by job
  std::optional<JsonObject> curvature = {};         ///< curvature.json
  std::string curvature_path = {};                  ///< the directory that it and its curves are in
  std::optional<ReportPredictions> predictions = {};
  /// A sentence for each file that the report would show and that is not there.
  std::vector<std::string> missing = {};

  const ReportRow* row(std::string_view slug) const;
  const ReportRow* baseline() const { return row(kBaselineJob); }
  /// Whether the directory is one that goshawk curvature wrote.
  bool is_curvature_run() const { return program == "goshawk curvature"; }
  /// The same of predict_loss.
  bool is_prediction_run() const { return program == "predict_loss" || predictions; }
  /// The name of the sensitivity whose costs the row's bits come from; empty when there is none.
  std::string costs_of(const std::string& slug) const;
};

/// "HAWQ-V2" of "hawq-v2", "the quantized model" of kModelJob, "HAWQ-V2, seed 3" of "hawq-v2-seed3"; an
/// unknown job's own name.
std::string job_title(const std::string& job);

/// The last name of an absolute path, and any other text as it is: a report is made to be given away, and
/// where its reader's files are is somewhere else.
std::string without_directories(const std::string& path);

/// Throws UsageError when `path` is no directory or holds no run, Error naming the file and the entry for
/// what cannot be read.
ReportRun read_report_run(const std::string& path);

/// The layers or blocks of curvature.json and then the network, which has no name.
std::vector<JsonObject> curvature_parts(const ReportRun& run);

}  // namespace goshawk
