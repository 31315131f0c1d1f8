#include <algorithm>
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/safetensors.hpp"
#include "models/registry.hpp"
#include "nn/checkpoint.hpp"
#include "tests/apps/run_program.hpp"
#include "tests/datasets/picture_file.hpp"

using namespace goshawk;

namespace {

/// A training of a few seconds in `out`.
std::vector<std::string> tiny_training(const std::string& out, const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments{
      "train",        "--model", "resnet20", "--synthetic", "--train-images", "96", "--test-images", "32",
      "--batch-size", "16",      "--epochs", "2",           "--seed",         "3",  "--out",         out};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::vector<int> logged_epochs(const std::filesystem::path& run) {
  std::vector<int> epochs;
  std::istringstream log(file_bytes(run / "log.jsonl"));
  for (std::string line; std::getline(log, line);) epochs.push_back(nlohmann::json::parse(line).at("epoch"));
  return epochs;
}

void check_same_run(const std::filesystem::path& a, const std::filesystem::path& b) {
  for (const char* file :
       {"config.json", "model.safetensors", "result.json", "checkpoints/train.training.safetensors"}) {
    INFO(file);
    CHECK((file_bytes(a / file) == file_bytes(b / file)));
  }
}

}  // namespace

TEST_CASE("goshawk train leaves a model that evaluates as it says, and its config.json repeats it") {
  const ScratchDirectory scratch;
  const auto first = scratch.path() / "first", again = scratch.path() / "again";
  const ProgramResult result =
      run_built_program("goshawk", tiny_training(first.string(), {"--json", "--quiet"}));
  REQUIRE_MESSAGE(result.status == 0, result.err);
  CHECK(result.err.empty());
  CHECK(is_one_line(result.out));
  CHECK(nlohmann::json::parse(result.out) == nlohmann::json::parse(file_bytes(first / "result.json")));
  CHECK(logged_epochs(first) == std::vector<int>{0, 1});
  CHECK(contains(file_bytes(first / "report.md"), "![Loss](figures/training-loss.svg)"));
  CHECK(std::filesystem::exists(first / "report.html"));

  const ProgramResult evaluated = run_built_program(
      "goshawk", {"evaluate", "--model", "resnet20", "--weights", (first / "model.safetensors").string(),
                  "--synthetic", "--images", "32", "--json"});
  CHECK(evaluated.out == result.out);

  const ProgramResult repeated =
      run_built_program("goshawk", {"train", "--config", (first / "config.json").string(), "--out",
                                    again.string(), "--threads", "1", "--quiet"});
  REQUIRE_MESSAGE(repeated.status == 0, repeated.err);
  CHECK(contains(repeated.out, "of 32 images correct"));
  check_same_run(first, again);

  // A finished run only says its result again.
  const ProgramResult resumed =
      run_built_program("goshawk", {"train", "--resume", "--out", first.string(), "--json"});
  CHECK(resumed.out == result.out);
}

TEST_CASE("goshawk train: Ctrl-C saves, says how to go on, and going on ends with the same bytes") {
  const ScratchDirectory scratch;
  const auto whole = scratch.path() / "whole", stopped = scratch.path() / "stopped";
  // Long enough that the first epoch's line in the log comes well before the end.
  const std::vector<std::string> more{"--config", scratch.write("long.toml", "epochs = 6\n").string(),
                                      "--quiet"};
  const auto training = [&](const std::filesystem::path& run) {
    std::vector<std::string> arguments = tiny_training(run.string(), more);
    const auto epochs = std::find(arguments.begin(), arguments.end(), "--epochs");
    arguments.erase(epochs, epochs + 2);
    return arguments;
  };
  REQUIRE(run_built_program("goshawk", training(whole)).status == 0);

  const ProgramResult first = run_and_interrupt("goshawk", training(stopped), stopped / "log.jsonl");
  INFO(first.err);
  CHECK(first.status == 130);
  CHECK(is_one_line(first.err));
  CHECK(contains(first.err, "goshawk train --resume --out " + stopped.string()));
  // Again, at other places; a fast machine may be through before the last of them.
  const std::vector<std::string> resume{"train", "--resume", "--out", stopped.string(), "--quiet"};
  for (const int wait : {100, 200, 300}) {
    const ProgramResult next = run_and_interrupt("goshawk", resume, stopped / "config.json", wait);
    CHECK((next.status == 130 || next.status == 0));
  }
  const ProgramResult last = run_built_program("goshawk", resume);
  REQUIRE_MESSAGE(last.status == 0, last.err);
  check_same_run(whole, stopped);
  CHECK(logged_epochs(stopped) == std::vector<int>{0, 1, 2, 3, 4, 5});
}

TEST_CASE("goshawk train takes its options from a TOML file, and the command line has the last word") {
  const ScratchDirectory scratch;
  const auto run = scratch.path() / "run";
  const auto config =
      scratch.write("run.toml",
                    "# a comment\nmodel = \"resnet20\"\nsynthetic = true\ntrain-images = 32\n"
                    "test-images = 16\nbatch-size = 16\nepochs = 3\nquiet = true\n"
                    "mean = [0.5, 0.4, 0.3]\n[train]\nlr = 0.05\n[evaluate]\nimages = 3\n[ci]\nlr = "
                    "7\n[x]\nlr = 8\n");
  const ProgramResult result = run_built_program(
      "goshawk", {"train", "--config", config.string(), "--epochs=1", "--out", run.string()});
  REQUIRE_MESSAGE(result.status == 0, result.err);
  CHECK(result.err.empty());
  const auto stored = nlohmann::json::parse(file_bytes(run / "config.json"));
  CHECK(stored.at("program") == "goshawk train");
  CHECK(stored.at("epochs") == 1);
  CHECK(stored.at("lr") == 0.05);
  CHECK(stored.at("train-images") == 32);
  CHECK(stored.at("mean")[1] == doctest::Approx(0.4));
  CHECK(stored.at("std").is_null());
  CHECK(read_safetensors((run / "model.safetensors").string()).metadata.at("normalization.mean") ==
        "0.5 0.4 0.3");
}

TEST_CASE("goshawk train starts from weights, and wrong use is one line") {
  const ScratchDirectory scratch;
  const std::string out = scratch / "run", weights = scratch / "start.safetensors";
  save_checkpoint(weights, *make_model("resnet20", {.seed = 9}), {});
  REQUIRE(run_built_program("goshawk", tiny_training(out, {"--weights", weights, "--quiet"})).status == 0);

  const auto expect = [&](const std::vector<std::string>& arguments, int status, const std::string& part) {
    const ProgramResult result = run_built_program("goshawk", arguments);
    INFO(result.err);
    CHECK(result.status == status);
    CHECK(is_one_line(result.err));
    CHECK(contains(result.err, part));
    CHECK(result.out.empty());
  };
  const std::string other = scratch / "other";
  expect(tiny_training(out), 2, "--resume");
  expect({"train", "--resume", "--out", out, "--lr", "0.3"}, 2, "lr");
  expect(tiny_training(other, {"--weights", scratch / "none.safetensors"}), 1, "none.safetensors");
  expect(tiny_training(other, {"--recipe", "secret"}), 2, "he2016");
  expect({"train", "--model", "resnet20", "--synthetic", "--train-images", "96", "--batch-size", "1000",
          "--out", other},
         1, "--batch-size");
  expect(tiny_training(other, {"--epoch", "3"}), 2, "did you mean '--epochs'?");
  expect({"train", "--model", "resnet20", "--out", other}, 2, "--synthetic");
  expect({"train", "--synthetic", "--out", other}, 2, "--model");
  expect({"trian"}, 2, "did you mean 'train'?");
  const std::string config = scratch.write("bad.toml", "epoch = 3\n").string();
  expect({"train", "--config", config, "--out", other}, 2, "did you mean 'epochs'?");
  expect({"train", "--config", scratch / "none.toml", "--out", other}, 1, "none.toml");
  const std::string foreign = scratch.write("config.json", R"({"program": "goshawk quantize"})").string();
  expect({"train", "--config", foreign, "--out", other}, 2, "goshawk quantize");
  for (const char* picture : {"one/train/cat/1.png", "one/val/cat/1.png"})
    scratch.write(picture, png_bytes({{1, 1}, {1, 2, 3}}));
  expect({"train", "--model", "resnet20", "--data", scratch / "one", "--batch-size", "1", "--out", other}, 1,
         "has one class, 'cat'");
  CHECK(!std::filesystem::exists(other));
}

TEST_CASE("goshawk train: a network whose outputs overflow is no result, now or when the run goes on") {
  const ScratchDirectory scratch;
  const std::string out = scratch / "run";
  // One step, after which no other would notice.
  const std::vector<std::string> training{"train",
                                          "--model",
                                          "resnet20",
                                          "--synthetic",
                                          "--train-images",
                                          "16",
                                          "--test-images",
                                          "8",
                                          "--batch-size",
                                          "16",
                                          "--epochs",
                                          "1",
                                          "--lr",
                                          "1e30",
                                          "--quiet",
                                          "--out",
                                          out};
  for (const auto& arguments : {training, {"train", "--resume", "--quiet", "--out", out}}) {
    const ProgramResult result = run_built_program("goshawk", arguments);
    INFO(result.err);
    CHECK(result.status == 1);
    CHECK(result.out.empty());
    CHECK(is_one_line(result.err));
    CHECK(contains(result.err, "overflow"));
    CHECK(contains(result.err, "(--lr)"));
    CHECK(!std::filesystem::exists(out + "/result.json"));
    CHECK(!std::filesystem::exists(out + "/model.safetensors"));
  }
  CHECK(std::filesystem::exists(out + "/checkpoints/train.training.safetensors"));
  const ProgramResult report = run_built_program("goshawk", {"report", out});
  CHECK_MESSAGE(report.status == 0, report.err);
}
