// goshawk quantize and goshawk finetune, on a few synthetic pictures.
#include <cstdlib>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "models/registry.hpp"
#include "nn/checkpoint.hpp"
#include "nn/layers.hpp"
#include "quant/bits.hpp"
#include "quant/costs.hpp"
#include "quant/order.hpp"
#include "tests/apps/run_program.hpp"

using namespace goshawk;

namespace {

struct Problem {
  ScratchDirectory scratch;
  std::string weights = scratch / "w.safetensors";

  Problem() { save_checkpoint(weights, *make_model("resnet20", {.seed = 5}), {}); }

  std::vector<std::string> arguments(const std::string& command, const std::string& run,
                                     const std::vector<std::string>& more, int epochs = 2) const {
    std::vector<std::string> all{command,          "--model",
                                 "resnet20",       "--weights",
                                 weights,          "--synthetic",
                                 "--train-images", "64",
                                 "--test-images",  "32",
                                 "--batch-size",   "16",
                                 "--epochs",       std::to_string(epochs),
                                 "--quiet",        "--out",
                                 scratch / run};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::vector<std::string> quantize(const std::string& run, std::vector<std::string> more = {},
                                    int epochs = 2) const {
    for (const char* option : {"--budget-ratio", "10", "--stages", "2", "--sensitivity-images", "16"})
      more.emplace_back(option);
    return arguments("quantize", run, more, epochs);
  }
  std::string file(const std::string& run, const std::string& name) const {
    return file_bytes(scratch.path() / run / name);
  }
  nlohmann::json json(const std::string& run, const std::string& name) const {
    return nlohmann::json::parse(file(run, name));
  }
};

void check_success(const ProgramResult& result) {
  REQUIRE_MESSAGE(result.status == 0, result.err);
  CHECK(result.err.empty());
}

}  // namespace

TEST_CASE("goshawk quantize keeps the budget, and its files give goshawk finetune the same model") {
  const Problem p;
  const ProgramResult whole =
      run_built_program("goshawk", p.quantize("whole", {"--pin", "conv1=8", "--tie-residuals"}));
  check_success(whole);
  CHECK(contains(whole.out, "| layer1.0.conv1 "));
  CHECK(contains(whole.out, "full precision: accuracy"));
  const nlohmann::json result = p.json("whole", "result.json");
  CHECK(result.at("images") == 32);
  CHECK(result.at("weight_compression") >= 10);
  CHECK(result.at("activation_compression") == 4);  // 32 / 8
  CHECK(result.at("baseline").at("images") == 32);
  CHECK(result.at("untuned").at("images") == 32);
  const std::string packed = p.scratch / "whole/model.packed.safetensors";
  CHECK(result.at("packed_bytes").at("total") == std::filesystem::file_size(packed));
  const BitAssignment bits = read_bits(p.scratch / "whole/bits.json");
  CHECK(bits.layer("conv1").weight == 8);
  CHECK(bits.layer("conv1").pinned);
  // The last layers of all blocks meet in one sum, and the pinned one keeps its width there.
  for (const LayerBits& layer : bits.layers) {
    if (layer.name.ends_with("conv2")) CHECK(layer.weight == bits.layer("layer1.0.conv2").weight);
  }
  CHECK(read_stages(p.scratch / "whole/order-model.json").size() == 2);

  // The report says all of it, nothing of this machine, and how to make the run again.
  const std::string report = p.file("whole", "report.md");
  CHECK(contains(report, "| Quantized "));
  CHECK(contains(report, "![Cost of each layer at every width](figures/costs.svg)"));
  CHECK(contains(report, "![Pareto frontier, the quantized model](figures/pareto-model.svg)"));
  CHECK(contains(p.file("whole", "report.html"), "(taken by the quantized model)"));
  CHECK(contains(report, "![Size by part](figures/size.svg)"));
  CHECK(contains(report, "![Loss](figures/training-loss.svg)"));
  CHECK(!contains(report, "Not in this run"));
  CHECK(!contains(report, p.scratch.path().string()));
  CHECK(!contains(p.file("whole", "report.html"), p.scratch.path().string()));
  const std::size_t command = report.find("    goshawk quantize --model"), end = report.find("\n\n", command);
  const std::string line =
      fmt::format("cd {} && PATH={}/apps:$PATH && {} --quiet >/dev/null", p.scratch.path().string(),
                  GOSHAWK_BINARY_DIR, report.substr(command, end - command));
  REQUIRE_MESSAGE(std::system(line.c_str()) == 0, line);
  CHECK((p.file("whole-again", "model.packed.safetensors") == p.file("whole", "model.packed.safetensors")));

  // The packed file is what was evaluated.
  const ProgramResult evaluated = run_built_program(
      "goshawk",
      {"evaluate", "--model", "resnet20", "--weights", packed, "--synthetic", "--images", "32", "--json"});
  const nlohmann::json test = nlohmann::json::parse(evaluated.out);
  CHECK(test.at("correct") == result.at("correct"));
  CHECK(test.at("loss") == result.at("loss"));

  // The second half alone, from the files of the first.
  check_success(run_built_program("goshawk", p.arguments("finetune", "half",
                                                         {"--bits", p.scratch / "whole/bits.json", "--costs",
                                                          p.scratch / "whole/costs.json", "--stages", "2"})));
  CHECK((p.file("half", "model.packed.safetensors") == p.file("whole", "model.packed.safetensors")));
  // The same order from a file.
  check_success(run_built_program("goshawk", p.arguments("finetune", "order",
                                                         {"--bits", p.scratch / "whole/bits.json", "--order",
                                                          p.scratch / "whole/order-model.json"})));
  CHECK((p.file("order", "model.packed.safetensors") == p.file("whole", "model.packed.safetensors")));
}

TEST_CASE("goshawk quantize keeps a budget of milliseconds, and leaves a cost file that has them") {
  const Problem p;
  // A bit takes a millisecond in each of the 20 layers.
  nlohmann::json layers = nlohmann::json::array();
  const auto model = make_model("resnet20");
  for (const auto& [name, layer] : weighted_layers(*model)) {
    nlohmann::json choices = nlohmann::json::array();
    for (const int bits : {2, 3, 4, 8}) choices.push_back({{"bits", bits}, {"latency_ms", bits}});
    layers.push_back({{"name", name}, {"choices", choices}});
  }
  const std::string latencies =
      p.scratch.write("latencies.json", nlohmann::json{{"layers", layers}}.dump()).string();
  check_success(run_built_program(
      "goshawk",
      p.arguments("quantize", "run",
                  {"--budget-latency", "50", "--latencies", latencies, "--sensitivity-images", "16"}, 0)));
  int milliseconds = 0;
  for (const LayerBits& layer : read_bits(p.scratch / "run/bits.json").layers) milliseconds += layer.weight;
  CHECK(milliseconds <= 50);
  CHECK(milliseconds > 45);
  CHECK(read_costs(p.scratch / "run/costs.json").choice("conv1", 3).latency_ms == 3);
  CHECK(contains(p.file("run", "report.html"), "(taken by the quantized model)"));
}

TEST_CASE("goshawk quantize: interrupted anywhere and resumed, the bytes are the same; so does its config") {
  // The directories have one name, which their reports say.
  const Problem p;
  check_success(run_built_program("goshawk", p.quantize("whole/run", {}, 6)));
  const std::vector<std::string> resume{"quantize", "--resume", "--quiet", "--out",
                                        p.scratch / "stopped/run"};
  const ProgramResult first = run_and_interrupt("goshawk", p.quantize("stopped/run", {}, 6),
                                                p.scratch.path() / "stopped/run/baseline.json");
  CHECK_MESSAGE(first.status == 130, first.err);
  CHECK(is_one_line(first.err));
  CHECK(contains(first.err, "goshawk quantize --resume --out"));
  // After the first epoch, most likely in the middle of another.
  const ProgramResult second = run_and_interrupt(
      "goshawk", resume, p.scratch.path() / "stopped/run/checkpoints/model.training.safetensors");
  CHECK_MESSAGE(second.status == 130, second.err);
  const ProgramResult third = run_built_program("goshawk", resume);
  check_success(third);
  check_success(
      run_built_program("goshawk", {"quantize", "--config", p.scratch / "whole/run/config.json", "--out",
                                    p.scratch / "again/run", "--quiet", "--threads", "1"}));
  for (const std::string run : {"stopped/run", "again/run"}) {
    for (const std::string file :
         {"config.json", "costs.json", "bits.json", "order-model.json", "result.json", "model.safetensors",
          "model.packed.safetensors", "report.md", "report.html", "figures/costs.svg"}) {
      INFO(run, " ", file);
      CHECK((p.file(run, file) == p.file("whole/run", file)));
    }
  }
}

TEST_CASE("goshawk finetune takes what goshawk allocate writes, at once and without any training") {
  const Problem p;
  check_success(run_built_program("goshawk", p.quantize("costs", {"--cost", "delta-norm"}, 0)));
  const nlohmann::json untrained = p.json("costs", "result.json");
  for (const char* same : {"correct", "loss"}) CHECK(untrained.at("untuned").at(same) == untrained.at(same));
  const std::string bits = p.scratch / "bits.json";
  check_success(run_built_program("goshawk", {"allocate", "--costs", p.scratch / "costs/costs.json",
                                              "--method", "greedy", "--budget-ratio", "12", "--out", bits}));
  check_success(run_built_program(
      "goshawk", p.arguments("finetune", "run", {"--bits", bits, "--activation-bits", "4", "--json"})));
  CHECK(p.json("run", "result.json").at("weight_compression") >= 12);
  CHECK(p.json("run", "result.json").at("activation_compression") == 8);
  CHECK(read_stages(p.scratch / "run/order-model.json").size() == 1);
  CHECK(p.json("run", "bits.json").at("method") == "greedy");
  CHECK(p.json("run", "result.json").at("baseline") == p.json("costs", "result.json").at("baseline"));

  // What a run has stored is checked before it is used.
  p.scratch.write("costs/baseline.json", R"({"accuracy": 0.1})");
  const ProgramResult damaged =
      run_built_program("goshawk", {"quantize", "--resume", "--quiet", "--out", p.scratch / "costs"});
  CHECK(damaged.status == 1);
  CHECK_MESSAGE(is_one_line(damaged.err), damaged.err);
  CHECK_MESSAGE(contains(damaged.err, "baseline.json is damaged"), damaged.err);
}

TEST_CASE(
    "goshawk quantize and finetune do not go on with other bits, stages or weights than they began with") {
  const Problem p;
  check_success(run_built_program("goshawk", p.quantize("whole", {"--cost", "delta-norm"}, 0)));
  const std::string bits = p.scratch / "bits.json", order = p.scratch / "order.json";
  const std::string first_bits = p.file("whole", "bits.json");
  p.scratch.write("bits.json", first_bits);
  p.scratch.write("order.json", p.file("whole", "order-model.json"));
  check_success(
      run_built_program("goshawk", p.arguments("finetune", "tuned", {"--bits", bits, "--order", order}, 0)));
  const auto refused = [&](const std::string& command, const std::string& run, const std::string& part) {
    std::filesystem::remove(p.scratch.path() / run / "result.json");
    const ProgramResult result =
        run_built_program("goshawk", {command, "--resume", "--quiet", "--out", p.scratch / run});
    CHECK(result.status == 1);
    CHECK_MESSAGE(is_one_line(result.err), result.err);
    CHECK_MESSAGE(contains(result.err, part), result.err);
  };
  BitAssignment other = read_bits(bits);
  other.layers[3].weight = other.layers[3].weight == 2 ? 3 : 2;
  write_bits(bits, other);
  refused("finetune", "tuned", "tuned/bits.json has other bits");
  CHECK((p.file("tuned", "bits.json") == first_bits));
  p.scratch.write("bits.json", first_bits);
  std::vector<Stage> stages = read_stages(order);
  std::swap(stages[0].layers[0], stages[0].layers[1]);
  write_stages(order, stages);
  refused("finetune", "tuned", "order-model.json has other stages");
  stages.insert(stages.begin(), Stage{});
  write_stages(order, stages);
  refused("finetune", "tuned", "a stage has 0 epochs");
  save_checkpoint(p.weights, *make_model("resnet20", {.seed = 6}), {});
  refused("quantize", "whole", "whole/baseline.json has a loss of");
  p.scratch.write("order.json", p.file("whole", "order-model.json"));
  refused("finetune", "tuned", "tuned/baseline.json has a loss of");
}

TEST_CASE("goshawk quantize and finetune: wrong use is one line, and leaves no run") {
  const Problem p;
  const auto expect = [&](const std::vector<std::string>& arguments, int status, const std::string& part) {
    const ProgramResult result = run_built_program("goshawk", arguments);
    INFO(result.err);
    CHECK(result.status == status);
    CHECK(is_one_line(result.err));
    CHECK(contains(result.err, part));
    CHECK(result.out.empty());
    CHECK(!std::filesystem::exists(p.scratch.path() / "run"));
  };
  expect(p.arguments("quantize", "run", {}), 2, "--budget-ratio");
  expect(p.arguments("quantize", "run", {"--budget-ratio", "4", "--budget-bytes", "1000"}), 2, "give one");
  expect(p.arguments("quantize", "run", {"--budget-bytes", "10"}), 1, "smallest possible");
  expect(p.arguments("quantize", "run", {"--budget-latency", "10"}), 2, "--latencies");
  const std::string latencies = p.scratch
                                    .write("latencies.json", R"({"layers": [{"name": "conv1", "choices":
      [{"bits": 2, "latency_ms": 1}]}]})")
                                    .string();
  expect(p.arguments("quantize", "run", {"--budget-latency", "10", "--latencies", latencies}), 1,
         "latencies.json: layer 'conv1' lacks \"latency_ms\" at 3 bits");
  p.scratch.write("latencies.json", R"({"layers": [{"name": "conv1", "choices":
      [{"bits": 2, "latency_ms": 1}, {"bits": 2, "latency_ms": 3}]}]})");
  expect(p.arguments("quantize", "run", {"--budget-latency", "10", "--latencies", latencies}), 1,
         "latencies.json: layers[0] \"conv1\": 2 bits are listed twice");
  p.scratch.write("latencies.json",
                  R"({"layers": [{"name": "conv1", "choices": []}, {"name": "conv1", "choices": []}]})");
  expect(p.arguments("quantize", "run", {"--budget-latency", "10", "--latencies", latencies}), 1,
         "latencies.json: layers[1] \"conv1\" is listed twice");
  p.scratch.write("latencies.json", R"({"layers": [{"name": "conv9", "choices": []}]})");
  expect(p.arguments("quantize", "run", {"--budget-latency", "10", "--latencies", latencies}), 1, "conv9");
  expect(p.quantize("run", {"--pin", "conv9=8"}), 1, "conv9");
  expect(p.quantize("run", {"--pin", "conv1"}), 2, "conv1=8");
  expect(p.quantize("run", {"--pin", "conv1=8", "--pin", "linear=8,conv1=2"}), 2,
         "--pin: 'conv1' cannot keep both 8 and 2 bits");
  expect(p.quantize("run", {"--activation-bits", "none"}), 2, "'none' is not among 1 ... 8, 32");
  expect(p.quantize("run", {"--cost", "magic"}), 2, "exact-quadratic");
  expect(p.quantize("run", {"--clip", "magic"}), 2, "magic");
  const std::string bits = p.scratch / "bits.json";
  expect(p.arguments("finetune", "run", {"--bits", bits}), 1, "bits.json");
  const auto write = [&](const std::string& layers) {
    p.scratch.write("bits.json",
                    R"({"method": "manual", "objective": 0, "budget": {}, "layers": [)" + layers + "]}");
  };
  write(R"({"name": "conv_1", "bits": 4})");
  expect(p.arguments("finetune", "run", {"--bits", bits}), 1, "did you mean 'conv1'?");
  write(R"({"name": "conv1", "bits": 4})");
  expect(p.arguments("finetune", "run", {"--bits", bits}), 1, "layer1.0.conv1");
  write(R"({"name": "conv1", "bits": 77})");
  expect(p.arguments("finetune", "run", {"--bits", bits}), 1, "77");
  save_checkpoint(p.weights, *make_model("resnet20", {.classes = 7}), {});
  expect(p.quantize("run"), 1, "7");
  save_checkpoint(p.weights, *make_model("resnet32"), {});
  expect(p.quantize("run"), 1, "w.safetensors");
}

