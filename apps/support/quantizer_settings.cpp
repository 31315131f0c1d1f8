#include "apps/support/quantizer_settings.hpp"

#include "core/error.hpp"

namespace goshawk {

QuantizationOptions quantization_options(const QuantizerSettings& settings) {
  QuantizationOptions q;
  q.weight_scheme = parse_weight_scheme(settings.weight_scheme);
  q.weight_granularity = parse_granularity(settings.granularity);
  q.weight_clip = parse_clip_rule(settings.clip);
  q.weight_percentile = settings.percentile;
  q.activation_scheme = parse_activation_scheme(settings.activation_scheme);
  q.calibration.rule = parse_calibration_rule(settings.calibration);
  q.calibration.percentile = settings.percentile;
  try {
    check_spec({.scheme = q.weight_scheme,
                .granularity = q.weight_granularity,
                .clip = q.weight_clip,
                .percentile = q.weight_percentile},
               "--weight-scheme, --granularity, --clip");
  } catch (const Error& e) {
    throw UsageError(e.what());
  }
  return q;
}

WeightSpec initial_weight_spec(const QuantizerSettings& settings) {
  const QuantizationOptions q = quantization_options(settings);
  return {.bits = 8,
          .scheme = q.weight_scheme,
          .granularity = q.weight_granularity,
          .clip = q.weight_clip == ClipRule::learned ? ClipRule::mse : q.weight_clip,
          .percentile = q.weight_percentile};
}

}  // namespace goshawk
