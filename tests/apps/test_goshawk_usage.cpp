// Every subcommand's help and wrong use, and output that does not depend on where it goes or on the locale.
#include <clocale>
#include <cstdlib>
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <sstream>

#include "models/registry.hpp"
#include "nn/checkpoint.hpp"
#include "tests/apps/run_program.hpp"

using namespace goshawk;

namespace {

const std::vector<std::string> kCommands = {"models",   "data",  "train",     "quantize",    "finetune",
                                            "evaluate", "hvp",   "curvature", "sensitivity", "allocate",
                                            "report",   "bench", "completion"};

/// Files that fit each other, and names of some that do not.
struct Fixture {
  ScratchDirectory scratch;
  std::string weights = scratch / "w.safetensors";
  std::string records = scratch / "records.bin";
  std::string costs = scratch / "costs.json";
  std::string missing = scratch / "missing";
  std::string out = scratch / "out";

  Fixture() {
    save_checkpoint(weights, *make_model("resnet20", {.seed = 2}), {});
    std::string bytes;
    for (int i = 0; i < 4; ++i) {
      bytes += static_cast<char>(i);
      for (int p = 0; p < 3072; ++p) bytes += static_cast<char>(p * (i + 1) % 251);
    }
    scratch.write("records.bin", bytes);
    scratch.write("costs.json", R"({"layers": [{"name": "conv1", "parameters": 80, "choices": [
      {"bits": 2, "bytes": 20, "cost": 3.5}, {"bits": 4, "bytes": 40, "cost": 1.25}]}]})");
  }

  void expect(const std::vector<std::string>& arguments, int status, const std::string& part) const {
    const ProgramResult result = run_built_program("goshawk", arguments);
    std::string line;
    for (const std::string& argument : arguments) line += argument + " ";
    INFO(line, "→ ", result.status, " ", result.err);
    CHECK(result.status == status);
    CHECK(is_one_line(result.err));
    CHECK(result.err.starts_with("goshawk: "));
    CHECK(contains(result.err, part));
    CHECK(result.out.empty());
    CHECK(!std::filesystem::exists(out));
  }
};

bool has_locale(const char* name) {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  const bool there = std::setlocale(LC_ALL, name) != nullptr;
  std::setlocale(LC_ALL, before.c_str());
  return there;
}

/// The variables of a place where numbers have a decimal comma: a locale that is compiled into `directory`
/// where its sources are (Debian's package locales), or one that is installed. Empty where there is neither.
std::vector<std::string> german_variables(const std::string& directory) {
  // The character sets that are listed are those whose sources are there.
  if (shell_output("bash", "command -v localedef >/dev/null && locale -m | grep -x UTF-8") == "UTF-8\n") {
    const std::string printed =
        shell_output("bash", "localedef -i de_DE -f UTF-8 '" + directory + "/de_DE.UTF-8' && echo done");
    REQUIRE_MESSAGE(printed.ends_with("done\n"), printed);
    return {"LC_ALL=de_DE.UTF-8", "LOCPATH=" + directory};
  }
  for (const char* installed : {"de_DE.UTF-8", "de_DE.utf8", "de_DE"}) {
    if (has_locale(installed)) return {std::string("LC_ALL=") + installed};
  }
  return {};
}

}  // namespace

TEST_CASE("every subcommand explains itself, with an example") {
  const ProgramResult program = run_built_program("goshawk", {"--help"});
  CHECK(program.status == 0);
  for (const std::string& command : kCommands) {
    CAPTURE(command);
    CHECK(contains(program.out, "\n  " + command + " "));
    const ProgramResult help = run_built_program("goshawk", {command, "--help"});
    CHECK(help.status == 0);
    CHECK(help.err.empty());
    CHECK(contains(help.out, "Example:\n  "));
    CHECK(contains(help.out, "goshawk " + command));
    std::istringstream lines(help.out);
    for (std::string line; std::getline(lines, line);) {
      // A terminal of 80 columns shows it as it is meant, but for words that are longer.
      CHECK_MESSAGE((line.size() <= 80 || line.find(' ', 34) == std::string::npos), line);
    }
  }
}

