#include "apps/support/class_predictions.hpp"

#include <cmath>
#include <fmt/format.h>
#include <numeric>

#include "apps/support/csv_file.hpp"
#include "autograd/curvature/results.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "nn/layers.hpp"

namespace goshawk {
namespace {

constexpr const char* kHead = "image,label,predicted";

// How many of the runs get each picture right, as a share of them.
std::vector<double> shares_right(std::span<const ClassPredictions> runs) {
  std::vector<double> shares(runs.front().labels.size());
  for (const ClassPredictions& run : runs) {
    for (std::size_t i = 0; i < shares.size(); ++i)
      shares[i] += run.predicted[i] == run.labels[i] ? 1 / static_cast<double>(runs.size()) : 0;
  }
  return shares;
}

// Variance of the mean accuracy of runs with different seeds on the same pictures.
double variance_of_seeds(std::span<const ClassPredictions> runs) {
  if (runs.size() < 2) return 0;
  std::vector<double> accuracies;
  for (const ClassPredictions& run : runs) {
    const std::vector<double> right = shares_right(std::span(&run, 1));
    accuracies.push_back(std::accumulate(right.begin(), right.end(), 0.0) /
                         static_cast<double>(right.size()));
  }
  return std::pow(estimate_mean(accuracies).standard_error, 2);
}

}  // namespace

void ClassPredictions::add(const Batch& batch, const Tensor& logits) {
  const auto append = [](std::vector<std::int64_t>& to, const Tensor& from) {
    const auto numbers = from.span<std::int64_t>();
    to.insert(to.end(), numbers.begin(), numbers.end());
  };
  append(labels, batch.labels);
  append(predicted, predicted_classes(logits));
}

void write_predictions(const std::string& path, const ClassPredictions& predictions) {
  std::string text = fmt::format("{}\n", kHead);
  for (std::size_t i = 0; i < predictions.labels.size(); ++i)
    text += fmt::format("{},{},{}\n", i, predictions.labels[i], predictions.predicted[i]);
  write_file_atomic(path, text);
}

ClassPredictions read_predictions(const std::string& path) {
  ClassPredictions predictions;
  for (const std::vector<double>& row : read_csv(path, kHead)) {
    const auto i = static_cast<double>(predictions.labels.size());
    check(row[0] == i && row[1] == std::floor(row[1]) && row[2] == std::floor(row[2]),
          "[evaluate] {}: line {} is not of picture {} with two classes; write the file again with "
          "--predictions",
          path, i + 2, i);
    predictions.labels.push_back(static_cast<std::int64_t>(row[1]));
    predictions.predicted.push_back(static_cast<std::int64_t>(row[2]));
  }
  return predictions;
}

double PairedComparison::difference() const {
  return static_cast<double>(only_first - only_second) / static_cast<double>(images);
}

double PairedComparison::standard_error() const {
  // Each picture adds 1, 0 or −1 to the difference; this is the spread of their mean.
  const auto n = static_cast<double>(images);
  const double square = static_cast<double>(only_first + only_second) / n;
  return std::sqrt((square - difference() * difference()) / n);
}

PairedComparison compare(const ClassPredictions& first, const ClassPredictions& second,
                         const std::string& source) {
  check(first.labels.size() == second.labels.size(),
        "[evaluate] {} is of {} pictures, but {} were evaluated; take the same data and --images", source,
        second.labels.size(), first.labels.size());
  PairedComparison result{.images = static_cast<std::int64_t>(first.labels.size())};
  for (std::size_t i = 0; i < first.labels.size(); ++i) {
    check(first.labels[i] == second.labels[i],
          "[evaluate] picture {} has label {} in {} and {} here; it is of other pictures", i,
          second.labels[i], source, first.labels[i]);
    const bool one = first.predicted[i] == first.labels[i], other = second.predicted[i] == second.labels[i];
    result.only_first += one && !other ? 1 : 0;
    result.only_second += other && !one ? 1 : 0;
  }
  return result;
}

double PairedLead::standard_error() const {
  return std::hypot(pictures_error, seeds_error);
}

PairedLead paired_lead(std::span<const ClassPredictions> first, std::span<const ClassPredictions> second) {
  check(!first.empty() && !second.empty(), "[paired_lead] there is no run to compare");
  for (const auto& runs : {first, second}) {
    for (const ClassPredictions& run : runs)
      check(run.labels == first.front().labels, "[paired_lead] the runs are not of the same pictures");
  }
  std::vector<double> differences = shares_right(first);
  const std::vector<double> other = shares_right(second);
  for (std::size_t i = 0; i < differences.size(); ++i) differences[i] -= other[i];
  const Estimate mean = estimate_mean(differences);
  return {.difference = mean.value,
          .pictures_error = mean.standard_error,
          .seeds_error = std::sqrt(variance_of_seeds(first) + variance_of_seeds(second))};
}

}  // namespace goshawk
