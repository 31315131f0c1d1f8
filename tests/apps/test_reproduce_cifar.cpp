// The table program as its users run it, on a few synthetic pictures.
#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/apps/run_program.hpp"
#include "tests/support/file_size_limit.hpp"

using namespace goshawk;

namespace {

constexpr const char* kProgram = "reproduce_cifar";

// A run of a few seconds in `out`.
std::vector<std::string> tiny_run(const std::string& out, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments{"--train-images",     "64", "--test-images", "32", "--epochs", "1",
                                     "--finetune-epochs",  "2",  "--batch-size",  "32", "--stages", "2",
                                     "--curvature-images", "8",  "--max-probes",  "8",  "--out",    out};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

// All files of a run that must not depend on anything but its configuration; the log holds times.
std::vector<std::string> result_files() {
  return {"config.json",
          "sensitivity.json",
          "bits.json",
          "table.json",
          "table.md",
          "baseline.safetensors",
          "direct.safetensors",
          "hawq.safetensors",
          "hawq-v2.safetensors",
          "direct.packed.safetensors",
          "hawq.packed.safetensors",
          "hawq-v2.packed.safetensors",
          "costs-hawq.json",
          "costs-hawq-v2.json",
          "order-hawq.json",
          "pareto-hawq-v2.json",
          "results/hawq.json",
          "checkpoints/baseline.training.safetensors",
          "checkpoints/direct.training.safetensors",
          "checkpoints/hawq.training.safetensors",
          "checkpoints/hawq-v2.training.safetensors"};
}

void check_same_results(const std::filesystem::path& a, const std::filesystem::path& b) {
  for (const std::string& name : result_files()) {
    INFO(name);
    CHECK((file_bytes(a / name) == file_bytes(b / name)));
  }
}

// 1 for each picture that was taken for what it is.
std::vector<int> right_of(const std::filesystem::path& predictions) {
  std::ifstream lines(predictions);
  std::string line;
  std::getline(lines, line);
  CHECK(line == "image,label,predicted");
  std::vector<int> right;
  int image = 0, label = 0, predicted = 0;
  for (char comma = 0; lines >> image >> comma >> label >> comma >> predicted;)
    right.push_back(label == predicted ? 1 : 0);
  return right;
}

}  // namespace

TEST_CASE("a run leaves all its files, with the same bytes for one thread and for two, killed or not") {
  const ScratchDirectory scratch;
  const auto two = scratch.path() / "two", one = scratch.path() / "one", killed = scratch.path() / "killed";
  const ProgramResult whole = run_built_program(kProgram, tiny_run(two.string(), {"--threads", "2"}));
  REQUIRE_MESSAGE(whole.status == 0, whole.err);
  CHECK(whole.out == file_bytes(two / "table.md"));
  for (const char* row : {"Baseline", "Direct", "HAWQ ", "HAWQ-V2"}) {
    CHECK(whole.out.find(std::string("| ") + row) != std::string::npos);
  }
  const auto table = nlohmann::json::parse(file_bytes(two / "table.json")).at("rows");
  REQUIRE(table.size() == 4);
  CHECK(table[1].at("weight_compression") == 16.0);
  for (const std::size_t row : {2, 3}) CHECK(table[row].at("weight_compression") >= 13.11);
  for (const auto& row : table) {
    CHECK(row.at("images") == 32);
    CHECK(row.contains("untuned_accuracy") == (row.at("row") != "baseline"));
  }
  const auto lead_of = [&](const nlohmann::json& row) {
    const double low = table[1].at("accuracy"), high = row.at("accuracy");
    const std::vector<int> right = right_of(
                               two / fmt::format("predictions-{}.csv", row.at("row").get<std::string>())),
                           other = right_of(two / "predictions-direct.csv");
    REQUIRE(right.size() == 32);
    double sum = 0, squares = 0;
    for (std::size_t i = 0; i < 32; ++i) {
      sum += right[i] - other[i];
      squares += (right[i] - other[i]) * (right[i] - other[i]);
    }
    CHECK(100 * sum / 32 == doctest::Approx(high - low));
    return fmt::format("{} leads Direct by {:.2f} ± {:.2f} points", row.at("name").get<std::string>(),
                       high - low, 100 * std::sqrt((squares - sum * sum / 32) / 31 / 32));
  };
  CHECK(whole.out.find(lead_of(table[2]) + "; in the paper by 1.88.") != std::string::npos);
  CHECK(whole.out.find(lead_of(table[3]) + ".") != std::string::npos);

  // The packed file is as small as its bits say, and its size is the one in the table.
  for (const std::size_t row : {1, 2, 3}) {
    const std::string slug = table[row].at("row");
    const auto size = std::filesystem::file_size(two / (slug + ".packed.safetensors"));
    CHECK(table[row].at("packed_bytes").at("total") == size);
    CHECK(size < 1'090'000 / 8);  // the f32 checkpoint's 1.09 MB
  }

  const ProgramResult single = run_built_program(kProgram, tiny_run(one.string(), {"--threads", "1"}));
  REQUIRE_MESSAGE(single.status == 0, single.err);
  check_same_results(two, one);

  // Killed again and again, later each time, until it gets through.
  int kills = 0;
  for (int wait = 150; run_and_kill(kProgram, tiny_run(killed.string(), {"--resume"}), wait);
       wait += wait / 2)
    ++kills;
  CHECK(kills > 3);
  const ProgramResult resumed = run_built_program(kProgram, tiny_run(killed.string(), {"--resume"}));
  REQUIRE_MESSAGE(resumed.status == 0, resumed.err);
  CHECK(resumed.out == whole.out);
  check_same_results(two, killed);

  // The log has each epoch of each row once, in order, whatever was killed; rows at the same time are mixed.
  const auto epochs = [](const std::filesystem::path& run) {
    std::vector<std::string> lines;
    std::istringstream log(file_bytes(run / "log.jsonl"));
    for (std::string line; std::getline(log, line);) {
      const auto value = nlohmann::json::parse(line);
      if (!value.contains("epoch")) continue;  // how long a sensitivity took
      lines.push_back(fmt::format("{} {} {}", value.at("row").get<std::string>(),
                                  value.at("stage").get<int>(), value.at("epoch").get<int>()));
    }
    std::stable_sort(lines.begin(), lines.end(), [](const std::string& a, const std::string& b) {
      return a.substr(0, a.find(' ')) < b.substr(0, b.find(' '));
    });
    return lines;
  };
  CHECK(epochs(killed) == epochs(two));
  CHECK(epochs(two).size() == 1 + 3 * 2);
}

TEST_CASE("rows can be chosen, and a finished run only prints its table again") {
  const ScratchDirectory scratch;
  const std::string out = (scratch.path() / "run").string();
  const ProgramResult first = run_built_program(kProgram, tiny_run(out, {"--only", "direct", "--quiet"}));
  REQUIRE_MESSAGE(first.status == 0, first.err);
  CHECK(first.err.empty());
  CHECK(first.out.find("| Direct") != std::string::npos);
  CHECK(first.out.find("| HAWQ") == std::string::npos);
  const ProgramResult again = run_built_program(kProgram, {"--out", out, "--resume", "--only", "direct"});
  CHECK(again.status == 0);
  CHECK(again.out == first.out);
}

TEST_CASE("the table says mean and deviation of the seeds, and where a drop is not the paper's") {
  const ScratchDirectory scratch;
  const std::string out = (scratch.path() / "run").string();
  REQUIRE(run_built_program(kProgram, tiny_run(out, {"--only", "direct", "--quiet"})).status == 0);
  // Results as if they were of 10,000 pictures: the program reads what is there.
  const auto result = nlohmann::json::parse(file_bytes(out + "/results/direct.json"));
  const auto write = [&](const std::string& row, int seed, int correct) {
    nlohmann::json changed = result;
    changed["row"] = row;
    changed["seed"] = seed;
    changed["correct"] = correct;
    changed["images"] = 10000;
    scratch.write(seed == 0 ? fmt::format("run/results/{}.json", row)
                            : fmt::format("run/results/{}-seed{}.json", row, seed),
                  changed.dump());
  };
  write("baseline", 0, 9000);
  for (int seed = 0; seed < 3; ++seed) {
    write("direct", seed, 8700 + 100 * seed);
    write("pact-2-2", seed, 8000);
    write("lq-nets-2-2", seed, 8980);
  }
  const ProgramResult shown =
      run_built_program(kProgram, {"--out", out, "--resume", "--quiet", "--finetune-seeds", "3", "--only",
                                   "direct,pact-2-2,lq-nets-2-2"});
  REQUIRE_MESSAGE(shown.status == 0, shown.err);
  CHECK(shown.out.find(" 88.00 ± 1.00 (3) |") != std::string::npos);
  // Direct's drop of 2.00 is the paper's 2.03. The others' √(p(1−p)/N) and the paper's are 0.502 and 0.424.
  const std::size_t at = shown.out.find("More than two standard deviations from the paper:\n");
  REQUIRE(at != std::string::npos);
  const std::string text = shown.out.substr(at);
  CHECK(text.find("Direct") == std::string::npos);
  CHECK(
      text.find("PACT 2/2: our drop of 10.00 is 7.33 larger than the paper's, 14.6 standard deviations.\n") !=
      std::string::npos);
  CHECK(text.find(
            "LQ-Nets 2/2: our drop of 0.20 is 1.97 smaller than the paper's, 4.6 standard deviations.\n") !=
        std::string::npos);
}

TEST_CASE("a run has a copy of the weights that it began with, and goes on when they are gone") {
  const ScratchDirectory scratch;
  const std::string first = (scratch.path() / "first").string(), out = (scratch.path() / "run").string();
  const std::string weights = (scratch.path() / "weights.safetensors").string();
  REQUIRE(run_built_program(kProgram, tiny_run(first, {"--only", "baseline"})).status == 0);
  std::filesystem::copy(first + "/baseline.safetensors", weights);
  REQUIRE(run_built_program(kProgram, tiny_run(out, {"--only", "baseline", "--weights", weights})).status ==
          0);
  std::filesystem::remove(weights);
  const ProgramResult resumed =
      run_built_program(kProgram, {"--out", out, "--resume", "--only", "direct", "--quiet"});
  CHECK_MESSAGE(resumed.status == 0, resumed.err);
  CHECK(resumed.out.find("| Direct") != std::string::npos);
}

TEST_CASE("curvature is averaged over the pictures there are, and a run that is not there is begun") {
  const ScratchDirectory scratch;
  const std::string out = (scratch.path() / "run").string();
  const ProgramResult run = run_built_program(
      kProgram, {"--train-images", "16", "--test-images", "16", "--epochs", "1", "--finetune-epochs", "1",
                 "--batch-size", "16", "--stages", "1", "--only", "hawq", "--resume", "--out", out});
  REQUIRE_MESSAGE(run.status == 0, run.err);
  CHECK(run.out.find("the mean loss over 16 training pictures") != std::string::npos);
  CHECK(run.err.find("there is no run in " + out) != std::string::npos);
}

TEST_CASE("all rows, several seeds, two processes at once: the same files as one after another") {
  const ScratchDirectory scratch;
  const auto tiny = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> arguments{"--train-images",     "32", "--test-images", "16",    "--epochs", "1",
                                       "--finetune-epochs",  "1",  "--batch-size",  "16",    "--stages", "1",
                                       "--curvature-images", "8",  "--quiet",       "--out", out};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  };
  const std::string one = (scratch.path() / "one").string(), two = (scratch.path() / "two").string();
  const ProgramResult all = run_built_program(kProgram, tiny(one, {"--only", "all"}));
  REQUIRE_MESSAGE(all.status == 0, all.err);
  const auto table = nlohmann::json::parse(file_bytes(one + "/table.json")).at("rows");
  CHECK(table.size() == 26);
  for (const auto& row : table) {
    const std::string slug = row.at("row");
    CAPTURE(slug);
    if (slug.starts_with("hawq") || slug == "mpqco" || slug == "joint")
      CHECK(row.at("weight_compression") >= 13.11);
    if (slug == "dnas-16.6") CHECK(row.at("weight_compression") >= 16.6);
    if (slug == "dorefa-2-2") CHECK(row.at("weight_compression") == doctest::Approx(15.81).epsilon(1e-3));
    if (slug == "fine-tuned") {
      CHECK(row.at("weight_compression") == 1);
      CHECK(row.at("activation_compression") == 1);
      CHECK(row.at("untuned_accuracy") == table[0].at("accuracy"));
    }
    if (slug == "lq-nets-3-32") CHECK(row.at("activation_compression") == 1);
    // The bits of the row with mixed activations: their mean is the other rows' width, or just below.
    if (slug == "hawq-v2-activations") {
      CHECK(row.at("activation_compression") >= 8);
      CHECK(row.at("activation_compression") < 8.5);
      CHECK(row.at("activation_bits").get<std::string>().ends_with(" MP"));
    }
  }
  // The paper's comparisons are made, whatever they say of so small a run.
  CHECK(all.out.find("standard deviations") != std::string::npos);
  CHECK(all.out.find("| Joint") != std::string::npos);

