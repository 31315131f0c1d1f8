// Lets a test choose the instruction set.
#pragma once

#include <hwy/targets.h>

namespace goshawk {

/// Restores the choice of the best instruction set when a test leaves.
struct TargetGuard {
  TargetGuard() = default;
  TargetGuard(const TargetGuard&) = delete;
  TargetGuard& operator=(const TargetGuard&) = delete;
  ~TargetGuard() { hwy::SetSupportedTargetsForTest(0); }
};

}  // namespace goshawk
