#include "apps/support/progress.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <mutex>
#include <unistd.h>
#include <vector>

#include "apps/support/standard_streams.hpp"

namespace goshawk {
namespace {

bool silent = false;

// What is said and drawn, one at a time.
std::mutex mutex;

// What the renewing line says of each piece of work: with details when it is alone, or the short form.
struct Shown {
  const Progress* work;
  std::string brief, detail;
};
std::vector<Shown> shown;
bool drawn = false;

bool on_terminal() {
  static const bool terminal = isatty(STDERR_FILENO) != 0;
  return terminal;
}

void erase_line() {
  if (drawn) write_error(fmt::format("\r{:79}\r", ""));
  drawn = false;
}

void draw_line() {
  if (shown.empty()) return;
  std::string line = shown.front().brief;
  if (shown.size() == 1) line += shown.front().detail;
  for (std::size_t i = 1; i < shown.size(); ++i) line += " | " + shown[i].brief;
  write_error(fmt::format("\r{:<79.79}", line));
  drawn = true;
}

}  // namespace

std::string format_duration(double seconds) {
  const auto s = static_cast<std::int64_t>(std::llround(std::max(0.0, seconds)));
  if (s >= 3600) return fmt::format("{} h {:02} min", s / 3600, s % 3600 / 60);
  if (s >= 60) return fmt::format("{} min {:02} s", s / 60, s % 60);
  return fmt::format("{} s", s);
}

void say(const std::string& text) {
  if (silent) return;
  const std::lock_guard lock(mutex);
  erase_line();
  write_error(text + "\n");
  draw_line();
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
  const std::string brief = fmt::format(
      "{} {:3.0f} %  {}", label_,
      100.0 * static_cast<double>(done) / static_cast<double>(std::max<std::int64_t>(1, total_)), left);
  const std::string more = detail.empty() ? "" : "  " + detail;
  const std::lock_guard lock(mutex);
  if (!on_terminal()) {
    write_error(fmt::format("{}{}\n", brief, more));
    return;
  }
  const auto known = std::find_if(shown.begin(), shown.end(), [&](const Shown& s) { return s.work == this; });
  if (known == shown.end()) {
    shown.push_back({this, brief, more});
  } else {
    *known = {this, brief, more};
  }
  draw_line();
}

void Progress::clear() {
  const std::lock_guard lock(mutex);
  if (std::erase_if(shown, [&](const Shown& s) { return s.work == this; }) == 0) return;
  erase_line();
  draw_line();
}

void Progress::silence() {
  silent = true;
}

}  // namespace goshawk
