// A run directory: the files of one experiment, created once, continued with --resume.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "core/error.hpp"
#include "core/file.hpp"

namespace goshawk {

class RunDirectory {
 public:
  /// Opens `path` for a run with this configuration, making it and its config.json if needed. A directory
  /// that already holds a run is only accepted with `resume`, and its configuration must be the same; one
  /// that holds none is with `resume` as well, and people are told. Throws UsageError for an existing run
  /// without `resume`, for another configuration (naming the first difference) and for a directory with files
  /// but no config.json, Error when the directory cannot be written or config.json is damaged.
  RunDirectory(std::filesystem::path path, const nlohmann::ordered_json& config, bool resume);

  /// The configuration stored in `path`, an object, or null when it holds no run. Throws Error when it is
  /// damaged.
  static nlohmann::json stored_config(const std::filesystem::path& path);

  std::string file(const std::string& name) const { return (path_ / name).string(); }
  bool has(const std::string& name) const {
    std::error_code none;  // what cannot be looked at is said when it is opened
    return std::filesystem::exists(path_ / name, none);
  }

  /// Several processes may work in one run. lock() waits until no other holds the lock of that name;
  /// try_lock() gives nothing instead of waiting.
  FileLock lock(const std::string& name) const;
  std::optional<FileLock> try_lock(const std::string& name) const;

  /// Appends one line to log.jsonl, on disk when this returns.
  void log(const nlohmann::ordered_json& line) const;
  /// Removes the lines of log.jsonl for which `keep` is false, and torn ones: what a killed run wrote after
  /// its last checkpoint and will write again.
  void trim_log(const std::function<bool(const nlohmann::json&)>& keep) const;
  /// Atomically writes a file of the run, indented.
  void write_json(const std::string& name, const nlohmann::ordered_json& value) const;
  /// The JSON in a file of the run. Throws Error naming the file when it is damaged.
  nlohmann::json read_json(const std::string& name) const;
  /// What `read` makes of that JSON. A key that it misses or finds with another type is damage as well.
  template <class Read>
  auto read_json(const std::string& name, const Read& read) const {
    const nlohmann::json value = read_json(name);
    try {
      return read(value);
    } catch (const nlohmann::json::exception& e) {
      fail("[run] {} is damaged: {}; remove it and resume", file(name), e.what());
    }
  }

 private:
  std::string lock_file(const std::string& name) const;

  std::filesystem::path path_;
};

/// Throws Error, naming the file that has it, when a run's loss was another one before: what was measured
/// then is of other weights or pictures. The loss has the same bits for any number of threads, but not on
/// machines with other instructions; `tolerance`, a share of it, lets those pass.
void check_same_loss(const std::string& file, double before, double now, double tolerance = 0);

}  // namespace goshawk
