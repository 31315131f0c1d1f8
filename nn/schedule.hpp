// Learning-rate schedules: functions of the step (or epoch; the caller chooses the unit) that keep no state,
// so that training resumes anywhere.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace goshawk {

/// Learning rate at a step, counted from 0.
using Schedule = std::function<double(std::int64_t step)>;

/// lr · gammaᵏ with k the number of milestones ≤ step.
struct StepSchedule {
  double lr = 0.1;
  std::vector<std::int64_t> milestones = {};
  double gamma = 0.1;
  double operator()(std::int64_t step) const;
};

/// From lr at step 0 along half a cosine to lr_end at `total` and after (Loshchilov & Hutter 2017, equation
/// 5).
struct CosineSchedule {
  double lr = 0.1;
  std::int64_t total = 0;  ///< steps, positive
  double lr_end = 0;
  double operator()(std::int64_t step) const;
};

/// Cosine up from lr / start_divisor to lr over the first `rise` of the steps, then cosine down to
/// lr / (start_divisor · end_divisor) at the last (Smith & Topin 2018; PyTorch's OneCycleLR with two phases).
struct OneCycleSchedule {
  double lr = 0.1;         ///< the peak
  std::int64_t total = 0;  ///< steps, positive
  double rise = 0.3;       ///< fraction of the steps before the peak, in [0, 1]
  double start_divisor = 25;
  double end_divisor = 1e4;
  double operator()(std::int64_t step) const;
};

/// The schedule with a linear warm-up: its value times (step + 1) / warmup_steps during the first
/// `warmup_steps` steps.
Schedule with_warmup(Schedule schedule, std::int64_t warmup_steps);

}  // namespace goshawk
