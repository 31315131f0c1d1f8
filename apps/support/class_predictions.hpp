// What a model took each picture for, and how another model did on the same pictures.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "datasets/loader.hpp"

namespace goshawk {

/// In the order of the data set.
struct ClassPredictions {
  std::vector<std::int64_t> labels;
  std::vector<std::int64_t> predicted;  ///< −1 where the logits were not numbers

  /// What EvaluateOptions::on_logits gets.
  void add(const Batch& batch, const Tensor& logits);
};

/// Writes "image,label,predicted" and a line for each picture, atomically.
void write_predictions(const std::string& path, const ClassPredictions& predictions);
/// The inverse. Throws Error naming the file and the line for anything else.
ClassPredictions read_predictions(const std::string& path);

/// Two models on the same pictures. What both get right or wrong says nothing about which is better, so the
/// error of their difference is smaller than that of two accuracies (McNemar, Psychometrika 12, 1947).
struct PairedComparison {
  std::int64_t images = 0;
  std::int64_t only_first = 0, only_second = 0;  ///< pictures that only one of them gets right

  /// Accuracy of the first minus that of the second, in [−1, 1].
  double difference() const;
  /// Its standard error, from the choice of pictures.
  double standard_error() const;
};

/// Throws Error, naming `source` of the second, when they are not of the same pictures: other numbers of
/// them, or other labels.
PairedComparison compare(const ClassPredictions& first, const ClassPredictions& second,
                         const std::string& source);

/// The same for two kinds of training, each of which ran with several seeds.
struct PairedLead {
  double difference = 0;      ///< mean accuracy of the first minus that of the second, in [−1, 1]
  double pictures_error = 0;  ///< standard error from the choice of pictures, which all runs share
  double seeds_error = 0;     ///< and from the seeds, as far as there are several
  double standard_error() const;
};
/// Throws Error for no runs at all, and for runs of other pictures.
PairedLead paired_lead(std::span<const ClassPredictions> first, std::span<const ClassPredictions> second);

}  // namespace goshawk
