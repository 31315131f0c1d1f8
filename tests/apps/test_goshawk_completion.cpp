#include <cstdio>
#include <cstdlib>
#include <doctest/doctest.h>
#include <memory>
#include <string>

#include "tests/apps/run_program.hpp"

using namespace goshawk;

namespace {

/// What bash prints for a script.
std::string bash(const std::string& script, const ScratchDirectory& scratch) {
  const std::string file = scratch.write("script.sh", script).string();
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(("bash " + file + " 2>&1").c_str(), "r"), pclose);
  std::string text;
  char buffer[4096];
  while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe.get())) text.append(buffer, n);
  return text;
}

/// The completions of the last word.
std::string completed(const std::string& words, int count, const ScratchDirectory& scratch) {
  return bash("source \"" + (scratch / "completion.bash") + "\"\ncd \"" + scratch.path().string() +
                  "\"\nCOMP_WORDS=(" + words + ")\nCOMP_CWORD=" + std::to_string(count) +
                  "\n_goshawk\necho \"${COMPREPLY[*]}\"\n",
              scratch);
}

}  // namespace

TEST_CASE("goshawk completion bash completes subcommands, options, names and files") {
  const ScratchDirectory scratch;
  const ProgramResult result = run_built_program("goshawk", {"completion", "bash"});
  REQUIRE(result.status == 0);
  scratch.write("completion.bash", result.out);
  scratch.write("weights.safetensors", "");
  CHECK(completed("goshawk qu", 1, scratch) == "quantize\n");
  CHECK(completed("goshawk train --ep", 2, scratch) == "--epochs\n");
  CHECK(completed("goshawk quantize --budget-b", 2, scratch) == "--budget-bytes --budget-bops\n");
  CHECK(completed("goshawk train --model resnet20", 3, scratch) == "resnet20 resnet20_b\n");
  CHECK(completed("goshawk allocate --method p", 3, scratch) == "pareto\n");
  CHECK(completed("goshawk evaluate --weights we", 3, scratch) == "weights.safetensors\n");
  CHECK(completed("goshawk models squeezenext23v5_", 2, scratch) == "squeezenext23v5_w2\n");
  CHECK(completed("goshawk bench --only exact", 3, scratch) == "exact_traces\n");
  CHECK(completed("goshawk train --epochs 3", 3, scratch) == "\n");
}

TEST_CASE("goshawk completion zsh describes every subcommand, and zsh can read it where there is one") {
  const ScratchDirectory scratch;
  const ProgramResult result = run_built_program("goshawk", {"completion", "zsh"});
  REQUIRE(result.status == 0);
  CHECK(result.out.starts_with("#compdef goshawk\n"));
  for (const char* name : {"models", "data", "train", "evaluate", "hvp", "curvature", "sensitivity",
                           "allocate", "finetune", "quantize", "report", "bench", "completion"}) {
    CHECK(contains(result.out, std::string("    ") + name + ")\n"));
  }
  CHECK(contains(result.out, "'--budget-ratio["));
  scratch.write("_goshawk", result.out);
  CHECK(bash("command -v zsh >/dev/null || exit 0; zsh -n \"" + (scratch / "_goshawk") + "\"", scratch)
            .empty());

  const ProgramResult wrong = run_built_program("goshawk", {"completion", "fish"});
  CHECK(wrong.status == 2);
  CHECK(is_one_line(wrong.err));
}