TEST_CASE("help keeps its columns, and a command that is too long for a line can still be pasted") {
  const std::string help = run_built_program("goshawk", {"finetune", "--help"}).out;
  const std::string column(34, ' ');
  CHECK(contains(help, "0 for one per core; results\n" + column + "do not depend on it\n"));
  CHECK(contains(help, "\n  goshawk finetune --model resnet20 --weights"));
  CHECK(contains(help, " \\\n      "));
}

TEST_CASE("a misspelt option or subcommand is one line with the right one, status 2") {
  const Fixture f;
  for (const std::string& command : kCommands) {
    f.expect({command, "--hlep"}, 2, "did you mean '--help'?");
    f.expect({command, "--hlep"}, 2, "see goshawk " + command + " --help");
  }
  f.expect({}, 2, "subcommand");
  f.expect({"evalaute"}, 2, "did you mean 'evaluate'?");
}

TEST_CASE("missing files, weights of another model, unknown names and impossible values are one line") {
  const Fixture f;
  // Each command that reads weights, with everything else it needs.
  const std::vector<std::vector<std::string>> readers = {
      {"evaluate", "--data", f.records},
      {"hvp", "--batch", f.missing, "--vector", f.missing, "--bn", "eval", "--out", f.out},
      {"curvature", "--data", f.records, "--out", f.out},
      {"sensitivity", "--data", f.records, "--out", f.out},
      {"train", "--data", f.records, "--batch-size", "2", "--out", f.out},
      {"finetune", "--data", f.records, "--batch-size", "2", "--bits", f.missing, "--out", f.out},
      {"quantize", "--data", f.records, "--batch-size", "2", "--budget-ratio", "8", "--out", f.out}};
  for (const std::vector<std::string>& reader : readers) {
    const auto with = [&](const std::string& model, const std::string& weights) {
      std::vector<std::string> all = reader;
      all.insert(all.end(), {"--model", model, "--weights", weights});
      return all;
    };
    f.expect(with("resnet21", f.weights), 2, "resnet20");
    f.expect(with("resnet20", f.missing), 1, f.missing);
    f.expect(with("resnet32", f.weights), 1, f.weights);
    f.expect(with("resnet20", f.records), 1, f.records);  // a file of another kind
  }
  const std::vector<std::string> model = {"--model", "resnet20", "--weights", f.weights};
  const auto also = [&](std::vector<std::string> first, const std::vector<std::string>& more) {
    first.insert(first.end(), model.begin(), model.end());
    first.insert(first.end(), more.begin(), more.end());
    return first;
  };
  for (const char* command : {"evaluate", "curvature", "sensitivity", "train", "finetune", "quantize"}) {
    std::vector<std::string> rest;
    if (std::string(command) != "evaluate") rest = {"--out", f.out};
    if (std::string(command) == "finetune") rest.insert(rest.end(), {"--bits", f.missing});
    if (std::string(command) == "quantize") rest.insert(rest.end(), {"--budget-ratio", "8"});
    f.expect(also({command}, rest), 2, "--synthetic");  // no pictures at all
    rest.insert(rest.end(), {"--data", f.missing});
    f.expect(also({command}, rest), 1, f.missing);
  }
  f.expect(also({"curvature"}, {"--data", f.records, "--layer", "conv9", "--out", f.out}), 2, "conv9");
  f.expect(also({"sensitivity"}, {"--data", f.records, "--pin", "conv9=4", "--out", f.out}), 1, "conv9");
  f.expect(
      also({"quantize"}, {"--data", f.records, "--batch-size", "2", "--budget-ratio", "99", "--out", f.out}),
      1, "smallest possible");
  f.expect({"allocate", "--costs", f.missing, "--method", "exact", "--budget-bytes", "30", "--out", f.out}, 1,
           f.missing);
  f.expect({"allocate", "--costs", f.costs, "--method", "exact", "--budget-bytes", "3", "--out", f.out}, 1,
           "smallest possible");
  f.expect({"data", f.missing}, 1, f.missing);
  f.expect({"report", f.missing}, 2, f.missing);
  f.expect({"models", "resnet21"}, 2, "resnet20");
  f.expect({"bench", "--model", "resnet21"}, 2, "resnet20");
  f.expect({"bench", "--only", "hvp"}, 2, "hvp_eval");
  f.expect({"bench", "--config", f.missing}, 1, f.missing);
}

