// What every program does at its edges: exit statuses, one-line errors, threads.
#pragma once

#include <functional>

#include "core/error.hpp"

namespace goshawk {

/// Exit statuses: 0 success, 1 something failed, 2 wrong usage, 130 interrupted.
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;  ///< 128 + SIGINT, as shells count

/// Runs `body` and turns what it throws into one line on standard error, "NAME: message", and an exit status.
int run_program(const char* name, const std::function<int()>& body);

}  // namespace goshawk