  REQUIRE(run_built_program(kProgram, tiny(two, {"--only", "baseline"})).status == 0);
  ProgramResult left, right;
  std::thread other([&] {
    right = run_built_program(kProgram, tiny(two, {"--only", "ablations", "--resume"}));
  });
  left = run_built_program(kProgram, tiny(two, {"--only", "main,mpqco", "--resume"}));
  other.join();
  REQUIRE_MESSAGE(left.status == 0, left.err);
  REQUIRE_MESSAGE(right.status == 0, right.err);
  for (const char* slug : {"hawq", "mpqco", "hawq-reversed-bits", "hawq-at-once"}) {
    for (const std::string file : {"/results/{}.json", "/{}.packed.safetensors", "/order-{}.json"}) {
      const std::string name = fmt::format(fmt::runtime(file), slug);
      INFO(name);
      CHECK((file_bytes(two + name) == file_bytes(one + name)));
    }
  }

  const ProgramResult seeds =
      run_built_program(kProgram, tiny(one, {"--only", "hawq", "--resume", "--finetune-seeds", "3"}));
  REQUIRE_MESSAGE(seeds.status == 0, seeds.err);
  CHECK(seeds.out.find("(3)") != std::string::npos);
  CHECK((file_bytes(one + "/hawq.safetensors") == file_bytes(two + "/hawq.safetensors")));
  CHECK((file_bytes(one + "/hawq.safetensors") != file_bytes(one + "/hawq-seed1.safetensors")));
}

