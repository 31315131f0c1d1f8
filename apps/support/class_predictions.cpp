#include "apps/goshawk/class_predictions.hpp"

#include <cmath>
#include <fmt/format.h>

#include "apps/support/csv_file.hpp"
#include "core/error.hpp"
#include "core/file.hpp"

namespace goshawk {
namespace {

constexpr const char* kHead = "image,label,predicted";

}  // namespace

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

}  // namespace goshawk
