// Whole files in and out. A file that is written appears under its name only when it is complete and on disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/error.hpp"

namespace goshawk {

// Every function here throws Error in one line: what was tried, the file, the system's reason and the remedy.

/// All bytes of the file; `path` may also be a pipe.
std::string read_file(const std::string& path);

/// Replaces the file by `bytes` in one step (see AtomicFile).
void write_file_atomic(const std::string& path, std::span<const std::byte> bytes);
void write_file_atomic(const std::string& path, std::string_view text);

/// Appends `line` (without a line break of its own) and a line break in one write and waits until it is on
/// disk. When that fails the file is cut to its old length, so no other process may append to it at the same
/// time (see FileLock). A torn last line, left by a crash of the system, stays a line of its own.
void append_line_synced(const std::string& path, std::string_view line);

/// Makes the directory and all those above it; nothing happens when it exists.
void make_directories(const std::string& path);

/// Keeps other processes out: one of them at a time holds the lock of a file, from construction until it is
/// destroyed or its process ends, however it ends. The file is made if needed and stays, empty.
class FileLock {
 public:
  /// Waits until the lock is free.
  explicit FileLock(const std::string& path);
  /// Nothing when another process (or another FileLock of this one) holds it.
  static std::optional<FileLock> try_lock(const std::string& path);
  ~FileLock();
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

/// Reads a regular file from its beginning, piece by piece.
class FileReader {
 public:
  explicit FileReader(const std::string& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  const std::string& path() const { return path_; }
  /// Size in bytes when the file was opened.
  std::int64_t size() const { return size_; }
  /// The next to.size() bytes; an error when the file ends before.
  void read(std::span<std::byte> to);
  std::string read_string(std::int64_t bytes);

 private:
  std::string path_;
  int descriptor_ = -1;
  std::int64_t size_ = 0;
};

/// Writes a file piece by piece so that no reader ever sees half of it: the bytes go to a temporary file in
/// the same directory (`PATH.tmp-PROCESS-NUMBER`), which commit() syncs and renames to `path`, and then it
/// syncs the directory. Without commit(), or after an error, the temporary file is removed and an old file is
/// as it was; only a killed process leaves its temporary file behind. A symbolic link is followed, also to a
/// file that is not there yet, and an old file's permissions are kept. A device or pipe is written directly,
/// and so is an open descriptor (/dev/stdout, /dev/fd/N): where it stands, or at the end if it appends.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  /// Makes the file visible under its name; nothing may be written afterwards. When all that fails is to sync
  /// the directory, the error says that the file is in place.
  void commit();

 private:
  void discard() noexcept;

  std::string path_;       // as given, for messages
  std::string target_;     // symbolic links followed
  std::string temporary_;  // empty when the target is written directly
  int descriptor_ = -1;
};

}  // namespace goshawk
