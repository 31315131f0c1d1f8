#include "apps/support/interrupt.hpp"

#include <atomic>
#include <csignal>
#include <fmt/format.h>
#include <unistd.h>

#include "apps/support/program.hpp"

namespace goshawk {
namespace {

// A signal handler may touch nothing but lock-free atomics and memory that no one else is writing.
std::atomic<int> deferred{0};
std::atomic<bool> pending{false};
std::string message;  // written before the handler is installed
std::string remedy_text;

static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

void on_signal(int) {
  if (deferred.load() > 0 && !pending.exchange(true)) return;
  // Whether the terminal gets the line makes no difference to what follows.
  [[maybe_unused]] const auto written = write(STDERR_FILENO, message.data(), message.size());
  _exit(kExitInterrupted);
}

}  // namespace

InterruptHandler::InterruptHandler(const std::string& name, const std::string& remedy) {
  remedy_text = remedy;
  // The line break before ends a progress line on a terminal.
  message = fmt::format("{}{}: interrupted; {}\n", isatty(STDERR_FILENO) != 0 ? "\n" : "", name, remedy);
  pending = false;
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

InterruptHandler::~InterruptHandler() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

DeferInterrupt::DeferInterrupt() {
  ++deferred;
}

DeferInterrupt::~DeferInterrupt() {
  --deferred;
}

bool DeferInterrupt::interrupted() {
  return pending.load();
}

void DeferInterrupt::request() {
  pending = true;
}

std::string shell_quoted(const std::string& word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=:,@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string resume_hint(std::string_view program, const std::string& run) {
  return fmt::format("continue with {} --resume --out {}", program, shell_quoted(run));
}

void throw_interrupted() {
  throw Interrupted("interrupted; " + remedy_text);
}

}  // namespace goshawk