TEST_CASE("after Ctrl-C, the command that goes on is for the same rows and seeds") {
  const ScratchDirectory scratch;
  const auto run = scratch.path() / "run";
  const ProgramResult stopped = run_and_interrupt(
      kProgram,
      tiny_run(run.string(), {"--only", "baseline,DoReFa 2/2", "--finetune-seeds", "20", "--quiet"}),
      run / "log.jsonl");
  INFO(stopped.err);
  CHECK(stopped.status == 130);
  CHECK(is_one_line(stopped.err));
  CHECK(contains(stopped.err, "continue with reproduce_cifar --resume --out " + run.string() +
                                  " --only 'baseline,DoReFa 2/2' --finetune-seeds 20\n"));
}

TEST_CASE("a run takes the papers' quantizers") {
  const ScratchDirectory scratch;
  const std::vector<std::vector<std::string>> quantizers{
      {"--weight-scheme", "dorefa", "--activation-scheme", "dorefa"},
      {"--weight-scheme", "lq_nets", "--granularity", "channel", "--calibration", "ema"},
      {"--weight-scheme", "twos_complement", "--clip", "lsq", "--activation-scheme", "lsq"}};
  for (const std::vector<std::string>& quantizer : quantizers) {
    const auto out = scratch.path() / quantizer[1];
    std::vector<std::string> arguments = tiny_run(out.string(), {"--only", "direct", "--quiet"});
    arguments.insert(arguments.end(), quantizer.begin(), quantizer.end());
    const ProgramResult run = run_built_program(kProgram, arguments);
    REQUIRE_MESSAGE(run.status == 0, run.err);
    const auto config = nlohmann::json::parse(file_bytes(out / "config.json"));
    CHECK(config.at("weight-scheme") == quantizer[1]);
    CHECK(run.out.find("16.00x") != std::string::npos);
  }
}

