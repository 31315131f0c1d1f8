#include <doctest/doctest.h>
#include <string>
#include <vector>

#include "tests/apps/run_program.hpp"

using namespace goshawk;

namespace {

/// The completions of the last word.
std::string completed(const std::string& words, int count, const ScratchDirectory& scratch) {
  return shell_output("bash", "source \"" + (scratch / "completion.bash") + "\"\ncd \"" +
                                  scratch.path().string() + "\"\nCOMP_WORDS=(" + words + ")\nCOMP_CWORD=" +
                                  std::to_string(count) + "\n_goshawk\necho \"${COMPREPLY[*]}\"\n");
}

/// What zsh prints for a script that begins in the scratch directory.
std::string zsh(const std::string& script, const ScratchDirectory& scratch) {
  // With a limit: a terminal would wait for ever for text that does not come.
  return shell_output("timeout 300 zsh -f",
                      "cd \"" + scratch.path().string() + "\"\nexport HOME=$PWD TERM=dumb\n" + script);
}

/// What zsh's line editor makes of each line, after `load`, when Tab is pressed at its end.
std::string after_tab(const std::string& load, const std::vector<std::string>& lines,
                      const ScratchDirectory& scratch) {
  // Ctrl-X behind it prints the line between two marks.
  std::string script = "zmodload zsh/zpty; zpty shell zsh -f -i; load='" + load + R"('
zpty -w shell "PS1='' PS2=''; unsetopt prompt_cr prompt_sp; $load
show() { print -r -- \"<<\$BUFFER>>\"; BUFFER=''; }
zle -N show; bindkey '^X' show; bindkey '^I' complete-word; print ready'>>'"
zpty -r shell text '*ready>>*'
press_tab() {
  zpty -w -n shell "$1"$'\t\x18'
  zpty -r shell text '*<<*>>*'
  text=${text##*<<}
  print -r -- "${text%%>>*}"
}
)";
  for (const std::string& line : lines) script += "press_tab '" + line + "'\n";
  return zsh(script, scratch);
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

TEST_CASE("goshawk completion zsh describes every subcommand") {
  const ProgramResult result = run_built_program("goshawk", {"completion", "zsh"});
  REQUIRE(result.status == 0);
  CHECK(result.out.starts_with("#compdef goshawk\n"));
  for (const char* name : {"models", "data", "train", "evaluate", "hvp", "curvature", "sensitivity",
                           "allocate", "finetune", "quantize", "report", "bench", "completion"}) {
    CHECK(contains(result.out, std::string("    ") + name + ")\n"));
  }
  CHECK(contains(result.out, "'--budget-ratio["));

  const ProgramResult wrong = run_built_program("goshawk", {"completion", "fish"});
  CHECK(wrong.status == 2);
  CHECK(is_one_line(wrong.err));
}

TEST_CASE("zsh completes subcommands, options, names and files, sourced or from its own path") {
  if (!shell_output("bash", "command -v zsh").starts_with('/')) {
    MESSAGE("there is no zsh here: its completion was read as text only");
    return;
  }
  const ScratchDirectory scratch;
  scratch.write("_goshawk", run_built_program("goshawk", {"completion", "zsh"}).out);
  scratch.write("weights.safetensors", "");
  for (const std::string load : {"autoload -U compinit; compinit -u -D; source ./_goshawk",
                                 "fpath=($PWD $fpath); autoload -U compinit; compinit -u -D"}) {
    CAPTURE(load);
    CHECK(zsh(load + "\nprint -r -- $_comps[goshawk]\n", scratch) == "_goshawk\n");
    CHECK(after_tab(load,
                    {"goshawk qu", "goshawk train --ep", "goshawk allocate --method p",
                     "goshawk evaluate --weights we", "goshawk models squeezenext23v5_",
                     "goshawk bench --only exact"},
                    scratch) ==
          "goshawk quantize \n"
          "goshawk train --epochs \n"
          "goshawk allocate --method pareto \n"
          "goshawk evaluate --weights weights.safetensors \n"
          "goshawk models squeezenext23v5_w2 \n"
          "goshawk bench --only exact_traces \n");
  }
}
