// Clip ranges of activations from the activations of a calibration batch.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/tensor.hpp"

namespace goshawk {

enum class CalibrationRule : std::uint8_t {
  max,         ///< the largest magnitude
  percentile,  ///< a percentile of the magnitudes
  mse,         ///< the clip with the least squared quantization error
};
std::string_view calibration_rule_name(CalibrationRule rule);
/// Throws UsageError that lists the names there are.
CalibrationRule parse_calibration_rule(std::string_view name);

/// Collects what calibration needs about one activation, batch after batch: exact extremes and an evenly
/// spaced sample of at most `kSamplesPerBatch` elements a batch.
class ActivationObserver {
 public:
  static constexpr std::int64_t kSamplesPerBatch = 65536;

  /// Throws Error for values that are not finite, naming `layer`.
  void observe(const Tensor& x, std::string_view layer);
  bool empty() const { return sample_.empty(); }
  double minimum() const { return minimum_; }
  double maximum() const { return maximum_; }
  const std::vector<double>& sample() const { return sample_; }

 private:
  double minimum_ = 0;
  double maximum_ = 0;
  std::vector<double> sample_;
};

struct CalibrationOptions {
  CalibrationRule rule = CalibrationRule::mse;
  double percentile = 99.9;  ///< of the magnitudes, in (0, 100]
};

/// The clip α > 0 of a `bits`-bit activation quantizer (see pact). An activation that is zero everywhere gets
/// α = 1. Throws Error when nothing was observed.
double calibrated_clip(const ActivationObserver& observer, int bits, bool is_signed,
                       const CalibrationOptions& options);

}  // namespace goshawk
