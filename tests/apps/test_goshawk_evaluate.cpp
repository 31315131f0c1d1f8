#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/safetensors.hpp"
#include "datasets/cifar10.hpp"
#include "datasets/loader.hpp"
#include "models/registry.hpp"
#include "nn/layers.hpp"
#include "nn/state_dict.hpp"
#include "tests/apps/run_program.hpp"
#include "tests/datasets/picture_file.hpp"

using namespace goshawk;

namespace {

constexpr std::int64_t kPictures = 37, kRight = 23;
constexpr std::int64_t kRecord = 3073;

/// Classes that the model in `weights` gives to the CIFAR-10 records, and its mean loss on their labels.
struct Outcome {
  std::vector<std::int64_t> classes;
  double loss = 0;
};

Outcome classify(const std::vector<std::pair<std::string, Tensor>>& weights,
                 const std::filesystem::path& records, const Normalization& normalization) {
  const auto model = make_model("resnet20");
  load_state_dict(*model, weights, "test");
  model->set_mode(Mode::eval);
  const auto data = load_cifar10_batch(records);
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < data->size(); ++i) all.push_back(i);
  const Batch batch = make_batch(*data, all, normalization);
  const NoGrad no_grad;
  const Variable logits = (*model)(batch.images);
  Outcome outcome;
  outcome.loss = softmax_cross_entropy(logits, batch.labels).item();
  const float* row = logits.value().data<float>();
  for (std::int64_t i = 0; i < data->size(); ++i, row += 10) {
    outcome.classes.push_back(std::max_element(row, row + 10) - row);
  }
  return outcome;
}

/// A model and records of which it gets the first kRight of kPictures right.
struct Command {
  ScratchDirectory scratch;
  std::string weights = (scratch.path() / "w.safetensors").string();
  std::string data = (scratch.path() / "records.bin").string();
  std::string model = "resnet20";
  std::string records;
  Outcome outcome;

  Command() {
    const auto entries = state_dict(*make_model("resnet20", {.seed = 3}));
    write_safetensors(weights, entries);
    Random random(5);
    records.resize(static_cast<std::size_t>(kPictures * kRecord));
    // Flat colours with a little noise, so that the pictures differ as a whole.
    for (std::int64_t i = 0; i < kPictures; ++i) {
      std::uint64_t base = 0;
      for (std::int64_t p = 0; p < kRecord - 1; ++p) {
        if (p % 1024 == 0) base = random.below(200);
        records[static_cast<std::size_t>(i * kRecord + 1 + p)] = static_cast<char>(base + random.below(56));
      }
    }
    scratch.write("records.bin", records);
    outcome = classify(entries, data, {});
    for (std::int64_t i = 0; i < kPictures; ++i) {
      const std::int64_t wrong = i < kRight ? 0 : 1;
      records[static_cast<std::size_t>(i * kRecord)] =
          static_cast<char>((outcome.classes[static_cast<std::size_t>(i)] + wrong) % 10);
    }
    scratch.write("records.bin", records);
    outcome = classify(entries, data, {});
  }

  ProgramResult run(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"evaluate", "--model", model, "--weights", weights, "--data", data};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_built_program("goshawk", arguments);
  }

  nlohmann::json json(std::vector<std::string> more = {}) const {
    more.push_back("--json");
    const ProgramResult result = run(more);
    INFO(result.err);
    REQUIRE(result.status == 0);
    CHECK(is_one_line(result.out));
    return nlohmann::json::parse(result.out);
  }
};

}  // namespace

TEST_CASE("evaluate counts the pictures that a model gets right") {
  const Command command;
  const nlohmann::json result = command.json();
  CHECK(result.size() == 4);
  CHECK(result.at("correct") == kRight);
  CHECK(result.at("images") == kPictures);
  CHECK(result.at("accuracy").get<double>() == static_cast<double>(kRight) / kPictures);
  CHECK(result.at("loss").get<double>() == doctest::Approx(command.outcome.loss).epsilon(1e-6));

  const ProgramResult text = command.run();
  CHECK(text.status == 0);
  CHECK(is_one_line(text.out));
  CHECK(contains(text.out, "accuracy 62.16 %, 23 of 37 images correct"));
  CHECK(text.err.empty());
}

