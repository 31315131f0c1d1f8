// Lets a test choose the instruction set.
#pragma once

#include <cstdint>
#include <doctest/doctest.h>
#include <hwy/targets.h>

namespace goshawk {

/// Restores the choice of the best instruction set when a test leaves.
struct TargetGuard {
  TargetGuard() = default;
  TargetGuard(const TargetGuard&) = delete;
  TargetGuard& operator=(const TargetGuard&) = delete;
  ~TargetGuard() { hwy::SetSupportedTargetsForTest(0); }
};

/// Runs `body` once for every instruction set of this machine.
template <class F>
void on_every_target(const F& body) {
  const TargetGuard guard;
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    INFO("target ", hwy::TargetName(target));
    body();
  }
}

}  // namespace goshawk
