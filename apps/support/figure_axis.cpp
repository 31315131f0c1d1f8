#include "apps/support/figure_axis.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "apps/support/figure_text.hpp"

namespace goshawk {
namespace {

constexpr double kMargin = 0.04;  // of the range, around the data

// 1, 2 or 5 times a power of ten, the one whose ratio to `wanted` is nearest to 1.
double round_step(double wanted) {
  const double power = std::pow(10, std::floor(std::log10(wanted)));
  double best = power;
  for (const double factor : {2.0, 5.0, 10.0}) {
    const double step = factor * power;
    if (std::abs(std::log(step / wanted)) < std::abs(std::log(best / wanted))) best = step;
  }
  return best;
}

}  // namespace

AxisMap::AxisMap(const FigureAxis& axis, const std::vector<double>& data)
    : scale_(axis.scale), categories_(axis.categories) {
  if (scale_ == AxisScale::categories) {
    low_ = -0.5;
    high_ = std::max(1.0, static_cast<double>(categories_.size())) - 0.5;
    return;
  }
  const bool log = scale_ == AxisScale::log;
  double least = INFINITY, most = -INFINITY;
  for (const double x : data) {
    if (!std::isfinite(x) || (log && x <= 0)) continue;
    least = std::min(least, x);
    most = std::max(most, x);
  }
  if (least > most) {
    least = log ? 0.1 : 0;
    most = 1;
  }
  if (log) {
    // A single value still gets an axis.
    const double widening = std::max(kMargin * std::log10(most / least), 0.08);
    low_ = least * std::pow(10, -widening);
    high_ = most * std::pow(10, widening);
  } else {
    const double range = most > least ? most - least : std::max(std::abs(most), 1.0);
    // Zero is a limit of its own where the data stop at it.
    low_ = least == 0 ? 0 : least - kMargin * range;
    high_ = most + kMargin * range;
  }
  low_ = axis.low.value_or(low_);
  high_ = axis.high.value_or(high_);
  if (!(high_ > low_)) high_ = log ? low_ * 10 : low_ + 1;
}

void AxisMap::place(double low_pixel, double high_pixel) {
  low_pixel_ = low_pixel;
  high_pixel_ = high_pixel;
}

double AxisMap::position(double coordinate) const {
  if (scale_ != AxisScale::log) return (coordinate - low_) / (high_ - low_);
  if (!(coordinate > 0)) return -1;
  return std::log(coordinate / low_) / std::log(high_ / low_);
}

double AxisMap::operator()(double coordinate) const {
  const double t = std::clamp(position(coordinate), -0.5, 1.5);
  return low_pixel_ + t * (high_pixel_ - low_pixel_);
}

bool AxisMap::shows(double coordinate) const {
  const double t = position(coordinate);
  return t >= -1e-9 && t <= 1 + 1e-9;
}

std::vector<AxisTick> AxisMap::ticks(int wanted) const {
  if (scale_ == AxisScale::linear) return linear_ticks(wanted);
  if (scale_ == AxisScale::log) return log_ticks(wanted);
  std::vector<AxisTick> ticks;
  for (std::size_t k = 0; k < categories_.size(); ++k) {
    ticks.push_back({static_cast<double>(k), categories_[k]});
  }
  return ticks;
}

std::vector<AxisTick> AxisMap::linear_ticks(int wanted) const {
  const double step = round_step((high_ - low_) / std::max(wanted, 1));
  const int decimals = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9)));
  std::vector<AxisTick> ticks;
  for (double k = std::ceil(low_ / step - 1e-9); k * step <= high_ + 1e-9 * step; ++k) {
    const double value = k == 0 ? 0 : k * step;
    const bool large = std::abs(high_) >= 1e4 || std::abs(low_) >= 1e4;
    ticks.push_back({value, large ? (std::max(std::abs(high_), std::abs(low_)) < 1e7 ? with_thousands(value)
                                                                                     : readable(value))
                            : decimals > 4 ? readable(value)
                                           : fmt::format("{:.{}f}", value, decimals)});
  }
  return ticks;
}

std::vector<AxisTick> AxisMap::log_ticks(int wanted) const {
  const int first = static_cast<int>(std::floor(std::log10(low_))),
            last = static_cast<int>(std::ceil(std::log10(high_)));
  const double decades = std::log10(high_ / low_);
  const int every = std::max(1, static_cast<int>(std::ceil(decades / std::max(wanted, 1))));
  // Plain numbers where all of them are short.
  const bool plain = low_ >= 0.9e-4 && high_ <= 2e5;
  const auto label = [&](double factor, int exponent) {
    if (plain) {
      const double value = factor * std::pow(10, exponent);
      return value >= 1 ? with_thousands(value) : fmt::format("{:.{}f}", value, -exponent);
    }
    return factor == 1 ? power_of_ten(exponent) : fmt::format("{:g}·{}", factor, power_of_ten(exponent));
  };
  std::vector<AxisTick> ticks;
  for (int exponent = first; exponent <= last; ++exponent) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double value = factor * std::pow(10, exponent);
      if (!shows(value)) continue;
      // Steps between powers of ten are named where there are few powers.
      const bool named = factor == 1 ? exponent % every == 0 : decades < 1.8;
      if (named || (factor == 1 && every <= 4))
        ticks.push_back({value, named ? label(factor, exponent) : ""});
    }
  }
  const auto named =
      std::count_if(ticks.begin(), ticks.end(), [](const auto& t) { return !t.label.empty(); });
  if (named >= 2) return ticks;
  // Within less than a decade, 1, 2 and 5 may be one tick or none: even steps then say more. They come closer
  // and closer; where they would meet, only their lines are left.
  ticks = linear_ticks(wanted);
  const double apart = 0.7 / std::max(wanted, 1);
  double named_at = -1;
  for (AxisTick& tick : ticks) {
    if (position(tick.value) - named_at < apart) {
      tick.label.clear();
    } else {
      named_at = position(tick.value);
    }
  }
  return ticks;
}

}  // namespace goshawk
