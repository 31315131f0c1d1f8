#include <doctest/doctest.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/apps/run_program.hpp"

using namespace goshawk;

namespace {

const char* const kCosts = R"({"layers": [
  {"name": "first", "parameters": 80, "macs": 800, "pinned": 8, "choices": [
    {"bits": 4, "bytes": 40, "cost": 1, "bops": 12800}, {"bits": 8, "bytes": 80, "cost": 0.5, "bops": 51200}]},
  {"name": "a", "parameters": 160, "macs": 160, "tied": "sum", "choices": [
    {"bits": 2, "bytes": 40, "cost": 6, "bops": 640}, {"bits": 4, "bytes": 80, "cost": 2, "bops": 2560}]},
  {"name": "b", "parameters": 80, "macs": 80, "tied": "sum", "choices": [
    {"bits": 2, "bytes": 20, "cost": 1, "bops": 320}, {"bits": 4, "bytes": 40, "cost": 0.5, "bops": 1280}]},
  {"name": "c", "parameters": 80, "macs": 4000, "choices": [
    {"bits": 2, "bytes": 20, "cost": 3, "bops": 16000}, {"bits": 4, "bytes": 40, "cost": 1, "bops": 64000}]}
]})";

struct Command {
  ScratchDirectory scratch;
  std::string costs = (scratch.path() / "costs.json").string();
  std::string out = (scratch.path() / "bits.json").string();

  explicit Command(const std::string& text = kCosts) { std::ofstream(costs) << text; }

  ProgramResult run(std::vector<std::string> arguments) const {
    std::vector<std::string> all = {"allocate", "--costs", costs, "--out", out};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return run_built_program("goshawk", all);
  }
  nlohmann::json bits() const { return nlohmann::json::parse(file_bytes(out)); }
};

std::vector<int> widths(const nlohmann::json& bits) {
  std::vector<int> widths;
  for (const auto& layer : bits.at("layers")) widths.push_back(layer.at("bits"));
  return widths;
}

}  // namespace

TEST_CASE("goshawk allocate writes the bits, the objective and the gaps") {
  const Command command;
  // 160 bytes are the least; 180 lift c for 2, 220 lift the tied pair for 4.5.
  const ProgramResult result = command.run({"--method", "exact", "--budget-bytes", "239"});
  CHECK_MESSAGE(result.status == 0, result.err);
  CHECK(is_one_line(result.out));
  const nlohmann::json exact = command.bits();
  CHECK(exact.at("method") == "exact");
  CHECK(widths(exact) == std::vector<int>{8, 4, 4, 2});
  CHECK(exact.at("objective") == doctest::Approx(6));
  CHECK(exact.at("bytes") == 220);
  CHECK(exact.at("bops") == 51200 + 2560 + 1280 + 16000);
  CHECK(exact.at("gap_to_exact") == 0);
  CHECK(exact.at("lp_bound") < 6);
  CHECK(exact.at("layers")[1].at("name") == "a");

  // A script reads the same from standard output.
  const ProgramResult json = command.run({"--method", "exact", "--budget-bytes", "239", "--json"});
  CHECK_MESSAGE(json.status == 0, json.err);
  CHECK(is_one_line(json.out));
  CHECK(nlohmann::ordered_json::parse(json.out) == nlohmann::ordered_json::parse(file_bytes(command.out)));
  CHECK(command.bits() == exact);

  // The greedy takes c first (0.1 a byte) and then cannot afford the pair.
  CHECK(command.run({"--method", "greedy", "--budget-bytes", "239"}).status == 0);
  const nlohmann::json greedy = command.bits();
  CHECK(widths(greedy) == std::vector<int>{8, 2, 2, 4});
  CHECK(greedy.at("gap_to_exact") == doctest::Approx(8.5 - 6));

  // 1600 bytes in 32 bits. A BOP budget keeps c at two bits.
  CHECK(command.run({"--method", "exact", "--budget-ratio", "6.5"}).status == 0);
  CHECK(widths(command.bits()) == std::vector<int>{8, 4, 4, 4});
  CHECK(command.run({"--method", "exact", "--budget-ratio", "6.5", "--budget-bops", "80000"}).status == 0);
  CHECK(widths(command.bits()) == std::vector<int>{8, 4, 4, 2});
  const std::string frontier = (command.scratch.path() / "frontier.json").string();
  CHECK(command.run({"--method", "pareto", "--budget-bops", "200000", "--frontier", frontier}).status == 0);
  CHECK(widths(command.bits()) == std::vector<int>{8, 4, 4, 4});
  CHECK(command.bits().at("candidates") == 3);  // the tied pair and c: both, one or none at four bits
  const auto points = nlohmann::json::parse(file_bytes(frontier)).at("frontier");
  CHECK(points.size() == 3);
  CHECK(points[0].at("bytes") == 160);
  CHECK(command.run({"--method", "ratio", "--budget-bytes", "180"}).status == 0);
  CHECK(widths(command.bits()) == std::vector<int>{8, 2, 2, 4});
}