TEST_CASE("evaluate takes any batch size, the first pictures, and any number of threads") {
  const Command command;
  for (const std::string size : {"1", "10", "37", "1000"}) {
    const nlohmann::json result = command.json({"--batch-size", size});
    CHECK(result.at("correct") == kRight);
    CHECK(result.at("loss").get<double>() == doctest::Approx(command.outcome.loss).epsilon(1e-6));
  }
  const nlohmann::json first = command.json({"--images", "30"});
  CHECK(first.at("images") == 30);
  CHECK(first.at("correct") == kRight);
  CHECK(command.json({"--images", "20"}).at("correct") == 20);
  CHECK(command.json({"--images", "1000"}).at("images") == kPictures);
  CHECK(command.json({"--threads", "1"}) == command.json({"--threads", "2"}));
}

TEST_CASE("evaluate writes what each picture was taken for, and compares two models picture by picture") {
  const Command command;
  const auto file = [&](const char* name) { return (command.scratch.path() / name).string(); };
  REQUIRE(command.run({"--predictions", file("all.csv"), "--batch-size", "10"}).status == 0);
  std::string expected = "image,label,predicted\n";
  for (std::int64_t i = 0; i < kPictures; ++i) {
    const std::int64_t predicted = command.outcome.classes[static_cast<std::size_t>(i)];
    expected += fmt::format("{},{},{}\n", i, i < kRight ? predicted : (predicted + 1) % 10, predicted);
  }
  CHECK(command.scratch.read("all.csv") == expected);

  // Another model, that is wrong where this one is right for pictures 0 to 4, and right for 36.
  std::string other = "image,label,predicted\n";
  for (std::int64_t i = 0; i < kPictures; ++i) {
    const std::int64_t predicted = command.outcome.classes[static_cast<std::size_t>(i)];
    const std::int64_t label = i < kRight ? predicted : (predicted + 1) % 10;
    other += fmt::format("{},{},{}\n", i, label, i < 5 ? -1 : (i == 36 ? label : predicted));
  }
  command.scratch.write("other.csv", other);
  const nlohmann::json against = command.json({"--against", file("other.csv")}).at("against");
  CHECK(against.at("only_this") == 5);
  CHECK(against.at("only_other") == 1);
  CHECK(against.at("difference").get<double>() == doctest::Approx(4.0 / 37));
  // Variance of five 1, one −1 and 31 zeros, over 37.
  CHECK(against.at("standard_error").get<double>() ==
        doctest::Approx(std::sqrt((6.0 / 37 - 16.0 / 37 / 37) / 37)));
  const ProgramResult text = command.run({"--against", file("other.csv")});
  CHECK(contains(text.out, "+10.81 ± 6.38 points against "));
  CHECK(contains(text.out, "5 are right here only, 1 there only"));
  CHECK(command.json({"--against", file("all.csv")}).at("against").at("standard_error") == 0);

  const auto refused = [&](const std::string& content, const std::string& why) {
    command.scratch.write("bad.csv", content);
    const ProgramResult result = command.run({"--against", file("bad.csv")});
    CHECK(result.status == 1);
    CHECK(is_one_line(result.err));
    CHECK_MESSAGE(contains(result.err, why), result.err);
    CHECK(contains(result.err, "bad.csv"));
  };
  refused("label\n3\n", "image,label,predicted");
  refused("image,label,predicted\n0,1\n", "line 2");
  refused("image,label,predicted\n0,1,1\n2,1,1\n", "line 3");
  refused("image,label,predicted\n0,1,1\n", "is of 1 pictures, but 37 were evaluated");
  std::string changed = expected;
  changed[expected.find("\n5,") + 3] = command.outcome.classes[5] == 0 ? '1' : '0';
  refused(changed, "picture 5 has label");
  CHECK(command.run({"--against", file("none.csv")}).status == 1);
}

TEST_CASE("evaluate normalises as the command line says, or the checkpoint, or as usual") {
  const Command command;
  const Normalization other = {{0.1f, 0.2f, 0.3f}, {0.5f, 0.4f, 0.6f}};
  const SafeTensors file = read_safetensors(command.weights);
  const double usual = command.outcome.loss, changed = classify(file.tensors, command.data, other).loss;
  REQUIRE(std::abs(usual - changed) > 1e-3);
  const auto loss = [&](const std::vector<std::string>& options = {}) {
    return command.json(options).at("loss").get<double>();
  };
  const auto near = [](double value) { return doctest::Approx(value).epsilon(1e-6); };
  CHECK(loss() == near(usual));
  CHECK(loss({"--mean", "0.1", "0.2", "0.3", "--std", "0.5", "0.4", "0.6"}) == near(changed));
  CHECK(loss({"--mean", "0.1,0.2,0.3", "--std", "0.5,0.4,0.6"}) == near(changed));
  CHECK(loss({"--mean=.1,.2,.3", "--std=.5,.4,.6"}) == near(changed));

  write_safetensors(command.weights, file.tensors,
                    {{"normalization.mean", "0.1 0.2 0.3"}, {"normalization.std", "0.5 0.4 0.6"}});
  CHECK(loss() == near(changed));
  CHECK(loss({"--mean", ".485,.456,.406", "--std", ".229,.224,.225"}) == near(usual));
  const double mixed = classify(file.tensors, command.data, {Normalization{}.mean, other.stddev}).loss;
  REQUIRE(std::abs(mixed - changed) > 1e-3);
  CHECK(loss({"--mean", ".485,.456,.406"}) == near(mixed));
}

