// Standard input, output and error as a program finds them: some may be closed, and writing to them may fail.
#pragma once

#include <string_view>

namespace goshawk {

/// Opens /dev/null in place of each standard stream that is closed, or the next file to be opened would take
/// its number, and what is printed would go into that file. Writing to standard output fails as before.
void open_closed_streams() noexcept;

/// Writes to standard error, at once. That the text is lost where it cannot be written (a full disk, a
/// terminal that went away) is no reason to stop the work it is about.
void write_error(std::string_view text) noexcept;

}  // namespace goshawk
