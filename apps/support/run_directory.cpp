#include "apps/support/run_directory.hpp"

#include <cmath>
#include <sstream>

#include "apps/support/progress.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/json.hpp"

namespace goshawk {
namespace {

constexpr const char* kConfig = "config.json";
constexpr const char* kLog = "log.jsonl";
constexpr const char* kLocks = ".locks";
constexpr const char* kCheckpoints = "checkpoints";

// Files that are there without a config.json belong to somebody or to another run: they would be overwritten,
// or taken for this run's.
void check_empty(const std::filesystem::path& path) {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(path, none)) {
    const std::string name = entry.path().filename().string();
    // Another process has begun a run here meanwhile; what becomes of this one is decided under the lock.
    if (name == kConfig || std::filesystem::exists(path / kConfig, none)) return;
    const bool half_written =
        name.starts_with(std::string(kConfig) + ".tmp");  // by a process that begins beside this one
    if (name == kLocks || half_written ||
        (name == kCheckpoints && std::filesystem::is_empty(entry.path(), none)))
      continue;
    throw UsageError(
        fmt::format("{} holds '{}' but no config.json, so it is no run; empty it or give another --out",
                    path.string(), name));
  }
}

}  // namespace

nlohmann::json RunDirectory::stored_config(const std::filesystem::path& path) {
  const std::string file = (path / kConfig).string();
  std::error_code none;
  if (!std::filesystem::exists(file, none)) return nullptr;
  nlohmann::json config = parse_json(read_file(file), "run", file);
  check(config.is_object(),
        "[run] {} is damaged: it holds JSON of type {} where the options of a run belong; give another --out",
        file, config.type_name());
  return config;
}

RunDirectory::RunDirectory(std::filesystem::path path, const nlohmann::ordered_json& config, bool resume)
    : path_(std::move(path)) {
  if (stored_config(path_).is_null()) check_empty(path_);
  // Two processes that begin at once: one of them makes the run, and the other finds it.
  const FileLock beginning = lock(kConfig);
  const nlohmann::json stored = stored_config(path_);
  if (stored.is_null()) {
    if (resume) say(fmt::format("there is no run in {} yet; it begins now", path_.string()));
    make_directories(file(kCheckpoints));
    write_json(kConfig, config);
    return;
  }
  if (!resume) {
    throw UsageError(fmt::format("{} already holds a run; continue it with --resume or give another --out",
                                 path_.string()));
  }
  for (const auto& [key, value] : config.items()) {
    const nlohmann::json before = stored.contains(key) ? stored.at(key) : nlohmann::json();
    if (before != nlohmann::json(value)) {
      throw UsageError(
          fmt::format("the run in {} was started with {} = {}, not {}; leave the option out to resume it, or "
                      "give another --out",
                      path_.string(), key, before.dump(), value.dump()));
    }
  }
}

FileLock RunDirectory::lock(const std::string& name) const {
  return FileLock(lock_file(name));
}

std::optional<FileLock> RunDirectory::try_lock(const std::string& name) const {
  return FileLock::try_lock(lock_file(name));
}

std::string RunDirectory::lock_file(const std::string& name) const {
  make_directories(file(kLocks));
  return file(fmt::format("{}/{}", kLocks, name));
}

void RunDirectory::log(const nlohmann::ordered_json& line) const {
  const FileLock held = lock(kLog);
  append_line_synced(file(kLog), line.dump());
}

void RunDirectory::trim_log(const std::function<bool(const nlohmann::json&)>& keep) const {
  const FileLock held = lock(kLog);
  if (!has(kLog)) return;
  std::istringstream lines(read_file(file(kLog)));
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    const auto value = nlohmann::json::parse(line, nullptr, false);
    if (!value.is_discarded() && keep(value)) kept += line + "\n";
  }
  write_file_atomic(file(kLog), kept);
}

void RunDirectory::write_json(const std::string& name, const nlohmann::ordered_json& value) const {
  std::string text;
  try {
    text = value.dump(2) + "\n";
  } catch (const nlohmann::json::type_error&) {
    fail("[run] {} would hold a name that is not UTF-8, which JSON cannot; rename that file or directory",
         file(name));
  }
  write_file_atomic(file(name), text);
}

nlohmann::json RunDirectory::read_json(const std::string& name) const {
  return parse_json(read_file(file(name)), "run", file(name));
}

void check_same_loss(const std::string& file, double before, double now, double tolerance) {
  check(std::abs(before - now) <= tolerance * std::abs(before),
        "[resume] {} has a loss of {} where it is {} now: weights, pictures or the kind of machine have "
        "changed since; give another --out",
        file, before, now);
}

}  // namespace goshawk
