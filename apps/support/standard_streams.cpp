#include "apps/support/standard_streams.hpp"

#include <cstdio>
#include <fcntl.h>
#include <unistd.h>

namespace goshawk {

void open_closed_streams() noexcept {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) != -1) continue;
    // This gets the lowest number that is free, which is the one that is missing. Standard output is opened
    // for reading, since results that go nowhere are an error.
    [[maybe_unused]] const int opened = open("/dev/null", stream == STDERR_FILENO ? O_WRONLY : O_RDONLY);
  }
}

void write_error(std::string_view text) noexcept {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

}  // namespace goshawk
