#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "datasets/augment.hpp"
#include "datasets/synthetic.hpp"
#include "tests/apps/run_program.hpp"
#include "tests/datasets/picture_file.hpp"

using namespace goshawk;

namespace {

nlohmann::json json_of(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "data");
  arguments.emplace_back("--json");
  const ProgramResult result = run_built_program("goshawk", arguments);
  REQUIRE_MESSAGE(result.status == 0, result.err);
  CHECK(is_one_line(result.out));
  return nlohmann::json::parse(result.out);
}

void expect_failure(std::vector<std::string> arguments, int status, const std::string& part) {
  arguments.insert(arguments.begin(), "data");
  const ProgramResult result = run_built_program("goshawk", arguments);
  INFO(result.err);
  CHECK(result.status == status);
  CHECK(is_one_line(result.err));
  CHECK(contains(result.err, part));
  CHECK(result.out.empty());
}

/// 8x8 pixels of one red, half of them with all of green, and blue at 0 and 40 % in turn.
std::string small_png(std::uint8_t red) {
  Picture picture{{8, 8}, {}};
  for (int i = 0; i < 64; ++i) {
    picture.pixels.insert(picture.pixels.end(), {red, i < 32 ? std::uint8_t{255} : std::uint8_t{0},
                                                 i % 2 == 0 ? std::uint8_t{0} : std::uint8_t{102}});
  }
  return png_bytes(picture);
}

}  // namespace

TEST_CASE("goshawk data measures folders of pictures, split by split") {
  const ScratchDirectory scratch;
  scratch.write("train/cat/1.png", small_png(255));
  scratch.write("train/cat/2.png", small_png(255));
  scratch.write("train/dog/1.png", small_png(0));
  scratch.write("val/cat/1.png", small_png(255));
  scratch.write("val/dog/1.png", small_png(0));
  const nlohmann::json json = json_of({scratch.path().string(), "--size", "8"});
  CHECK(json.at("classes") == std::vector<std::string>{"cat", "dog"});
  REQUIRE(json.at("splits").size() == 2);
  const auto& train = json.at("splits")[0];
  CHECK(train.at("split") == "train");
  CHECK(train.at("images") == 3);
  CHECK(train.at("counts") == std::vector<int>{2, 1});
  CHECK(train.at("height") == 8);
  CHECK(train.at("mean")[0].get<double>() == doctest::Approx(2.0 / 3));
  CHECK(train.at("std")[0].get<double>() == doctest::Approx(std::sqrt(2.0) / 3));
  CHECK(train.at("mean")[2].get<double>() == doctest::Approx(0.2));
  CHECK(json.at("splits")[1].at("counts") == std::vector<int>{1, 1});

  const ProgramResult text = run_built_program("goshawk", {"data", scratch.path().string(), "--size", "8"});
  CHECK(text.status == 0);
  CHECK(contains(text.out, "0.6667 0.5000 0.2000"));
  CHECK(contains(text.out, "dog"));

  // One split alone is a data set too; other classes in the other split are not.
  std::filesystem::rename(scratch.path() / "val", scratch.path() / "aside");
  CHECK(json_of({scratch.path().string(), "--size", "8"}).at("splits").size() == 1);
  scratch.write("test/cow/1.png", small_png(1));
  expect_failure({scratch.path().string(), "--size", "8"}, 1, "same class folders");
}

TEST_CASE("goshawk data knows CIFAR-10 batches and the synthetic set") {
  const ScratchDirectory scratch;
  std::string records;
  for (const int label : {3, 3, 9}) {
    records += static_cast<char>(label);
    for (int i = 0; i < 1536; ++i) records += "\x33\x66";
  }
  scratch.write("records.bin", records);
  const nlohmann::json file = json_of({scratch / "records.bin"});
  REQUIRE(file.at("splits").size() == 1);
  CHECK(file.at("splits")[0].at("split") == "all");
  CHECK(file.at("splits")[0].at("counts")[3] == 2);
  CHECK(file.at("splits")[0].at("mean")[1].get<double>() == doctest::Approx(0.3));

  const nlohmann::json synthetic = json_of({"--synthetic", "--synthetic-seed", "4"});
  REQUIRE(synthetic.at("splits").size() == 2);
  CHECK(synthetic.at("splits")[0].at("images") == 10000);
  CHECK(synthetic.at("splits")[1].at("images") == 2000);
  const Normalization test = measure_normalization(*make_synthetic(Split::test, 2000, {.seed = 4}));
  CHECK(synthetic.at("splits")[1].at("mean").get<std::vector<float>>() ==
        std::vector<float>(test.mean.begin(), test.mean.end()));
}

TEST_CASE("goshawk data: wrong use is one line") {
  const ScratchDirectory scratch;
  expect_failure({}, 2, "--synthetic");
  expect_failure({scratch.path().string(), "--synthetic"}, 2, "one of them");
  expect_failure({scratch / "nowhere"}, 1, "nowhere");
  expect_failure({scratch.path().string()}, 1, "data_batch_1.bin");
  scratch.write("torn.bin", "123");
  expect_failure({scratch / "torn.bin"}, 1, "torn.bin");
  expect_failure({std::string(300, 'x')}, 1, "[open_dataset] there is no xxx");
  scratch.write("pictures/train/caf\xe9/1.png", small_png(51));
  scratch.write("pictures/train/caf\xe9/2.png", small_png(99));
  expect_failure({scratch / "pictures", "--size", "8", "--json"}, 1, "is not UTF-8");
}
