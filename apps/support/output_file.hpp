// Files that a command is asked to write.
#pragma once

#include <string>

namespace goshawk {

/// Throws Error when a file cannot be written there: before the work, not after it. Leaves what is there as
/// it is. Does nothing for an empty path, and for what is no regular file, such as a pipe.
void check_writable(const std::string& path);

}  // namespace goshawk
