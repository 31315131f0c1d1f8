// A directory of its own for a test case, removed at its end, and helpers to look at errors.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdlib.h>
#include <string>
#include <string_view>

#include "core/error.hpp"

namespace goshawk {

class ScratchDirectory {
 public:
  ScratchDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "goshawk-test-XXXXXX").string();
    check(mkdtemp(pattern.data()) != nullptr, "[test] cannot make a directory like {}", pattern);
    path_ = pattern;
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }

  /// The path of `name` inside the directory.
  std::string operator/(std::string_view name) const { return (path_ / name).string(); }

  /// Writes a file, making the directories above it, and returns its path.
  std::filesystem::path write(const std::filesystem::path& name, std::string_view bytes) const {
    const std::filesystem::path file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    // ext4 waits for the disk when a file that was emptied is closed, but not for a new one.
    std::filesystem::remove(file);
    std::ofstream(file, std::ios::binary) << bytes;
    return file;
  }

  /// The bytes of a file, read without the library under test.
  std::string read(const std::filesystem::path& name) const {
    std::ifstream stream(path_ / name, std::ios::binary);
    check(stream.good(), "[test] there is no file {}", name.string());
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  /// Number of directory entries, to see that nothing was left behind.
  int entries() const {
    return static_cast<int>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  std::filesystem::path path_;
};

/// The message of the Error that `f` throws, or "" when it throws none.
template <class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace goshawk
