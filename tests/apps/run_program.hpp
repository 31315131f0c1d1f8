// Runs a program of this build as a user does and looks at what comes out.
#pragma once

#include <chrono>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <spawn.h>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "core/error.hpp"
#include "tests/support/scratch_directory.hpp"

namespace goshawk {

struct ProgramResult {
  int status = 0;   ///< exit status; 128 + the signal when it was killed by one
  std::string out;  ///< standard output
  std::string err;  ///< standard error
};

inline std::string file_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  check(file.good(), "[test] cannot read {}", path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Starts GOSHAWK_BINARY_DIR/apps/<program> with the arguments and an empty standard input. `environment`:
/// the variables it gets instead of this process's own.
inline pid_t start_program(const std::string& program, const std::vector<std::string>& arguments,
                           const std::string& out, const std::string& err,
                           const std::vector<std::string>* environment = nullptr) {
  const std::string binary = std::string(GOSHAWK_BINARY_DIR) + "/apps/" + program;
  const auto pointers = [](const std::vector<std::string>& texts, const char* first = nullptr) {
    std::vector<char*> result;
    if (first != nullptr) result.push_back(const_cast<char*>(first));
    for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));
    result.push_back(nullptr);
    return result;
  };
  std::vector<char*> argv = pointers(arguments, binary.c_str());
  std::vector<char*> variables;
  if (environment != nullptr) variables = pointers(*environment);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  // What a script starts in its background ignores Ctrl-C, and tests may run there.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGHUP}) sigaddset(&signals, signal);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  pid_t child = 0;
  const int error = posix_spawn(&child, binary.c_str(), &actions, &attributes, argv.data(),
                                environment != nullptr ? variables.data() : environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  check(error == 0, "[test] cannot start {}; build the program first", binary);
  return child;
}

inline int wait_for_program(pid_t child) {
  int status = 0;
  check(waitpid(child, &status, 0) == child, "[test] lost process {}", child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// Runs the program until it ends.
inline ProgramResult run_built_program(const std::string& program, const std::vector<std::string>& arguments,
                                       const std::string& standard_output = "",
                                       const std::vector<std::string>* environment = nullptr) {
  const ScratchDirectory scratch;
  const std::string out = standard_output.empty() ? (scratch.path() / "out").string() : standard_output;
  const std::string err = (scratch.path() / "err").string();
  const int status = wait_for_program(start_program(program, arguments, out, err, environment));
  return {status, standard_output.empty() ? file_bytes(out) : "", file_bytes(err)};
}

/// Starts the program and sends it SIGINT, as Ctrl-C does, or another signal, so many milliseconds after the
/// file is there.
inline ProgramResult run_and_interrupt(const std::string& program, const std::vector<std::string>& arguments,
                                       const std::filesystem::path& file, int milliseconds = 0,
                                       int signal = SIGINT) {
  const ScratchDirectory scratch;
  const pid_t child = start_program(program, arguments, scratch / "out", scratch / "err");
  while (!std::filesystem::exists(file)) {
    siginfo_t ended{};
    waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOHANG | WNOWAIT);
    if (ended.si_pid == child) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  kill(child, signal);
  const int status = wait_for_program(child);
  return {status, file_bytes(scratch / "out"), file_bytes(scratch / "err")};
}

/// Starts the program without output and returns its process.
inline pid_t start_silently(const std::string& program, const std::vector<std::string>& arguments) {
  const std::string binary = std::string(GOSHAWK_BINARY_DIR) + "/apps/" + program;
  const pid_t child = fork();
  if (child != 0) return child;
  const int null = open("/dev/null", O_WRONLY);
  dup2(null, STDOUT_FILENO);
  dup2(null, STDERR_FILENO);
  std::vector<char*> argv{const_cast<char*>(binary.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(binary.c_str(), argv.data());
  _exit(127);
}

/// Starts the program, kills it with SIGKILL after `milliseconds`, and says whether it was still running.
inline bool run_and_kill(const std::string& program, const std::vector<std::string>& arguments,
                         int milliseconds) {
  const pid_t child = start_silently(program, arguments);
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status);
}

/// The same once the file is there.
inline bool run_and_kill_after(const std::string& program, const std::vector<std::string>& arguments,
                               const std::filesystem::path& file) {
  const pid_t child = start_silently(program, arguments);
  int status = 0;
  while (!std::filesystem::exists(file)) {
    if (waitpid(child, &status, WNOHANG) == child) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return WIFSIGNALED(status);
}

/// What a shell, such as "bash", prints for a script: standard output and error, as they come.
inline std::string shell_output(const std::string& shell, const std::string& script) {
  const ScratchDirectory scratch;
  const std::string file = scratch.write("script", script).string();
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen((shell + " " + file + " 2>&1").c_str(), "r"),
                                                   pclose);
  check(pipe != nullptr, "[test] cannot start {}", shell);
  std::string text;
  char buffer[4096];
  while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe.get())) text.append(buffer, n);
  return text;
}

/// True for exactly one line, complete with its line break.
inline bool is_one_line(const std::string& text) {
  return text.size() > 1 && text.find('\n') == text.size() - 1;
}

}  // namespace goshawk