TEST_CASE("a file that cannot be written ends a run with one line, and it goes on when there is room") {
  const ScratchDirectory scratch;
  const std::string out = (scratch.path() / "run").string();
  {
    const FileSizeLimit limit(100 * 1024);  // a checkpoint of ResNet-20 takes some megabytes
    const ProgramResult result =
        run_built_program(kProgram, tiny_run(out, {"--only", "baseline", "--quiet"}));
    INFO(result.err);
    CHECK(result.status == 1);
    CHECK(is_one_line(result.err));
    CHECK(result.err.find("baseline.training.safetensors") != std::string::npos);
    CHECK(result.err.find("choose another place") != std::string::npos);
  }
  CHECK(std::filesystem::is_empty(std::filesystem::path(out) / "checkpoints"));  // no half of a file
  const ProgramResult again =
      run_built_program(kProgram, {"--out", out, "--resume", "--only", "baseline", "--quiet"});
  REQUIRE_MESSAGE(again.status == 0, again.err);
  CHECK(again.out.find("| Baseline") != std::string::npos);
}

TEST_CASE("wrong use and bad input: one line that names the culprit, and nothing is lost") {
  const ScratchDirectory scratch;
  const std::string out = (scratch.path() / "run").string();
  const auto expect = [&](const std::vector<std::string>& arguments, int status, const std::string& part) {
    const ProgramResult result = run_built_program(kProgram, arguments);
    INFO(result.err);
    CHECK(result.status == status);
    CHECK(is_one_line(result.err));
    CHECK(result.err.find(part) != std::string::npos);
    CHECK(result.out.empty());
  };
  expect({"--epoch", "3"}, 2, "--epoch");
  expect({"--only", "PACT", "--out", out}, 2, "the rows are Baseline, DoReFa 2/2");
  expect({"--finetune-seeds", "0", "--out", out}, 2, "--finetune-seeds");
  expect({"--jobs", "-1", "--out", out}, 2, "--jobs");
  expect({"--road", "scenic", "--out", out}, 2, "scenic");
  expect({"--recipe", "secret", "--out", out}, 2, "he2016");
  expect({"--bits", "2,9", "--out", out}, 2, "9");
  expect({"--compression", "40", "--out", out}, 2, "--compression");
  expect({"--compression", "30", "--out", out}, 2, "the narrowest of --bits is 2, which gives 16");
  expect({"--weight-decay", "-1", "--out", out}, 2, "--weight-decay: -1");
  expect({"--finetune-lr", "inf", "--out", out}, 2, "--finetune-lr: 'inf' is not a number");
  expect({"--weights", out, "--out", out}, 1, out);
  expect({"--train-images", "4", "--out", out}, 1, "fewer than one batch of 128");
  expect({"--model", "resnet21", "--out", out}, 2, "resnet20");
  expect({"--data", out + "/nowhere", "--out", out}, 1, out + "/nowhere");
  expect({"--out", "/proc/goshawk/run", "--train-images", "32", "--test-images", "32", "--batch-size", "32"},
         1, "/proc/goshawk/run");
  expect({"--weight-scheme", "pact", "--out", out}, 2, "lq_nets");
  expect({"--weight-scheme", "dorefa", "--granularity", "channel", "--out", out}, 2, "dorefa");
  expect({"--weight-scheme", "lq_nets", "--clip", "lsq", "--out", out}, 2, "a learned step");
  expect({"--activation-scheme", "relu", "--out", out}, 2, "asymmetric");
  expect({"--calibration", "ema", "--percentile", "101", "--out", out}, 2, "101");
  CHECK_FALSE(std::filesystem::exists(out));

  // A truncated batch file and a label that is none.
  const auto data = scratch.path() / "data";
  std::filesystem::create_directories(data);
  const std::string record(3073, '\0');
  const auto write = [&](const std::string& name, const std::string& bytes) {
    std::ofstream(data / name, std::ios::binary) << bytes;
  };
  for (int i = 1; i <= 5; ++i) write(fmt::format("data_batch_{}.bin", i), record);
  write("test_batch.bin", record.substr(1));
  expect({"--data", data.string(), "--out", out}, 1, "test_batch.bin");
  write("test_batch.bin", "\x0a" + record.substr(1));
  expect({"--data", data.string(), "--out", out}, 1, "test_batch.bin");
  CHECK_FALSE(std::filesystem::exists(out));

  // An existing run is neither overwritten nor continued under another configuration.
  REQUIRE(run_built_program(kProgram, tiny_run(out, {"--only", "baseline"})).status == 0);
  const std::string before = file_bytes(out + "/table.json");
  expect(tiny_run(out), 2, "--resume");
  expect(tiny_run(out, {"--resume", "--seed", "7"}), 2, "seed");
  CHECK(file_bytes(out + "/table.json") == before);
  // A checkpoint that was damaged is named, not trained over.
  std::filesystem::remove(out + "/results/baseline.json");
  const std::string weights = file_bytes(out + "/baseline.safetensors");
  std::ofstream(out + "/baseline.safetensors", std::ios::binary) << weights.substr(0, weights.size() / 2);
  expect({"--out", out, "--resume", "--only", "baseline", "--quiet"}, 1, "baseline.safetensors");
}