TEST_CASE("goshawk allocate keeps a budget of milliseconds, alone and with one of bytes") {
  const Command command(R"({"layers": [
    {"name": "a", "parameters": 160, "choices": [{"bits": 2, "bytes": 40, "cost": 3, "latency_ms": 1},
                                                 {"bits": 4, "bytes": 80, "cost": 1, "latency_ms": 3}]},
    {"name": "b", "parameters": 80, "choices": [{"bits": 2, "bytes": 20, "cost": 2, "latency_ms": 1},
                                                {"bits": 4, "bytes": 40, "cost": 1.5, "latency_ms": 2}]}]})");
  ProgramResult result = command.run({"--method", "exact", "--budget-latency", "4"});
  REQUIRE_MESSAGE(result.status == 0, result.err);
  CHECK(widths(command.bits()) == std::vector<int>{4, 2});
  CHECK(command.bits().at("latency_ms") == 4);
  CHECK(command.bits().at("budget").at("latency_ms") == 4);
  result = command.run({"--method", "exact", "--budget-latency", "4", "--budget-bytes", "90"});
  REQUIRE_MESSAGE(result.status == 0, result.err);
  CHECK(widths(command.bits()) == std::vector<int>{2, 4});
  // Without scores the order is that of the costs per weight: b before a.
  result = command.run({"--method", "pareto", "--budget-latency", "4"});
  REQUIRE_MESSAGE(result.status == 0, result.err);
  CHECK(widths(command.bits()) == std::vector<int>{2, 4});
  CHECK(result.out.find("the cheapest of 3 monotone assignments that fits") != std::string::npos);
}

TEST_CASE("goshawk allocate: wrong usage and wrong files end in one line and leave no file") {
  const Command command;
  const auto fails = [](const Command& c, const std::vector<std::string>& arguments, int status,
                        const std::string& part) {
    const ProgramResult result = c.run(arguments);
    CHECK(result.status == status);
    CHECK_MESSAGE(is_one_line(result.err), result.err);
    CHECK_MESSAGE(result.err.find(part) != std::string::npos, result.err);
    CHECK(!std::filesystem::exists(c.out));
  };
  fails(command, {"--method", "exact"}, 2, "--budget-bytes");
  fails(command, {"--method", "magic", "--budget-bytes", "200"}, 2, "magic");
  fails(command, {"--method", "exact", "--budget-bytes", "-1"}, 2, "--budget-bytes");
  fails(command, {"--method", "exact", "--budget-bytes", "200", "--budget-ratio", "2"}, 2,
        "give one of them");
  fails(command,
        {"--method", "exact", "--budget-bytes", "200", "--budget-bops", "1", "--budget-latency", "1"}, 2,
        "too many");
  fails(command, {"--method", "exact", "--budget-bytes", "100"}, 1,
        "smallest possible is 160 and the largest 240");
  fails(command, {"--method", "exact", "--budget-bytes", "200", "--budget-latency", "9"}, 1, "latency_ms");
  const Command damaged(
      R"({"layers": [{"name": "conv1", "parameters": 4, "choices": [{"bits": 2, "bytes": 1}]}]})");
  fails(damaged, {"--method", "exact", "--budget-bytes", "200"}, 1, "\"conv1\"");
  fails(damaged, {"--method", "exact", "--budget-bytes", "200"}, 1, "\"cost\"");
  fails(damaged, {"--method", "exact", "--budget-bytes", "200"}, 1, "costs.json");
}

TEST_CASE("goshawk allocate: the joint method counts what pairs add, with tied and pinned layers") {
  // Choices in order: first 4, 8; a 2, 4; b 2, 4; c 2, 4. Together, a and c at 2 bits cost 10 more; c at 4
  // and a at 4 bits save 0.5.
  const std::string pairs = R"("pair_costs": [[], [0], [0, 0], [0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0, 0],
    [0, 0, 10, 0, 0, 0], [0, 0, 0, -0.5, 0, 0, 0]])";
  std::string text = kCosts;
  text.insert(text.rfind('}'), ", " + pairs);
  const Command command(text);
  // With 180 bytes only c can be lifted: 0.5 + 7 + 1 instead of 0.5 + 7 + 3 + 10.
  const ProgramResult result = command.run({"--method", "joint", "--budget-bytes", "180"});
  CHECK_MESSAGE(result.status == 0, result.err);
  CHECK(is_one_line(result.out));
  CHECK(widths(command.bits()) == std::vector<int>{8, 2, 2, 4});
  CHECK(command.bits().at("objective") == doctest::Approx(8.5));
  const ProgramResult json = command.run({"--method", "joint", "--budget-bytes", "180", "--json"});
  CHECK(is_one_line(json.out));
  CHECK(nlohmann::json::parse(json.out) == command.bits());
  // With 239 the separable optimum lifts the pair, and all is well too: nothing at 2 bits meets a at 2 bits.
  CHECK(command.run({"--method", "joint", "--budget-bytes", "240"}).status == 0);
  CHECK(command.bits().at("objective") == doctest::Approx(0.5 + 2.5 + 1 - 0.5));
  // Another method tells what its choice costs jointly.
  CHECK(command.run({"--method", "exact", "--budget-bytes", "160"}).status == 0);
  CHECK(command.bits().at("objective") == doctest::Approx(10.5));
  CHECK(command.bits().at("joint_objective") == doctest::Approx(20.5));

  const ProgramResult without = Command().run({"--method", "joint", "--budget-bytes", "180"});
  CHECK(without.status == 1);
  CHECK(is_one_line(without.err));
  CHECK(without.err.find("pair_costs") != std::string::npos);
  text.replace(text.find("[0, 0, 10"), 4, "[");
  const ProgramResult bad = Command(text).run({"--method", "joint", "--budget-bytes", "180"});
  CHECK(bad.status == 1);
  CHECK(is_one_line(bad.err));
}
