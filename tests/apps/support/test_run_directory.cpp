#include <doctest/doctest.h>
#include <filesystem>
#include <string>

#include "apps/support/run_directory.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

TEST_CASE("a run directory is new, or empty, or the same run's") {
  const ScratchDirectory scratch;
  const auto path = scratch.path() / "deep" / "run";
  const nlohmann::ordered_json config{{"lr", 0.1}}, other{{"lr", 0.2}};
  {
    const RunDirectory run(path, config, false);
    CHECK(run.has("config.json"));
    CHECK(RunDirectory::stored_config(path).at("lr") == 0.1);
  }
  CHECK_THROWS_WITH_AS(RunDirectory(path, config, false), doctest::Contains("already holds a run"),
                       UsageError);
  CHECK_THROWS_WITH_AS(RunDirectory(path, other, true),
                       doctest::Contains("was started with lr = 0.1, not 0.2"), UsageError);
  CHECK(RunDirectory(path, config, true).has("config.json"));
}

TEST_CASE("files without a config.json are not taken for a run, and not overwritten") {
  const ScratchDirectory scratch;
  scratch.write("model.safetensors", "somebody's");
  const nlohmann::ordered_json config{{"lr", 0.1}};
  for (bool resume : {false, true}) {
    CHECK_THROWS_WITH_AS(RunDirectory(scratch.path(), config, resume),
                         doctest::Contains("holds 'model.safetensors' but no config.json"), UsageError);
  }
  CHECK(!std::filesystem::exists(scratch.path() / ".locks"));

  // What a process leaves that was killed while it began.
  std::filesystem::remove(scratch.path() / "model.safetensors");
  std::filesystem::create_directories(scratch.path() / "checkpoints");
  std::filesystem::create_directories(scratch.path() / ".locks");
  scratch.write("config.json.tmp-1-0", "{");
  CHECK(RunDirectory(scratch.path(), config, false).has("config.json"));
}

TEST_CASE("a name that JSON cannot hold is refused by name of the file") {
  const ScratchDirectory scratch;
  CHECK_THROWS_WITH_AS(RunDirectory(scratch.path(), {{"weights", "x\xff"}}, false),
                       doctest::Contains("config.json would hold a name that is not UTF-8"), Error);
}

TEST_CASE("a stored result that lacks a number is damage, by name of the file") {
  const ScratchDirectory scratch;
  const RunDirectory run(scratch.path(), {{"seed", 1}}, false);
  run.write_json("result.json", {{"correct", 3}, {"images", "four"}});
  const auto number = [](const char* key) {
    return [key](const nlohmann::json& json) { return json.at(key).get<int>(); };
  };
  CHECK(run.read_json("result.json", number("correct")) == 3);
  for (const char* damaged : {"loss", "images"}) {
    CHECK_THROWS_WITH_AS(run.read_json("result.json", number(damaged)),
                         doctest::Contains("result.json is damaged: "), Error);
  }
}

TEST_CASE("a config.json without options is damage, and no run begins in its place") {
  const nlohmann::ordered_json config{{"lr", 0.1}};
  for (const std::string text : {"null", "[]", "3"}) {
    const ScratchDirectory scratch;
    scratch.write("config.json", text);
    for (bool resume : {false, true}) {
      CHECK_THROWS_WITH_AS(RunDirectory(scratch.path(), config, resume),
                           doctest::Contains("config.json is damaged: it holds JSON of type "), Error);
    }
    CHECK(scratch.read("config.json") == text);
  }
}
