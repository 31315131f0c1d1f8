#include "quant/calibration.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "quant/rounding.hpp"

namespace goshawk {
namespace {

constexpr std::array kRules = {std::pair(CalibrationRule::max, std::string_view("max")),
                               std::pair(CalibrationRule::percentile, std::string_view("percentile")),
                               std::pair(CalibrationRule::mse, std::string_view("mse")),
                               std::pair(CalibrationRule::ema, std::string_view("ema"))};

// Σ (Q(x) − x)² of the sample under the clip α; parallel over nothing, since calibration is rare.
double clip_error(const std::vector<double>& sample, double alpha, int bits, bool is_signed) {
  const double levels = is_signed ? (1 << (bits - 1)) - 1 : (1 << bits) - 1;
  const double low = is_signed ? -alpha : 0;
  double sum = 0;
  for (double x : sample) {
    const double e = round_even(clamp_between(x, low, alpha) * (levels / alpha)) * (alpha / levels) - x;
    sum += e * e;
  }
  return sum;
}

double mse_clip(const std::vector<double>& sample, double largest, int bits, bool is_signed) {
  constexpr int kCoarse = 48, kFine = 8;
  std::vector<double> errors(kCoarse);
  parallel_for(kCoarse, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      errors[static_cast<std::size_t>(k)] =
          clip_error(sample, largest * static_cast<double>(k + 1) / kCoarse, bits, is_signed);
    }
  });
  const auto coarse = std::min_element(errors.begin(), errors.end());
  const double ratio = static_cast<double>(coarse - errors.begin() + 1) / kCoarse;
  double best = largest * ratio, best_error = *coarse;
  for (int k = -kFine + 1; k < kFine; ++k) {
    const double alpha = largest * std::min(1.0, ratio + static_cast<double>(k) / (kFine * kCoarse));
    if (!(alpha > 0)) continue;
    const double e = clip_error(sample, alpha, bits, is_signed);
    if (e < best_error) {
      best = alpha;
      best_error = e;
    }
  }
  return best;
}

double moving_average(const std::vector<double>& values, double momentum) {
  if (values.empty()) return 0;
  double average = values[0];
  for (double v : values) average = momentum * average + (1 - momentum) * v;
  return average;
}

void check_options(const ActivationObserver& observer, const CalibrationOptions& options) {
  check(!observer.empty(),
        "[calibration] no activation was observed; run the model on a calibration batch first");
  check(options.percentile > 0 && options.percentile <= 100,
        "[calibration] the percentile {} is not in (0, 100]", options.percentile);
  check(options.momentum >= 0 && options.momentum < 1, "[calibration] the momentum {} is not in [0, 1)",
        options.momentum);
}

}  // namespace

double ActivationObserver::average_minimum(double momentum) const {
  return moving_average(minima_, momentum);
}
double ActivationObserver::average_maximum(double momentum) const {
  return moving_average(maxima_, momentum);
}

std::string_view calibration_rule_name(CalibrationRule rule) {
  for (const auto& [value, name] : kRules) {
    if (value == rule) return name;
  }
  return "?";
}

CalibrationRule parse_calibration_rule(std::string_view name) {
  for (const auto& [value, text] : kRules) {
    if (text == name) return value;
  }
  throw UsageError(
      fmt::format("[calibration rule] '{}' is unknown; use one of max, percentile, mse, ema", name));
}

void ActivationObserver::observe(const Tensor& x, std::string_view layer) {
  dispatch_floating(x.dtype(), "calibrate", [&]<class T>() {
    const T* p = x.data<T>();
    const std::int64_t n = x.numel();
    if (n == 0) return;
    double low = static_cast<double>(p[0]), high = low;
    for (std::int64_t i = 0; i < n; ++i) {
      const double v = p[i];
      check(std::isfinite(v),
            "[calibrate] the input of layer '{}' holds {}; check the weights and the pictures", layer, v);
      low = std::min(low, v);
      high = std::max(high, v);
    }
    minimum_ = sample_.empty() ? low : std::min(minimum_, low);
    maximum_ = sample_.empty() ? high : std::max(maximum_, high);
    minima_.push_back(low);
    maxima_.push_back(high);
    // Evenly spaced, and without a factor in common with the channels, all of which are then seen equally
    // often.
    const std::int64_t channels = x.dim(-1);
    std::int64_t step = ((n + kSamplesPerBatch - 1) / kSamplesPerBatch) | 1;
    while (std::gcd(step, channels) != 1) step += 2 - channels % 2;
    for (std::int64_t i = 0; i < n; i += step) sample_.push_back(static_cast<double>(p[i]));
  });
}

