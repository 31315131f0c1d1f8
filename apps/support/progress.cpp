#include "apps/support/progress.hpp"

#include <cmath>
#include <cstdio>
#include <fmt/format.h>
#include <unistd.h>

namespace goshawk {
namespace {

bool silent = false;

bool on_terminal() {
  static const bool terminal = isatty(STDERR_FILENO) != 0;
  return terminal;
}

}  // namespace

std::string format_duration(double seconds) {
  const auto s = static_cast<std::int64_t>(std::llround(std::max(0.0, seconds)));
  if (s >= 3600) return fmt::format("{} h {:02} min", s / 3600, s % 3600 / 60);
  if (s >= 60) return fmt::format("{} min {:02} s", s / 60, s % 60);
  return fmt::format("{} s", s);
}

void say(const std::string& text) {
  if (!silent) fmt::print(stderr, "{}\n", text);
}

Progress::Progress(std::string label, std::int64_t total, std::int64_t done)
    : label_(std::move(label)), total_(total), start_done_(done), start_(Clock::now()), last_(start_) {}

Progress::~Progress() {
  clear();
}

void Progress::update(std::int64_t done, const std::string& detail) {
  if (silent) return;
  const auto now = Clock::now();
  const bool finished = done >= total_;
  const double interval = on_terminal() ? 0.2 : 30;
  if (std::chrono::duration<double>(now - last_).count() < interval && !(finished && on_terminal())) return;
  last_ = now;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double rate = static_cast<double>(done - start_done_) / std::max(elapsed, 1e-9);
  const std::string left =
      rate > 0 ? format_duration(static_cast<double>(total_ - done) / rate) + " left" : "estimating";
  const std::string line =
      fmt::format("{} {:3.0f} %  {}{}{}", label_,
                  100.0 * static_cast<double>(done) / static_cast<double>(std::max<std::int64_t>(1, total_)),
                  left, detail.empty() ? "" : "  ", detail);
  if (on_terminal()) {
    fmt::print(stderr, "\r{:<79.79}", line);
    std::fflush(stderr);
    shown_ = true;
  } else {
    fmt::print(stderr, "{}\n", line);
  }
}

void Progress::clear() {
  if (shown_) fmt::print(stderr, "\r{:79}\r", "");
  shown_ = false;
}

void Progress::silence() {
  silent = true;
}

}  // namespace goshawk