TEST_CASE("output is the same in a log, without colours, in the C locale and in a German one") {
  const Fixture f;
  const std::vector<std::string> evaluation = {"evaluate", "--model", "resnet20", "--weights",
                                               f.weights,  "--data",  f.records,  "--quiet"};
  const std::vector<std::string> allocation = {"allocate",       "--costs", f.costs, "--method", "exact",
                                               "--budget-bytes", "30.5",    "--out", f.out};
  const ProgramResult expected = run_built_program("goshawk", evaluation);
  REQUIRE_MESSAGE(expected.status == 0, expected.err);
  CHECK(expected.err.empty());
  CHECK(contains(expected.out, ".00 %"));
  const ProgramResult table = run_built_program("goshawk", {"data", f.records});
  std::vector<std::vector<std::string>> environments = {
      {"NO_COLOR=1", "TERM=xterm-256color"}, {"LC_ALL=C"}, {}};
  if (const std::vector<std::string> german = german_variables(f.scratch.path().string()); german.empty()) {
    MESSAGE("there is no German locale here, nor the sources of one (package locales): skipped");
  } else {
    environments.push_back(german);
    // Programs that ask for the locale do get it; otherwise a run in it would show nothing.
    std::string variables;
    for (const std::string& variable : german) variables += "'" + variable + "' ";
    CHECK(shell_output("bash", "env -i PATH=\"$PATH\" " + variables + "locale decimal_point") == ",\n");
  }
  for (const std::vector<std::string>& environment : environments) {
    const std::string variable = environment.empty() ? "no variables" : environment.front();
    CAPTURE(variable);
    const auto run = [&](const std::vector<std::string>& arguments) {
      return run_built_program("goshawk", arguments, "", &environment);
    };
    CHECK(run(evaluation).out == expected.out);
    CHECK(run({"data", f.records}).out == table.out);
    CHECK(run({"data", f.records}).out.find('\x1b') == std::string::npos);
    CHECK(run(allocation).status == 0);
    const auto bits = nlohmann::json::parse(file_bytes(f.out));
    CHECK(bits.at("budget").at("bytes") == 30.5);
    CHECK(bits.at("objective") == 3.5);
    std::filesystem::remove(f.out);
  }
}

TEST_CASE("what would overwrite its own input, and numbers and files that no run could mean") {
  const Fixture f;
  const std::vector<std::string> train{"train", "--model", "resnet20", "--synthetic", "--out", f.out};
  const auto with = [&](std::initializer_list<std::string> more) {
    std::vector<std::string> arguments = train;
    arguments.insert(arguments.end(), more);
    return arguments;
  };
  f.expect(with({"--lr", "nan"}), 2, "--lr: 'nan' is not a positive number");
  f.expect(with({"--weight-decay", "-1"}), 2, "--weight-decay: '-1' is not a non-negative number");
  f.expect(with({"--seed", "-1"}), 2, "--seed: '-1' is not a non-negative number");
  f.expect(with({"--epochs", "3000000000"}), 2, "--epochs");
  f.expect({"train", "--resume", "--out", f.out}, 2, "there is no run in " + f.out + " to resume");

  const auto config = [&](const char* text) {
    return with({"--config", f.scratch.write("run.toml", text).string()});
  };
  f.expect(config("lr = \"x\"\n"), 2, "run.toml: --lr: 'x' is not a positive number");
  f.expect(config("epochs = [1, 2]\n"), 2, "run.toml: 'epochs' has 2 values and takes 1");
  f.expect(config("[trian]\nlr = 0.1\n"), 2, "section [trian]; did you mean 'train'");
  f.expect(config("[hv]\ndtype = \"f64\"\n"), 2, "section [hv]; did you mean 'hvp'");

  f.expect(config("[TRAIN]\nlr = 0.1\n"), 2, "section [TRAIN]; did you mean 'train'");
  f.expect(config("[train.deep]\nlr = 0.1\n"), 2, "there is no section [train.deep] within [train]");
  f.expect(config("[{\"lr\": 0.1}]\n"), 1, "run.toml is not an object of option names and values");
  f.scratch.write("damaged/config.json", "[]");
  f.expect({"train", "--resume", "--out", f.scratch / "damaged"}, 1, "damaged/config.json is damaged");
  f.scratch.write("damaged/config.json", "");
  f.expect({"train", "--resume", "--out", f.scratch / "damaged"}, 1, "damaged/config.json");

  const std::string same = f.scratch / "../" + f.scratch.path().filename().string() + "/";
  f.expect({"allocate", "--costs", f.costs, "--method", "exact", "--budget-bytes", "30", "--out",
            same + "costs.json"},
           2, "--out and --costs are the same file");
  f.expect({"allocate", "--costs", f.costs, "--method", "exact", "--budget-bytes", "30", "--out", f.missing,
            "--frontier", f.missing},
           2, "--out and --frontier are the same file");
  f.expect({"hvp", "--model", "resnet20", "--weights", f.weights, "--batch", f.records, "--vector", f.weights,
            "--bn", "eval", "--out", f.weights},
           2, "--out and --weights are the same file");
  f.expect({"curvature", "--model", "resnet20", "--weights", f.weights, "--synthetic", "--landscape-points",
            "4", "--out", f.out},
           2, "4 is even");
}

