// Ranges of activations from the activations of calibration batches.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/tensor.hpp"
#include "quant/quantizer.hpp"

namespace goshawk {

enum class CalibrationRule : std::uint8_t {
  max,         ///< the largest magnitude
  percentile,  ///< a percentile of the magnitudes; of an asymmetric range: the central share of the values
  mse,         ///< the clip with the least squared quantization error
  ema,  ///< the exponential moving average of the batches' extremes, from the first batch on: HAWQ-V3's
};
std::string_view calibration_rule_name(CalibrationRule rule);
/// Throws UsageError that lists the names there are.
CalibrationRule parse_calibration_rule(std::string_view name);

/// Collects what calibration needs about one activation, batch after batch: exact extremes and an evenly
/// spaced sample of at most `kSamplesPerBatch` elements a batch.
class ActivationObserver {
 public:
  /// Values kept of each batch at most, as f64: 512 KiB a layer and batch.
  static constexpr std::int64_t kSamplesPerBatch = 65536;

  /// Throws Error for values that are not finite, naming `layer`.
  void observe(const Tensor& x, std::string_view layer);
  bool empty() const { return sample_.empty(); }
  double minimum() const { return minimum_; }
  double maximum() const { return maximum_; }
  /// Of the observed batches in order: e ← momentum·e + (1 − momentum)·extreme.
  double average_minimum(double momentum) const;
  double average_maximum(double momentum) const;
  const std::vector<double>& sample() const { return sample_; }

 private:
  double minimum_ = 0;
  double maximum_ = 0;
  std::vector<double> minima_, maxima_;  // of each batch
  std::vector<double> sample_;
};

struct CalibrationOptions {
  CalibrationRule rule = CalibrationRule::mse;
  double percentile = 99.9;  ///< in (0, 100]
  double momentum = 0.99;    ///< of the moving average, in [0, 1)
};

/// The clip α > 0 of a `bits`-bit activation quantizer (see pact). An activation that is zero everywhere gets
/// α = 1. Throws Error when nothing was observed.
double calibrated_clip(const ActivationObserver& observer, int bits, bool is_signed,
                       const CalibrationOptions& options);

/// The grid of a `bits`-bit asymmetric activation quantizer, [1] and of `dtype`: between the extremes by the
/// rule, for mse the range of least squared error. Throws Error when nothing was observed.
WeightGrid calibrated_grid(const ActivationObserver& observer, int bits, DType dtype,
                           const CalibrationOptions& options);

/// Where LSQ starts an activation's step: 2·mean|x|/√q, q = 2^b − 1 or, signed, 2^(b−1) − 1, over the sample;
/// 1 for an activation that is zero everywhere. Throws Error when nothing was observed.
double initial_step(const ActivationObserver& observer, int bits, bool is_signed);

}  // namespace goshawk
