#include "apps/support/normalization.hpp"

#include <array>
#include <cmath>
#include <fmt/ranges.h>
#include <locale>
#include <sstream>

#include "core/error.hpp"
#include "core/json.hpp"

namespace goshawk {
namespace {

constexpr const char* kMean = "normalization.mean";
constexpr const char* kStd = "normalization.std";

std::array<float, 3> parse(const std::string& text, const char* key, bool positive,
                           const std::string& source) {
  std::istringstream stream(text);
  stream.imbue(std::locale::classic());
  std::array<float, 3> values{};
  for (float& value : values) stream >> value;
  bool good = !stream.fail() && (stream >> std::ws).eof();
  for (const float value : values) good = good && std::isfinite(value) && (!positive || value > 0);
  check(good,
        "[normalization] {}: the metadata '{}' is {} instead of three {}numbers with spaces between; give "
        "--mean "
        "and --std",
        source, key, printable(text), positive ? "positive " : "");
  return values;
}

}  // namespace

std::map<std::string, std::string> normalization_metadata(const Normalization& normalization) {
  return {{kMean, fmt::format("{}", fmt::join(normalization.mean, " "))},
          {kStd, fmt::format("{}", fmt::join(normalization.stddev, " "))}};
}

std::optional<Normalization> normalization_of(const std::map<std::string, std::string>& metadata,
                                              const std::string& source) {
  const auto mean = metadata.find(kMean);
  const auto stddev = metadata.find(kStd);
  if (mean == metadata.end() && stddev == metadata.end()) return std::nullopt;
  check(mean != metadata.end() && stddev != metadata.end(),
        "[normalization] {}: the metadata has only one of '{}' and '{}'; give --mean and --std", source,
        kMean, kStd);
  return Normalization{parse(mean->second, kMean, false, source), parse(stddev->second, kStd, true, source)};
}

}  // namespace goshawk
