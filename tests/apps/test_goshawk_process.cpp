// A program in surroundings that are not as usual: standard streams that are closed or cannot be written, and
// signals.
#include <doctest/doctest.h>
#include <string>
#include <sys/stat.h>

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

TEST_CASE("Ctrl-C and SIGTERM end what is no run with one line and status 130, also in the middle of work") {
  const ScratchDirectory scratch;
  const std::string fifo = scratch / "fifo";
  REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
  for (const int signal : {SIGINT, SIGTERM}) {
    // Reading the pipe, the program waits for whoever writes to it.
    const ProgramResult reading = run_and_interrupt(
        "goshawk",
        {"allocate", "--costs", fifo, "--method", "exact", "--budget-bytes", "30", "--out", scratch / "b"},
        fifo, 300, signal);
    CHECK(reading.status == 130);
    CHECK(reading.err == "goshawk: interrupted\n");
    const ProgramResult working =
        run_and_interrupt("goshawk", {"bench", "--rounds", "1000", "--quiet"}, fifo, 300, signal);
    CHECK(working.status == 130);
    CHECK(working.err == "goshawk: interrupted\n");
  }
}

TEST_CASE("a run saves its state when its terminal goes away") {
  const ScratchDirectory scratch;
  const auto run = scratch.path() / "run";
  const ProgramResult stopped = run_and_interrupt(
      "goshawk",
      {"train", "--model", "resnet20", "--synthetic", "--train-images", "96", "--test-images", "16",
       "--batch-size", "16", "--epochs", "50", "--quiet", "--out", run.string()},
      run / "log.jsonl", 0, SIGHUP);
  CHECK(stopped.status == 130);
  CHECK(contains(stopped.err, "continue with goshawk train --resume"));
}

TEST_CASE("a signal that a program is started to ignore stays ignored, in a run and elsewhere") {
  const ScratchDirectory scratch;
  // The shell that ignores the signals becomes the program; the sleep is for it to have come to its work.
  for (const std::string& signal : {std::string("HUP"), std::string("INT")}) {
    CAPTURE(signal);
    const std::string printed =
        shell_output("bash", "(trap '' " + signal + "; exec " + tiny_training(scratch / signal) +
                                 " --quiet --json) & sleep 0.2; kill -" + signal + " $!; wait $!; echo $?");
    CHECK(printed.ends_with("\n0\n"));
  }
}
