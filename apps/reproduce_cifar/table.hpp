// The results of a run and how they are shown: table.json and table.md.
#pragma once

#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/reproduce_cifar/job.hpp"
#include "apps/support/class_predictions.hpp"
#include "quant/bits.hpp"
#include "quant/costs.hpp"
#include "quant/sensitivity.hpp"

namespace goshawk {

/// All that there is to show.
struct TableInput {
  std::map<std::string, std::vector<JobResult>> results;  ///< by slug, one for each seed
  std::map<std::string, BitAssignment> bits;              ///< by slug
  /// By slug, one for each result: of the rows that have been compared picture by picture, if all runs have
  /// them.
  std::map<std::string, std::vector<ClassPredictions>> predictions;
  std::optional<Sensitivity> sensitivity;  ///< λ and traces, when they were measured
  std::optional<Costs> hawq, hawq_v2;      ///< Ω at every width, then
};

/// Mean and standard deviation over seeds, in percent of the test pictures.
struct Accuracy {
  double mean = 0;
  double deviation = 0;  ///< of the seeds, with n − 1; 0 for one
  std::int64_t seeds = 0;
  std::int64_t images = 0;
  /// Standard deviation of one such accuracy: over seeds, and by the choice of test pictures, √(p(1−p)/N).
  double spread() const;
  /// Of the mean: the first part falls with the number of seeds.
  double standard_error() const;
};
Accuracy accuracy_of(const std::vector<JobResult>& results);

/// The rows whose lead over Direct the table ends with, and Direct.
inline constexpr std::array<const char*, 3> kComparedRows = {"direct", "hawq", "hawq-v2"};

/// {"model", "data", "rows": [{"row", "name", "accuracy", "deviation", …, "seeds": [one result each]}]}.
nlohmann::ordered_json table_json(const TableInput& input);

/// The main table beside the paper's numbers, where both disagree, the conventions, and the table of layers:
/// markdown that reads well as it is. Rows that are not finished are left out.
std::string table_markdown(const TableInput& input);

}  // namespace goshawk
