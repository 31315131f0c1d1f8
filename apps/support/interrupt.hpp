// Ctrl-C, SIGTERM and a terminal that goes away: saves what there is to save, says how to go on, and ends
// with status 130.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace goshawk {

/// Thrown where work has stopped, and saved, because the user asked for it. what() says how to go on.
class Interrupted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// From now on SIGINT and SIGTERM end the process with status 130 and one line, "NAME: interrupted". A signal
/// that this process was started to ignore, as in the background of a script, stays ignored.
void end_on_interrupt(const std::string& name);

/// While one is alive, SIGINT, SIGTERM and SIGHUP end the process with status 130 and one line, "NAME:
/// interrupted; REMEDY", at once, or where a DeferInterrupt is alive as soon as that has saved. Files that
/// are written atomically are whole either way. Signals that were ignored stay so, as under nohup. There is
/// one at a time; afterwards, signals do what they did before.
class InterruptHandler {
 public:
  InterruptHandler(const std::string& name, const std::string& remedy);
  ~InterruptHandler();
  InterruptHandler(const InterruptHandler&) = delete;
  InterruptHandler& operator=(const InterruptHandler&) = delete;
};

/// While one is alive, a first signal is only remembered; a second one ends the process after all. Without an
/// InterruptHandler, signals do what they always do.
class DeferInterrupt {
 public:
  DeferInterrupt();
  ~DeferInterrupt();
  DeferInterrupt(const DeferInterrupt&) = delete;
  DeferInterrupt& operator=(const DeferInterrupt&) = delete;

  /// Whether a signal has come: time to save and to throw_interrupted().
  static bool interrupted();
  /// Asks for the same without a signal: other work of this process has failed.
  static void request();
};

/// A word of a command line, in quotes where a shell would read anything else into it.
std::string shell_quoted(const std::string& word);

/// The remedy of a program that continues with --resume: "continue with goshawk train --resume --out RUN",
/// quoted so that a shell takes it.
std::string resume_hint(std::string_view program, const std::string& run);

/// Throws Interrupted with the handler's remedy.
[[noreturn]] void throw_interrupted();

}  // namespace goshawk
