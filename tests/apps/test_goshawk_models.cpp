#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "models/registry.hpp"
#include "nn/layers.hpp"
#include "tests/apps/run_program.hpp"

using namespace goshawk;

namespace {

nlohmann::json json_of(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "models");
  arguments.emplace_back("--json");
  const ProgramResult result = run_built_program("goshawk", arguments);
  REQUIRE_MESSAGE(result.status == 0, result.err);
  CHECK(is_one_line(result.out));
  return nlohmann::json::parse(result.out);
}

}  // namespace

TEST_CASE("goshawk models lists every model with its parameters, input and multiply-accumulates") {
  const nlohmann::json list = json_of({});
  REQUIRE(list.size() == model_names().size());
  bool found = false;
  for (const auto& model : list) {
    CHECK(model.at("parameters") > 0);
    CHECK(model.at("macs") > 0);
    if (model.at("name") != "resnet20") continue;
    found = true;
    // He et al. 2016: 0.27 million parameters; 40.55 million multiply-accumulates (with the linear layer).
    CHECK(model.at("parameters") == 269722);
    CHECK(model.at("layers") == 20);
    CHECK(model.at("input") == std::vector<int>{3, 32, 32});
    CHECK(model.at("macs") == 40551040);
  }
  CHECK(found);
  const ProgramResult text = run_built_program("goshawk", {"models"});
  CHECK(text.status == 0);
  for (const std::string& name : model_names()) CHECK(contains(text.out, "| " + name));
}

TEST_CASE("goshawk models NAME describes the layers as files have them") {
  const nlohmann::json model = json_of({"resnet20", "--classes", "7"});
  CHECK(model.at("layers").size() == 20);
  CHECK(model.at("layers")[0].at("name") == "conv1");
  CHECK(model.at("layers")[0].at("shape") == std::vector<int>{16, 3, 3, 3});
  CHECK(model.at("layers")[0].at("macs") == 16 * 27 * 32 * 32);
  CHECK(model.at("layers")[19].at("shape") == std::vector<int>{7, 64});
  std::int64_t macs = 0;
  for (const auto& layer : model.at("layers")) macs += layer.at("macs").get<std::int64_t>();
  CHECK(model.at("macs") == macs);
  const ProgramResult text = run_built_program("goshawk", {"models", "resnet20"});
  CHECK(contains(text.out, "| layer3.2.conv2"));
  CHECK(contains(text.out, "[16, 3, 3, 3]"));

  const ProgramResult wrong = run_built_program("goshawk", {"models", "resnet21"});
  CHECK(wrong.status == 2);
  CHECK(is_one_line(wrong.err));
  CHECK(contains(wrong.err, "resnet20"));
}