double calibrated_clip(const ActivationObserver& observer, int bits, bool is_signed,
                       const CalibrationOptions& options) {
  check_bits(bits, "calibrated_clip");
  check(bits != kFullPrecision && (!is_signed || bits >= 2),
        "[calibrated_clip] {} bits have no {} clip; use 2 to 8 (1 as well when the activation is unsigned)",
        bits, is_signed ? "signed" : "unsigned");
  check_options(observer, options);
  const double largest =
      is_signed ? std::max(std::abs(observer.minimum()), std::abs(observer.maximum())) : observer.maximum();
  if (!(largest > 0)) return 1;
  switch (options.rule) {
    case CalibrationRule::max:
      return largest;
    case CalibrationRule::percentile: {
      std::vector<double> magnitudes;
      for (double x : observer.sample()) magnitudes.push_back(is_signed ? std::abs(x) : std::max(x, 0.0));
      const double clip = nearest_rank(magnitudes, options.percentile);
      // A sparse activation may have a percentile of zero, which is no clip.
      return clip > 0 ? clip : largest;
    }
    case CalibrationRule::mse:
      return mse_clip(observer.sample(), largest, bits, is_signed);
    case CalibrationRule::ema: {
      const double high = observer.average_maximum(options.momentum);
      const double clip = is_signed ? std::max(-observer.average_minimum(options.momentum), high) : high;
      return clip > 0 ? clip : largest;
    }
  }
  return largest;
}

WeightGrid calibrated_grid(const ActivationObserver& observer, int bits, DType dtype,
                           const CalibrationOptions& options) {
  check_options(observer, options);
  const auto grid_of = [&](const std::vector<double>& values, ClipRule clip) {
    const WeightSpec spec{.bits = bits,
                          .scheme = WeightScheme::asymmetric,
                          .granularity = Granularity::layer,
                          .clip = clip,
                          .percentile = options.percentile};
    const Tensor w = Tensor::from<double>(values, {static_cast<std::int64_t>(values.size())});
    return choose_grid(w.to(dtype), spec);
  };
  switch (options.rule) {
    case CalibrationRule::max:
      break;
    case CalibrationRule::percentile:
      return grid_of(observer.sample(), ClipRule::percentile);
    case CalibrationRule::mse: {
      // The sample may have missed the extremes, which must not widen the range but may be its best end.
      std::vector<double> values = observer.sample();
      values.push_back(observer.minimum());
      values.push_back(observer.maximum());
      return grid_of(values, ClipRule::mse);
    }
    case CalibrationRule::ema:
      return grid_of({observer.average_minimum(options.momentum), observer.average_maximum(options.momentum)},
                     ClipRule::min_max);
  }
  return grid_of({observer.minimum(), observer.maximum()}, ClipRule::min_max);
}

double initial_step(const ActivationObserver& observer, int bits, bool is_signed) {
  check_bits(bits, "initial_step");
  check(bits != kFullPrecision && (!is_signed || bits >= 2),
        "[initial_step] {} bits have no {} step; use 2 to 8 (1 as well when the activation is unsigned)",
        bits, is_signed ? "signed" : "unsigned");
  check_options(observer, {});
  double sum = 0;
  for (double x : observer.sample()) sum += std::abs(x);
  const double mean = sum / static_cast<double>(observer.sample().size());
  const double outermost = is_signed ? (1 << (bits - 1)) - 1 : (1 << bits) - 1;
  return mean > 0 ? 2 * mean / std::sqrt(outermost) : 1;
}

}  // namespace goshawk
