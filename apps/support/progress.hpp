// Progress of long work on standard error: a line that renews itself on a terminal, seldom lines in a log.
// Pieces of work at the same time, in threads of their own, share the line.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace goshawk {

/// "1 h 05 min", "3 min 20 s", "12 s".
std::string format_duration(double seconds);

/// One line for people on standard error, above the renewing line if there is one; nothing when progress was
/// silenced.
void say(const std::string& text);

/// One piece of work with a known number of units. Prints nothing when it was silenced.
class Progress {
 public:
  /// `done` units of `total` are finished already (a resumed run); the rate counts from here.
  Progress(std::string label, std::int64_t total, std::int64_t done = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Reports the units done so far, with `detail` behind the time left.
  void update(std::int64_t done, const std::string& detail = "");
  /// Takes this work off the renewing line, so that other output can follow.
  void clear();

  /// No progress output at all from now on (--quiet).
  static void silence();

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  std::int64_t total_;
  std::int64_t start_done_;
  Clock::time_point start_;
  Clock::time_point last_;
};

}  // namespace goshawk
