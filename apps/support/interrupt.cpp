#include "apps/support/interrupt.hpp"

#include <array>
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
// The same for what is no run. A std::string would be gone when a signal comes while the process exits.
std::array<char, 80> plain_message;
std::size_t plain_size = 0;

// What a run saves its state for: a terminal that goes away sends SIGHUP.
constexpr std::array kRunSignals = {SIGINT, SIGTERM, SIGHUP};
std::array<struct sigaction, kRunSignals.size()> before_run;

static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

[[noreturn]] void end_process(std::string_view line) {
  // Whether the terminal gets the line makes no difference to what follows.
  [[maybe_unused]] const auto written = write(STDERR_FILENO, line.data(), line.size());
  _exit(kExitInterrupted);
}

void on_signal(int) {
  if (deferred.load() > 0 && !pending.exchange(true)) return;
  end_process(message);
}

void on_plain_signal(int) {
  end_process({plain_message.data(), plain_size});
}

/// Returns what the signal did before. Whoever started this process may have had it ignored, so that it goes
/// on without its terminal: nohup, or a script's background.
struct sigaction handle(int signal, void (*handler)(int)) {
  struct sigaction before {};
  sigaction(signal, nullptr, &before);
  if (before.sa_handler == SIG_IGN) return before;
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(signal, &action, nullptr);
  return before;
}

/// The line break before ends a progress line on a terminal.
std::string interrupted_line(const std::string& name, const std::string& rest) {
  return fmt::format("{}{}: interrupted{}\n", isatty(STDERR_FILENO) != 0 ? "\n" : "", name, rest);
}

}  // namespace

void end_on_interrupt(const std::string& name) {
  plain_size = interrupted_line(name, "").copy(plain_message.data(), plain_message.size());
  for (const int signal : {SIGINT, SIGTERM}) handle(signal, on_plain_signal);
}

InterruptHandler::InterruptHandler(const std::string& name, const std::string& remedy) {
  remedy_text = remedy;
  message = interrupted_line(name, "; " + remedy);
  pending = false;
  for (std::size_t i = 0; i < kRunSignals.size(); ++i) before_run[i] = handle(kRunSignals[i], on_signal);
}

InterruptHandler::~InterruptHandler() {
  for (std::size_t i = 0; i < kRunSignals.size(); ++i) sigaction(kRunSignals[i], &before_run[i], nullptr);
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