TEST_CASE("evaluate opens CIFAR-10 directories and folders of pictures") {
  Command command;
  const std::string first = command.records.substr(0, static_cast<std::size_t>(30 * kRecord));
  const std::string rest = command.records.substr(static_cast<std::size_t>(30 * kRecord));
  for (int i = 1; i <= 5; ++i) command.scratch.write(fmt::format("cifar/data_batch_{}.bin", i), first);
  command.scratch.write("cifar/test_batch.bin", rest);
  command.data = (command.scratch.path() / "cifar").string();
  const nlohmann::json test = command.json();
  CHECK(test.at("images") == kPictures - 30);
  CHECK(test.at("correct") == 0);
  const nlohmann::json train = command.json({"--split", "train"});
  CHECK(train.at("images") == 5 * 30);
  CHECK(train.at("correct") == 5 * kRight);
  CHECK(command.json({"--split", "test"}) == test);

  // The same records as PNG files in one folder per class; every class has one so that ranks are labels.
  const auto data = load_cifar10_batch(command.scratch.write("all.bin", command.records));
  std::int64_t images = 0;
  for (std::int64_t i = 0; i < data->size(); ++i) {
    std::vector<std::uint8_t> pixels(3072);
    data->decode(i, pixels);
    command.scratch.write(fmt::format("folders/val/{}/{}.png", data->label(i), i),
                          png_bytes(pixels.data(), 32, 32, 3));
    ++images;
  }
  for (int c = 0; c < 10; ++c) {
    if (std::filesystem::exists(command.scratch.path() / "folders/val" / std::to_string(c))) continue;
    // A copy of a picture that is of another class, so that it counts as wrong.
    std::vector<std::uint8_t> pixels(3072);
    data->decode(0, pixels);
    REQUIRE(data->label(0) != c);
    command.scratch.write(fmt::format("folders/val/{}/copy.png", c), png_bytes(pixels.data(), 32, 32, 3));
    ++images;
  }
  command.data = (command.scratch.path() / "folders").string();
  const nlohmann::json folders = command.json();
  CHECK(folders.at("images") == images);
  CHECK(folders.at("correct") == kRight);
}

