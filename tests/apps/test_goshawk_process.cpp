// A program in surroundings that are not as usual: standard streams that are closed or cannot be written.
#include <doctest/doctest.h>
#include <string>

#include "tests/apps/run_program.hpp"

using namespace goshawk;

namespace {

/// A training of a moment in `out`, for a shell.
std::string tiny_training(const std::string& out) {
  return std::string("'") + GOSHAWK_BINARY_DIR + "/apps/goshawk' train --model resnet20 --synthetic" +
         " --train-images 32 --test-images 16 --batch-size 16 --epochs 1 --out '" + out + "'";
}

}  // namespace

TEST_CASE("standard error that cannot be written changes nothing about the work") {
  const ScratchDirectory scratch;
  const std::string run = scratch / "run";
  CHECK(shell_output("bash", tiny_training(run) + " >/dev/null 2>/dev/full; echo $?") == "0\n");
  CHECK(std::filesystem::exists(run + "/result.json"));
  // The message of an error is lost, but not its status: there is a run already.
  CHECK(shell_output("bash", tiny_training(run) + " 2>/dev/full; echo $?") == "2\n");
}

TEST_CASE("no file of a run takes the number of a standard stream that is closed") {
  const ScratchDirectory scratch;
  const auto check_locks_empty = [](const std::string& run) {
    for (const auto& entry : std::filesystem::directory_iterator(run + "/.locks"))
      CHECK_MESSAGE(file_bytes(entry.path()).empty(), entry.path().string());
  };
  const std::string no_error = scratch / "no-error", no_output = scratch / "no-output";
  CHECK(shell_output("bash", tiny_training(no_error) + " >/dev/null 2>&-; echo $?") == "0\n");
  check_locks_empty(no_error);
  // Without standard output there is nowhere for the result to go, which is an error, said as usual.
  const std::string printed = shell_output("bash", tiny_training(no_output) + " --quiet >&-; echo $?");
  CHECK(contains(printed, "cannot write to standard output"));
  CHECK(printed.ends_with("\n1\n"));
  check_locks_empty(no_output);
  CHECK(shell_output("bash", tiny_training(scratch / "none") + " <&- >&- 2>&-; echo $?") == "1\n");
  check_locks_empty(scratch / "none");
}
