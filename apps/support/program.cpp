#include "apps/support/program.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <new>

#include "apps/support/interrupt.hpp"
#include "apps/support/standard_streams.hpp"

namespace goshawk {
namespace {

int report(const char* name, std::string message, int status) {
  // One line, whatever a library put into its message.
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::fflush(stdout);
  write_error(fmt::format("{}: {}\n", name, message));
  return status;
}

}  // namespace

int run_program(const char* name, const std::function<int()>& body) {
  open_closed_streams();
  // A file that may not grow further is then an error like a full disk, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  end_on_interrupt(name);
  try {
    return body();
  } catch (const Interrupted& e) {
    return report(name, e.what(), kExitInterrupted);
  } catch (const UsageError& e) {
    return report(name, e.what(), kExitUsage);
  } catch (const std::bad_alloc&) {
    return report(name, "the system has no memory left; use a smaller batch", kExitFailure);
  } catch (const std::exception& e) {
    return report(name, e.what(), kExitFailure);
  }
}

}  // namespace goshawk