TEST_CASE("evaluate explains bad input in one line") {
  struct Case {
    std::string what;
    std::function<void(Command&, std::vector<std::string>&)> spoil;
    int status;
    std::vector<std::string> says;
  };
  const auto options = [](const std::vector<std::string>& given) {
    return [given](Command&, std::vector<std::string>& more) { more = given; };
  };
  const auto rewrite = [](const std::function<void(SafeTensors&)>& change) {
    return [change](Command& command, std::vector<std::string>&) {
      SafeTensors file = read_safetensors(command.weights);
      change(file);
      write_safetensors(command.weights, file.tensors, file.metadata);
    };
  };
  const auto data = [](const std::function<std::string(const std::string&)>& change) {
    return [change](Command& command, std::vector<std::string>&) {
      command.scratch.write("records.bin", change(command.records));
    };
  };
  const std::vector<Case> cases = {
      {"unknown model",
       [](Command& c, auto&) { c.model = "resnet18"; },
       2,
       {"resnet18", "resnet20", "resnet32"}},
      {"another model",
       [](Command& c, auto&) { c.model = "resnet32"; },
       1,
       {"w.safetensors", "layer1.3", "missing"}},
      {"missing weights", [](Command& c, auto&) { c.weights = "no.safetensors"; }, 1, {"no.safetensors"}},
      {"missing data", [](Command& c, auto&) { c.data = "no-such-data"; }, 1, {"no-such-data"}},
      {"empty directory",
       [](Command& c, auto&) {
         std::filesystem::create_directory(c.scratch.path() / "empty");
         c.data = (c.scratch.path() / "empty").string();
       },
       1,
       {"empty", "CIFAR-10"}},
      {"truncated batch file",
       data([](std::string r) { return r.substr(0, r.size() - 1); }),
       1,
       {"records.bin"}},
      {"empty batch file", data([](const std::string&) { return ""; }), 1, {"records.bin"}},
      {"label above 9",
       data([](std::string r) {
         r[5 * kRecord] = 10;
         return r;
       }),
       1,
       {"records.bin", "10", "5"}},
      {"another number of classes",
       rewrite([](SafeTensors& file) {
         for (auto& [name, tensor] : file.tensors) {
           if (name == "linear.weight") tensor = Tensor::zeros({7, 64}, DType::f32);
           if (name == "linear.bias") tensor = Tensor::zeros({7}, DType::f32);
         }
       }),
       1,
       {"records.bin", "10 classes", "w.safetensors", "7"}},
      {"extra tensor",
       rewrite(
           [](SafeTensors& file) { file.tensors.emplace_back("fc.bias", Tensor::zeros({10}, DType::f32)); }),
       1,
       {"w.safetensors", "fc.bias"}},
      {"weight that is not a number",
       rewrite([](SafeTensors& file) {
         for (auto& [name, tensor] : file.tensors) {
           if (name == "linear.bias") tensor.fill(NAN);
         }
       }),
       1,
       {"w.safetensors", "linear.bias", "nan"}},
      {"half of a normalisation",
       rewrite([](SafeTensors& file) {
         file.metadata = {{"normalization.mean", "0 0 0"}};
       }),
       1,
       {"w.safetensors", "normalization.std", "--mean"}},
      {"malformed normalisation",
       rewrite([](SafeTensors& file) {
         file.metadata = {{"normalization.mean", "0 0 zero"}, {"normalization.std", "1 1 1"}};
       }),
       1,
       {"w.safetensors", "normalization.mean", "0 0 zero"}},
      {"two means", options({"--mean", ".1", ".2"}), 2, {"--mean", "evaluate --help"}},
      {"mean that is no number", options({"--mean", ".1,.2,x"}), 2, {"--mean", "x"}},
      {"zero deviation", options({"--std", "1,0,1"}), 2, {"--std", "0"}},
      {"deviation that is not a number", options({"--std", "1,nan,1"}), 2, {"--std", "nan"}},
      {"empty batches", options({"--batch-size", "0"}), 2, {"--batch-size"}},
      {"no pictures", options({"--images", "0"}), 2, {"--images"}},
      {"unknown split", options({"--split", "dev"}), 2, {"--split", "dev", "test"}},
      {"unknown option", options({"--batchsize", "3"}), 2, {"--batchsize", "evaluate --help"}},
      {"stray word", options({"now"}), 2, {"now", "evaluate --help"}},
  };
  for (const Case& c : cases) {
    CAPTURE(c.what);
    Command command;
    std::vector<std::string> more;
    c.spoil(command, more);
    const ProgramResult result = command.run(more);
    CAPTURE(result.err);
    CHECK(result.status == c.status);
    CHECK(result.out.empty());
    CHECK(is_one_line(result.err));
    for (const std::string& part : c.says) {
      CAPTURE(part);
      CHECK(contains(result.err, part));
    }
  }
}

TEST_CASE("a result that cannot be printed is a failure") {
  const Command command;
  const ProgramResult result = run_built_program(
      "goshawk", {"evaluate", "--model", "resnet20", "--weights", command.weights, "--data", command.data},
      "/dev/full");
  CHECK(result.status == 1);
  CHECK(is_one_line(result.err));
  CHECK(contains(result.err, "standard output"));
}

TEST_CASE("evaluate does not overwrite what it reads, and says before the work what it cannot write") {
  const Command command;
  const std::string before = file_bytes(command.weights), other = command.scratch / "other.csv";
  REQUIRE(command.run({"--predictions", other}).status == 0);
  const std::string predictions = file_bytes(other);
  const auto expect = [&](const std::vector<std::string>& more, int status, const std::string& part) {
    const ProgramResult result = command.run(more);
    INFO(result.err);
    CHECK(result.status == status);
    CHECK(result.out.empty());
    CHECK(is_one_line(result.err));
    CHECK(contains(result.err, part));
  };
  expect({"--predictions", command.weights}, 2, "--predictions and --weights are the same file");
  expect({"--predictions", command.data}, 2, "--predictions and --data are the same file");
  expect({"--predictions", command.scratch / "./other.csv", "--against", other}, 2,
         "--predictions and --against are the same file");
  CHECK(file_bytes(command.weights) == before);
  CHECK(file_bytes(command.data) == command.records);
  CHECK(file_bytes(other) == predictions);
  const std::string nowhere = command.scratch / "none/predictions.csv";
  // The pictures, which are read later, are not there either.
  command.scratch.write("records.bin", "torn");
  expect({"--predictions", nowhere}, 1, nowhere);
}
