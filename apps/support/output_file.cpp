#include "apps/support/output_file.hpp"

#include <filesystem>
#include <system_error>

#include "core/file.hpp"

namespace goshawk {

void check_writable(const std::string& path) {
  std::error_code none;  // what cannot be looked at is said when it is opened
  if (path.empty()) return;
  if (std::filesystem::exists(path, none) && !std::filesystem::is_regular_file(path, none)) return;
  const AtomicFile writable(path);
}

}  // namespace goshawk