TEST_CASE("goshawk finetune: a network whose outputs overflow is not packed, and --lr is what to change") {
  const Problem p;
  std::string layers;
  const auto model = make_model("resnet20");
  for (const auto& [name, layer] : weighted_layers(*model))
    layers += (layers.empty() ? "" : ", ") + fmt::format(R"({{"name": "{}", "bits": 4}})", name);
  const std::string bits =
      p.scratch
          .write("bits.json",
                 R"({"method": "manual", "objective": 0, "budget": {}, "layers": [)" + layers + "]}")
          .string();
  // One step, after which no other would notice, and no activation quantizer that refuses its range.
  const ProgramResult result = run_built_program(
      "goshawk",
      {"finetune",       "--model", "resnet20",      "--weights", p.weights,           "--synthetic",
       "--train-images", "16",      "--test-images", "8",         "--batch-size",      "16",
       "--epochs",       "1",       "--lr",          "1e30",      "--activation-bits", "32",
       "--bits",         bits,      "--quiet",       "--out",     p.scratch / "run"});
  INFO(result.err);
  CHECK(result.status == 1);
  CHECK(is_one_line(result.err));
  CHECK(contains(result.err, "overflow"));
  CHECK(contains(result.err, "--lr"));
  CHECK(!std::filesystem::exists(p.scratch / "run/model.packed.safetensors"));
}