TEST_CASE("numbers are decimal, with or without leading zeros, and fit") {
  const Fixture f;
  const auto with = [&](std::initializer_list<std::string> more) {
    std::vector<std::string> arguments{"train", "--model", "resnet20", "--synthetic", "--out", f.out};
    arguments.insert(arguments.end(), more);
    return arguments;
  };
  const auto expect_no_number = [&](const std::string& option, const std::string& text) {
    f.expect(with({option, text}), 2, option + ": '" + text + "' is not a number that it takes");
  };
  expect_no_number("--seed", "18446744073709551616");
  expect_no_number("--seed", "0x10");
  expect_no_number("--seed", "1.5");
  expect_no_number("--test-images", "9223372036854775808");
  f.expect(with({"--test-images", "+-3"}), 2, "--test-images: '+-3' is not a");
  f.expect(with({"--epochs", "12e0"}), 2, "--epochs");
  f.expect(with({"--epochs", "true"}), 2, "--epochs");
  f.expect(with({"--config", f.scratch.write("run.toml", "seed = 0x10\n").string()}), 2,
           "run.toml: --seed: '0x10'");

  const std::vector<std::string> tiny{"--train-images",
                                      "016",
                                      "--test-images",
                                      "08",
                                      "--batch-size",
                                      "+08",
                                      "--epochs",
                                      "01",
                                      "--quiet",
                                      "--config",
                                      f.scratch.write("run.toml", "seed = 010\n")};
  std::vector<std::string> arguments = with({});
  arguments.insert(arguments.end(), tiny.begin(), tiny.end());
  const ProgramResult result = run_built_program("goshawk", arguments);
  REQUIRE_MESSAGE(result.status == 0, result.err);
  const auto config = nlohmann::json::parse(file_bytes(f.out + "/config.json"));
  CHECK(config.at("train-images") == 16);
  CHECK(config.at("test-images") == 8);
  CHECK(config.at("batch-size") == 8);
  CHECK(config.at("epochs") == 1);
  CHECK(config.at("seed") == 10);
}

TEST_CASE("no option takes what is not a finite number") {
  const Fixture f;
  const std::vector<std::string> weights{"--model", "resnet20", "--weights", f.weights,
                                         "--data",  f.records,  "--out",     f.out};
  const auto expect = [&](const char* command, const std::vector<std::string>& more,
                          const std::string& part) {
    std::vector<std::string> arguments{command};
    arguments.insert(arguments.end(), weights.begin(), weights.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    f.expect(arguments, 2, part);
  };
  for (const char* text : {"nan", "-nan", "inf", "1e400"}) {
    for (const char* command : {"curvature", "sensitivity"}) expect(command, {"--error", text}, "--error");
    expect("quantize", {"--budget-ratio", "8", "--error", text}, "--error");
    expect("sensitivity", {"--percentile", text}, "--percentile");
  }
}
