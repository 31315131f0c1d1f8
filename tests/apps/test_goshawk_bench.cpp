// goshawk bench and the program bench at a tiny size: what they print. How fast anything is, no test says.
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/apps/run_program.hpp"

using namespace goshawk;

namespace {

using Json = nlohmann::ordered_json;

const std::vector<std::string> kTiny = {"--batch",       "2", "--rounds",  "1",
                                        "--repetitions", "1", "--threads", "1"};

ProgramResult bench(const std::string& program, std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), kTiny.begin(), kTiny.end());
  if (program == "goshawk") arguments.insert(arguments.begin(), "bench");
  return run_built_program(program, arguments);
}

std::vector<std::string> keys(const Json& object) {
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items()) names.push_back(name);
  return names;
}

}  // namespace

TEST_CASE("goshawk bench --json has every stage, and the keys of the program bench") {
  const ProgramResult result = bench("goshawk", {"--model", "resnet20", "--json", "--quiet"});
  REQUIRE_MESSAGE(result.status == 0, result.err);
  CHECK(result.err.empty());
  CHECK(is_one_line(result.out));
  const Json json = Json::parse(result.out);
  CHECK(keys(json) ==
        std::vector<std::string>{"model", "batch", "threads", "fma_limit_gflops", "forward_eval",
                                 "train_step", "gradient_eval", "hvp_eval", "hvp_train", "hvp_eval_k8",
                                 "top_eigenvalue", "all_layer_traces", "exact_traces", "hvp_eval_forward",
                                 "hvp_eval_k8_reverse", "hvp_eval_k8_forward", "hvp_train_forward"});
  CHECK(json.at("model") == "resnet20");
  CHECK(json.at("batch") == 2);
  CHECK(json.at("threads") == 1);
  CHECK(json.at("fma_limit_gflops") > 0);
  for (const auto& [name, stage] : json.items()) {
    if (!stage.is_object()) continue;
    CAPTURE(name);
    CHECK(keys(stage) == std::vector<std::string>{"images_per_second", "milliseconds", "gflops",
                                                  "share_of_fma_limit", "peak_rss_mb", "peak_tensor_mb",
                                                  "allocations", "system_allocations"});
    for (const char* positive : {"images_per_second", "milliseconds", "gflops", "share_of_fma_limit"}) {
      CHECK(stage.at(positive) > 0);
    }
  }

  // What was built on the program's output reads it still: indented, on a silent standard error.
  const ProgramResult program = bench("bench", {"--model", "resnet20", "--only", "forward_eval", "--json"});
  REQUIRE_MESSAGE(program.status == 0, program.err);
  CHECK(program.err.empty());
  CHECK(program.out.starts_with("{\n  \"model\": \"resnet20\",\n"));
  const Json theirs = Json::parse(program.out);
  CHECK(keys(theirs) ==
        std::vector<std::string>{"model", "batch", "threads", "fma_limit_gflops", "forward_eval"});
  CHECK(keys(theirs.at("forward_eval")) == keys(json.at("forward_eval")));
}

TEST_CASE("goshawk bench --compare sets stages side by side") {
  const std::vector<std::string> stages{"--compare", "forward_eval,hvp_eval@1", "--compare", "hvp_eval"};
  std::vector<std::string> as_json = stages;
  as_json.insert(as_json.end(), {"--json", "--quiet"});
  const ProgramResult result = bench("goshawk", as_json);
  REQUIRE_MESSAGE(result.status == 0, result.err);
  const Json json = Json::parse(result.out);
  CHECK(keys(json) == std::vector<std::string>{"model", "batch", "threads", "fma_limit_gflops", "compared"});
  const Json& compared = json.at("compared");
  REQUIRE(compared.size() == 3);
  CHECK(compared[0].at("stage") == "forward_eval");
  CHECK(compared[1].at("stage") == "hvp_eval@1");
  CHECK(compared[2].at("stage") == "hvp_eval");
  CHECK(compared[0].at("ratio") == 1);
  for (const Json& stage : compared) {
    CHECK(stage.at("images_per_second") > 0);
    const Json& quartiles = stage.at("ratio_quartiles");
    CHECK(quartiles[0] <= stage.at("ratio"));
    CHECK(quartiles[1] >= stage.at("ratio"));
  }
  CHECK(compared[1].at("ratio") < 1);  // a product takes six forward passes

  const ProgramResult table = bench("bench", stages);
  REQUIRE_MESSAGE(table.status == 0, table.err);
  CHECK(contains(table.out, "\nhvp_eval@1 "));

  const ProgramResult alone = bench("bench", {"--compare", "hvp_eval"});
  CHECK(alone.status != 0);
  CHECK(contains(alone.err, "two stages"));
}

TEST_CASE("goshawk bench prints a table, takes a file of options, and refuses what there is not") {
  const ScratchDirectory scratch;
  const std::string config =
      scratch.write("bench.toml", "[bench]\nonly = [\"train_step\", \"forward_eval\"]\n").string();
  const ProgramResult table = bench("goshawk", {"--config", config});
  REQUIRE_MESSAGE(table.status == 0, table.err);
  CHECK(table.out.starts_with("resnet20, batch 2, 1 threads, FMA limit "));
  CHECK(table.out.find("\nforward_eval ") < table.out.find("\ntrain_step "));
  CHECK(!contains(table.out, "hvp_eval"));
  // The command line has the last word, also by an option that is instead of the file's.
  const ProgramResult compared =
      bench("goshawk", {"--config", config, "--compare", "forward_eval,train_step"});
  REQUIRE_MESSAGE(compared.status == 0, compared.err);
  CHECK(contains(compared.out, "median ratio"));

  for (const auto& [arguments, part] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"--model", "resnet21"}, "resnet20"},
           {{"--only", "hvp"}, "hvp_eval_k8"},
           {{"--compare", "hvp_eval,hvp"}, "hvp_eval_k8"},
           {{"--compare", "hvp_eval,hvp_eval@"}, "positive number"},
           {{"--compare", "hvp_eval,hvp_eval@8x"}, "positive number"},
           {{"--compare", "hvp_eval@0,hvp_eval"}, "positive number"},
           {{"--compare", "hvp_eval,forward_eval", "--only", "train_step"}, "excludes"},
           {{"--repetitions", "0"}, "--repetitions"},
           {{"--convolution", "fft"}, "winograd"}}) {
    for (const char* program : {"goshawk", "bench"}) {
      const ProgramResult result = bench(program, arguments);
      CHECK(result.status == 2);
      CHECK(is_one_line(result.err));
      CHECK(contains(result.err, part));
      CHECK(result.out.empty());
    }
  }
}
