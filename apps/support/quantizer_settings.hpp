// The options that say how weights and activations are quantized.
#pragma once

#include <string>

#include "quant/quantized_model.hpp"

namespace goshawk {

/// By name: see WeightScheme, Granularity, ClipRule, ActivationScheme and CalibrationRule.
struct QuantizerSettings {
  std::string weight_scheme = "mid_rise";
  std::string granularity = "channel";
  std::string clip = "learned";
  double percentile = 99.9;  ///< of the clip rule and of the calibration of that name
  std::string activation_scheme = "pact";
  std::string calibration = "mse";
};

/// Calls f(long option without dashes, member, description) for each of them.
template <class Settings, class F>
void for_each_quantizer_setting(Settings& q, F f) {
  f("weight-scheme", q.weight_scheme,
    "levels of the weight quantizer: symmetric, mid_rise, asymmetric, twos_complement (LSQ's), dorefa or "
    "lq_nets");
  f("granularity", q.granularity, "one weight step per layer or per channel");
  f("clip", q.clip,
    "range of the weight quantizer: min_max, mse, percentile, learned (a trained step from the mse choice) "
    "or lsq (from LSQ's); dorefa and lq_nets need none of them");
  f("percentile", q.percentile, "of --clip percentile and --calibration percentile");
  f("activation-scheme", q.activation_scheme,
    "quantizer of the activations: pact (learned clip), lsq (learned step), dorefa (clip at 1), lq_nets (a "
    "fitted basis), fixed (calibrated clip) or asymmetric (calibrated range)");
  f("calibration", q.calibration, "first range of the activations: max, percentile, mse or ema");
}

/// Throws UsageError for an unknown name and for what cannot be combined.
QuantizationOptions quantization_options(const QuantizerSettings& settings);
/// The weight quantizer as fine-tuning starts from it, which Q(W) − W is measured with: 8 bits stand for
/// whatever width is asked for, and the mse choice for a step that is learned from it.
WeightSpec initial_weight_spec(const QuantizerSettings& settings);

}  // namespace goshawk
