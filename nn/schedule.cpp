#include "nn/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "core/error.hpp"

namespace goshawk {
namespace {

// Half a cosine from `from` at 0 to `to` at 1.
double half_cosine(double from, double to, double fraction) {
  return to + (from - to) * (1 + std::cos(std::numbers::pi * fraction)) / 2;
}

}  // namespace

double StepSchedule::operator()(std::int64_t step) const {
  const auto passed =
      std::count_if(milestones.begin(), milestones.end(), [&](std::int64_t m) { return m <= step; });
  return lr * std::pow(gamma, static_cast<double>(passed));
}

double CosineSchedule::operator()(std::int64_t step) const {
  check(total > 0, "[CosineSchedule] total is {}; it must be the positive number of steps", total);
  const double fraction =
      static_cast<double>(std::clamp<std::int64_t>(step, 0, total)) / static_cast<double>(total);
  return half_cosine(lr, lr_end, fraction);
}

double OneCycleSchedule::operator()(std::int64_t step) const {
  check(total > 0 && rise >= 0 && rise <= 1 && start_divisor > 0 && end_divisor > 0,
        "[OneCycleSchedule] total {} and the divisors {} and {} must be positive and rise {} between 0 and 1",
        total, start_divisor, end_divisor, rise);
  const double last = static_cast<double>(total - 1);
  const double peak = std::clamp(rise * static_cast<double>(total) - 1, 0.0, last);
  const double at = std::clamp(static_cast<double>(step), 0.0, last);
  const double start = lr / start_divisor;
  if (at < peak) return half_cosine(start, lr, at / peak);
  if (at == peak) return lr;
  return half_cosine(lr, start / end_divisor, (at - peak) / (last - peak));
}

Schedule with_warmup(Schedule schedule, std::int64_t warmup_steps) {
  check(warmup_steps >= 0, "[with_warmup] {} warm-up steps were asked for; give 0 or more", warmup_steps);
  return [schedule = std::move(schedule), warmup_steps](std::int64_t step) {
    const double lr = schedule(step);
    if (step >= warmup_steps) return lr;
    return lr * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  };
}

}  // namespace goshawk
