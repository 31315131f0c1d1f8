// goshawk sensitivity and predict_loss as their users run them: an untrained ResNet-20 on small random
// pictures.
#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/random.hpp"
#include "core/safetensors.hpp"
#include "models/registry.hpp"
#include "nn/layers.hpp"
#include "nn/state_dict.hpp"
#include "quant/quantizer.hpp"
#include "tests/apps/run_program.hpp"

using namespace goshawk;

namespace {

using Json = nlohmann::json;

struct Inputs {
  ScratchDirectory scratch;
  std::map<std::string, std::string> options = {{"--model", "resnet20"},
                                                {"--weights", path("w.safetensors")},
                                                {"--batch", path("b.safetensors")},
                                                {"--microbatch", "4"},
                                                {"--out", path("run")}};

  Inputs() {
    write_weights(3);
    Random random(5);
    std::vector<std::int64_t> labels;
    for (int i = 0; i < 10; ++i) labels.push_back(i % 7);
    write_safetensors(path("b.safetensors"), {{"images", random_normal({10, 3, 8, 8}, DType::f32, random)},
                                              {"labels", Tensor::from(labels, {10})}});
  }
  std::string path(const std::string& name) const { return (scratch.path() / name).string(); }
  void write_weights(std::uint64_t seed) const {
    write_safetensors(path("w.safetensors"), state_dict(*make_model("resnet20", {.seed = seed})));
  }
  Json json(const std::string& file) const {
    return Json::parse(file_bytes(options.at("--out") + "/" + file));
  }
  std::vector<std::string> with(std::vector<std::string> arguments) const {
    for (const auto& [name, value] : options) arguments.insert(arguments.end(), {name, value});
    return arguments;
  }
  ProgramResult sensitivity(const std::vector<std::string>& flags = {}) const {
    std::vector<std::string> arguments = {"sensitivity"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return run_built_program("goshawk", with(arguments));
  }
  /// The run's error, in one line.
  std::string refused(const std::string& option, const std::string& value) const {
    Inputs other;
    other.options[option] = value;
    const ProgramResult result = other.sensitivity();
    CHECK(result.status != 0);
    CHECK_MESSAGE(is_one_line(result.err), result.err);
    CHECK(!std::filesystem::exists(other.options.at("--out")));
    return result.err;
  }
};

}  // namespace

TEST_CASE("goshawk sensitivity writes every cost for goshawk allocate, whatever the number of threads") {
  Inputs inputs;
  inputs.options["--bits"] = "2,4,8";
  inputs.options["--pin"] = "linear=8";
  inputs.options["--activations"] = "4,8";
  inputs.options["--images"] = "8";
  const ProgramResult ran = inputs.sensitivity();
  REQUIRE_MESSAGE(ran.status == 0, ran.err);
  CHECK(ran.out == file_bytes(inputs.options["--out"] + "/sensitivity.md"));
  const Json result = inputs.json("sensitivity.json");
  CHECK(result.at("images") == 8);
  CHECK(result.at("bits") == Json::array({2, 4, 8}));
  const auto model = make_model("resnet20");
  const auto layers = weighted_layers(*model);
  REQUIRE(result.at("layers").size() == layers.size());
  const std::vector<std::string> names = {"delta-norm", "snr",    "loss-change",     "hawq",         "hawq-s",
                                          "hawq-v2",    "fisher", "exact-quadratic", "exact-taylor", "joint"};
  REQUIRE(result.at("methods").size() == names.size());
  for (std::size_t m = 0; m < names.size(); ++m) {
    const Json& method = result.at("methods")[m];
    CHECK(method.at("name") == names[m]);
    CHECK(method.at("seconds") >= 0);
    const Json costs = inputs.json(method.at("file"));
    REQUIRE(costs.at("layers").size() == layers.size());
    for (std::size_t l = 0; l < layers.size(); ++l) {
      const Json& layer = costs.at("layers")[l];
      CHECK(layer.at("name") == layers[l].first);
      CHECK(layer.at("parameters") == layers[l].second->weight_count());
      CHECK(layer.contains("pinned") == (layers[l].first == "linear"));
      for (int b = 0; b < 3; ++b) {
        const Json& choice = layer.at("choices")[static_cast<std::size_t>(b)];
        const int bits = 1 << (b + 1);
        CHECK(choice.at("bits") == bits);
        CHECK(choice.at("bytes") == static_cast<double>(layers[l].second->weight_count() * bits) / 8);
        CHECK(choice.at("bops") == layer.at("macs").get<double>() * bits * (l == 0 ? kPictureBits : bits));
        CHECK(choice.at("cost") == result.at("layers")[l].at("costs").at(names[m]).at(std::to_string(bits)));
      }
    }
  }
  // The two orders of the expansion and their sum; HAWQ's two costs from one eigenvalue; the scores.
  const Json& layer = result.at("layers")[3];
  const auto cost = [&](const char* name) { return layer.at("costs").at(name).at("2").get<double>(); };
  const double norm = layer.at("perturbation").at("2");
  CHECK(cost("delta-norm") == norm);
  CHECK(cost("hawq") == doctest::Approx(layer.at("details").at("hawq").at("lambda").get<double>() * norm));
  CHECK(cost("hawq") == doctest::Approx(cost("hawq-s") * layer.at("parameters").get<double>()));
  CHECK(cost("hawq-v2") == doctest::Approx(layer.at("scores").at("hawq-v2").get<double>() * norm));
  CHECK(cost("joint") == doctest::Approx(cost("exact-taylor")).epsilon(1e-6));
  CHECK(cost("exact-quadratic") > 0);

  // Activations: all inputs but the picture, in a file whose budget ratio is A-comp.
  CHECK(result.at("activations").size() == layers.size());
  CHECK(result.at("activations")[0].at("picture") == true);
  const Json activations = inputs.json("costs-activations.json");
  CHECK(activations.at("layers").size() == layers.size() - 1);
  const auto allocate = [&](const std::string& file, const std::string& method, const std::string& ratio) {
    const ProgramResult allocated =
        run_built_program("goshawk", {"allocate", "--costs", inputs.path("run/" + file), "--method", method,
                                      "--budget-ratio", ratio, "--out", inputs.path("bits.json")});
    CHECK_MESSAGE(allocated.status == 0, allocated.err);
    return Json::parse(file_bytes(inputs.path("bits.json")));
  };
  const Json mixed = allocate("costs-activations.json", "exact", "6");
  double bits = 0;
  for (const Json& l : mixed.at("layers")) bits += l.at("bits").get<double>();
  CHECK(32 * static_cast<double>(mixed.at("layers").size()) / bits >= 6);
  for (const std::string& name : names) allocate("costs-" + name + ".json", "exact", "9");
  const Json joint = allocate("costs-joint.json", "joint", "9");
  CHECK(joint.at("objective") <= joint.at("separable_joint_objective"));

  // Same bits for one thread; only times differ.
  Inputs again;
  for (const char* option : {"--bits", "--pin", "--activations", "--images"}) {
    again.options[option] = inputs.options[option];
  }
  again.options["--threads"] = "1";
  REQUIRE(again.sensitivity().status == 0);
  const Json other = again.json("sensitivity.json");
  CHECK(other.at("layers") == result.at("layers"));
  CHECK(other.at("activations") == result.at("activations"));

  const ProgramResult twice = inputs.sensitivity();
  CHECK(twice.status == 2);
  CHECK(is_one_line(twice.err));
  const ProgramResult finished = inputs.sensitivity({"--resume"});
  CHECK(finished.status == 0);
  CHECK(finished.out == ran.out);
}

TEST_CASE("goshawk sensitivity: what was measured before an interruption is kept") {
  Inputs inputs;
  inputs.options["--cost"] = "delta-norm,hawq,fisher";
  inputs.options["--bits"] = "2,4";
  inputs.options["--images"] = "4";
  REQUIRE(inputs.sensitivity().status == 0);
  const Json result = inputs.json("sensitivity.json");
  CHECK(!std::filesystem::exists(inputs.path("run/measured.json")));
  // As it is when the last cost is under way. One second is not what hawq took.
  Json costs;
  for (const char* name : {"delta-norm", "hawq"}) {
    Json& cost = costs[name] = {{"road", ""},
                                {"seconds", 1},
                                {"projected_seconds", 1},
                                {"score", Json::array()},
                                {"errors", Json::array()},
                                {"details", Json::array()}};
    for (const Json& layer : result.at("layers")) {
      const Json& widths = layer.at("costs").at(name);
      cost["costs"].push_back({widths.at("2"), widths.at("4")});
    }
  }
  const auto interrupt = [&](const Json& state) {
    std::filesystem::remove(inputs.path("run/sensitivity.json"));
    std::filesystem::remove(inputs.path("run/costs-fisher.json"));
    inputs.scratch.write("run/measured.json", state.dump());
  };
  interrupt({{"loss", result.at("loss")}, {"costs", costs}});
  const ProgramResult resumed = inputs.sensitivity({"--resume"});
  REQUIRE_MESSAGE(resumed.status == 0, resumed.err);
  const Json again = inputs.json("sensitivity.json");
  for (std::size_t l = 0; l < again.at("layers").size(); ++l)
    CHECK(again.at("layers")[l].at("costs") == result.at("layers")[l].at("costs"));
  CHECK(again.at("methods")[0].at("seconds") == 1);
  CHECK(again.at("methods")[1].at("seconds") == 1);
  CHECK(again.at("methods")[2].at("seconds") != 1);
  CHECK(std::filesystem::exists(inputs.path("run/costs-fisher.json")));

  const auto check_refused = [&](const char* file, const char* why) {
    const ProgramResult ran = inputs.sensitivity({"--resume"});
    CHECK(ran.status == 1);
    CHECK_MESSAGE(is_one_line(ran.err), ran.err);
    CHECK_MESSAGE(ran.err.find(why) != std::string::npos, ran.err);
    CHECK_MESSAGE(ran.err.find(file) != std::string::npos, ran.err);
  };
  // A finished run says its result again, from sensitivity.json alone, and clears away what is left over; but
  // not as that of other weights.
  inputs.scratch.write("run/measured.json", "{}");
  std::filesystem::remove(inputs.path("run/sensitivity.md"));
  const ProgramResult finished = inputs.sensitivity({"--resume"});
  CHECK(finished.out == resumed.out);
  CHECK(!std::filesystem::exists(inputs.path("run/measured.json")));
  inputs.write_weights(4);
  check_refused("sensitivity.json", "have changed since");
  inputs.write_weights(3);

  // A cost whose file is gone is measured again.
  interrupt({{"loss", result.at("loss")}, {"costs", costs}});
  std::filesystem::remove(inputs.path("run/costs-hawq.json"));
  REQUIRE(inputs.sensitivity({"--resume"}).status == 0);
  const Json methods = inputs.json("sensitivity.json").at("methods");
  CHECK(methods[0].at("seconds") == 1);
  CHECK(methods[1].at("seconds") != 1);
  CHECK(std::filesystem::exists(inputs.path("run/costs-hawq.json")));

  const auto refused = [&](const Json& state, const char* why) {
    interrupt(state);
    check_refused("measured.json", why);
  };
  refused({{"loss", 1.5}, {"costs", costs}}, "have changed since");
  refused({{"costs", costs}}, "damaged");
  costs["hawq"]["costs"].erase(3);
  refused({{"loss", result.at("loss")}, {"costs", costs}}, "'hawq' is not of 20 layers and 2 widths");
  costs["hawq"].erase("road");
  refused({{"loss", result.at("loss")}, {"costs", costs}}, "'road'");
}

TEST_CASE("goshawk sensitivity: Ctrl-C between two costs, and going on ends with the same numbers") {
  Inputs whole, stopped;
  for (Inputs* inputs : {&whole, &stopped}) {
    inputs->options["--cost"] = "delta-norm,loss-change,hawq,hawq-v2,fisher,joint";
    inputs->options["--bits"] = "2,4";
    inputs->options["--images"] = "4";
  }
  REQUIRE(whole.sensitivity().status == 0);
  const std::string run = stopped.options.at("--out");
  const ProgramResult first =
      run_and_interrupt("goshawk", stopped.with({"sensitivity"}), run + "/measured.json");
  CHECK_MESSAGE(first.status == 130, first.err);
  CHECK_MESSAGE(is_one_line(first.err), first.err);
  CHECK(first.err.find("goshawk sensitivity --resume --out " + run) != std::string::npos);
  CHECK(!std::filesystem::exists(run + "/sensitivity.json"));
  const ProgramResult second = run_built_program("goshawk", {"sensitivity", "--resume", "--out", run});
  REQUIRE_MESSAGE(second.status == 0, second.err);

  const Json layers = whole.json("sensitivity.json").at("layers");
  const Json again = stopped.json("sensitivity.json").at("layers");
  REQUIRE(again.size() == layers.size());
  for (std::size_t l = 0; l < layers.size(); ++l) {
    for (const char* numbers : {"costs", "scores", "details"})
      CHECK(again[l].at(numbers) == layers[l].at(numbers));
  }
  const Json methods = whole.json("sensitivity.json").at("methods");
  for (const Json& method : methods) {
    const std::string file = "run/" + method.at("file").get<std::string>();
    CHECK((file_bytes(stopped.path(file)) == file_bytes(whole.path(file))));
  }
}

TEST_CASE("goshawk sensitivity: Hutchinson's seconds are projected to the wanted error") {
  Inputs inputs;
  inputs.options["--cost"] = "fisher,hawq-v2-hutchinson";
  inputs.options["--bits"] = "4,8";
  inputs.options["--max-probes"] = "8";
  inputs.options["--images"] = "4";
  const ProgramResult ran = inputs.sensitivity({"--json"});
  REQUIRE_MESSAGE(ran.status == 0, ran.err);
  CHECK(is_one_line(ran.out));
  CHECK(Json::parse(ran.out) == inputs.json("sensitivity.json"));
  const Json methods = inputs.json("sensitivity.json").at("methods");
  REQUIRE(methods.size() == 2);
  CHECK(methods[0].at("name") == "hawq-v2-hutchinson");
  CHECK(methods[0].at("projected_seconds") > methods[0].at("seconds"));
  CHECK(methods[1].at("projected_seconds") == methods[1].at("seconds"));
}

TEST_CASE("goshawk sensitivity ties the layers that meet in a residual sum, but for pinned ones") {
  Inputs inputs;
  inputs.options["--cost"] = "delta-norm";
  inputs.options["--pin"] = "layer1.0.conv2=4,linear=8";
  const ProgramResult ran = inputs.sensitivity({"--tie-residuals"});
  REQUIRE_MESSAGE(ran.status == 0, ran.err);
  const Json costs = inputs.json("costs-delta-norm.json");
  for (const Json& layer : costs.at("layers")) {
    const std::string name = layer.at("name");
    CAPTURE(name);
    const bool meets = name == "conv1" || (name.ends_with("conv2") && name != "layer1.0.conv2");
    REQUIRE(layer.contains("tied") == meets);
    if (meets) CHECK(layer.at("tied") == "sum with conv1");
  }
  CHECK(inputs.json("config.json").at("tie-residuals") == true);
  CHECK(costs.at("layers").back().at("pinned") == 8);
}

TEST_CASE("goshawk sensitivity refuses what makes no sense, in one line, before it writes anything") {
  const Inputs inputs;
  CHECK(inputs.refused("--cost", "hessian").find("'hessian' is unknown") != std::string::npos);
  CHECK(inputs.refused("--bits", "2,9").find("--bits") != std::string::npos);
  CHECK(inputs.refused("--pin", "linear").find("LAYER=BITS") != std::string::npos);
  CHECK(inputs.refused("--pin", "conv9=8").find("'conv9'") != std::string::npos);
  CHECK(inputs.refused("--pin", "conv1=5").find("5 bits") != std::string::npos);
  CHECK(inputs.refused("--pin", "conv1=8,conv1=2").find("both 8 and 2 bits") != std::string::npos);
  CHECK(inputs.refused("--bits", "2,x").find("--bits: 'x' is not among 1 ... 8, 32") != std::string::npos);
  CHECK(inputs.refused("--activations", "none").find("'none' is not among 1 ... 8, 32") != std::string::npos);
  CHECK(inputs.refused("--clip", "lsq").find("trains its step") != std::string::npos);
  CHECK(inputs.refused("--weight-scheme", "dorefa").find("dorefa") != std::string::npos);
  CHECK(inputs.refused("--images", "11").find("10 images") != std::string::npos);
  CHECK(inputs.refused("--weights", inputs.path("none")).find("none") != std::string::npos);
  CHECK(inputs.refused("--model", "resnet21").find("resnet21") != std::string::npos);
}

TEST_CASE("goshawk sensitivity: its help shows no default that cannot be given") {
  const std::string help = run_built_program("goshawk", {"sensitivity", "--help"}).out;
  const std::size_t option = help.find("--activations ");
  REQUIRE(option != std::string::npos);
  CHECK(!contains(help.substr(option, help.find("--activation-scheme") - option), "none"));
}

TEST_CASE("predict_loss correlates predicted with true loss changes, reports, and resumes") {
  Inputs inputs;
  inputs.options["--calibration"] = "4";
  inputs.options["--held-out"] = "6";
  inputs.options["--draws"] = "8";
  inputs.options["--widths"] = "2,4";
  inputs.options["--cost"] = "delta-norm,exact-taylor,joint";
  inputs.options["--resamples"] = "100";
  const auto run = [&](std::vector<std::string> more) {
    return run_built_program("predict_loss", inputs.with(std::move(more)));
  };
  const ProgramResult ran = run({});
  REQUIRE_MESSAGE(ran.status == 0, ran.err);
  const Json result = inputs.json("predictions.json");
  const Json& set = result.at("sets").at("2,4");
  CHECK(set.at("true_held_out").size() == 8);
  CHECK(set.at("widths_of_layers")[7].size() == 20);
  const auto model = make_model("resnet20");
  const auto layers = weighted_layers(*model);
  for (std::size_t draw = 0; draw < 8; ++draw) {
    double bytes = 0;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      CHECK(result.at("layers")[l] == layers[l].first);
      bytes += static_cast<double>(layers[l].second->weight_count()) *
               set.at("widths_of_layers")[draw][l].get<int>() / 8;
    }
    CHECK(set.at("bytes")[draw] == bytes);
  }
  for (const auto& [name, method] : set.at("methods").items()) {
    const double value = method.at("held_out").at("spearman");
    CHECK(std::abs(value) <= 1);
    CHECK(method.at("held_out").at("low") <= method.at("held_out").at("high"));
  }
  CHECK(set.at("methods").size() == 5);
  CHECK(set.at("methods").at("true-on-calibration").at("calibration").at("spearman") == 1);
  const Json& best = set.at("methods").at(set.at("best").get<std::string>());
  CHECK(best.at("behind_best").at("high") == 0);
  for (const char* name : {"delta-norm", "exact-taylor", "joint"}) {
    const Json& method = set.at("methods").at(name);
    CHECK(method.at("behind_best").at("difference").get<double>() ==
          doctest::Approx(best.at("held_out").at("spearman").get<double>() -
                          method.at("held_out").at("spearman").get<double>()));
  }
  CHECK(!result.contains("held_out_split"));
  const std::string page = file_bytes(inputs.path("run/report.html"));
  for (const char* figure : {"correlations", "predicted-2_4"}) {
    CHECK(page.find(std::string("id=\"figure-") + figure + "\"") != std::string::npos);
    CHECK(std::filesystem::exists(inputs.path(std::string("run/figures/") + figure + ".svg")));
  }

  // Half of the log, as an interrupted run leaves it, with a draw whose loss was no number.
  const std::string log = file_bytes(inputs.path("run/log.jsonl"));
  std::size_t end = 0;
  for (int line = 0; line < 4; ++line) end = log.find('\n', end) + 1;
  std::filesystem::remove(inputs.path("run/predictions.json"));
  inputs.scratch.write("run/log.jsonl", log.substr(0, end) +
                                            R"({"set":0,"draw":6,"held_out":null,"calibration":0.5})" + "\n" +
                                            log.substr(end, 5));
  CHECK(run({}).status == 2);
  const ProgramResult resumed = run({"--resume"});
  REQUIRE_MESSAGE(resumed.status == 0, resumed.err);
  CHECK(inputs.json("predictions.json").at("sets") == result.at("sets"));
  CHECK(file_bytes(inputs.path("run/report.html")) == page);
  CHECK(run_built_program("predict_loss", {"--resume", "--out", inputs.path("run")}).status == 0);
  inputs.write_weights(4);
  const ProgramResult changed = run({"--resume"});
  CHECK(changed.status == 1);
  CHECK_MESSAGE(is_one_line(changed.err), changed.err);
  CHECK_MESSAGE(changed.err.find("losses.json has losses of ") != std::string::npos, changed.err);
  inputs.options["--widths"] = "4";
  CHECK(run({}).status == 2);
}

TEST_CASE("predict_loss holds out pictures of the other split where there is one") {
  Inputs inputs;
  inputs.options.erase("--batch");
  inputs.options["--calibration"] = "8";
  inputs.options["--held-out"] = "12";
  inputs.options["--draws"] = "8";
  inputs.options["--widths"] = "2,4";
  inputs.options["--cost"] = "snr";
  inputs.options["--resamples"] = "100";
  const auto run = [&](std::vector<std::string> more) {
    more.emplace_back("--quiet");
    return run_built_program("predict_loss", inputs.with(std::move(more)));
  };
  REQUIRE(run({"--synthetic"}).status == 0);
  const Json one = inputs.json("predictions.json");
  inputs.options["--out"] = inputs.path("two");
  inputs.options["--held-out-split"] = "test";
  const ProgramResult ran = run({"--synthetic"});
  REQUIRE_MESSAGE(ran.status == 0, ran.err);
  const Json two = inputs.json("predictions.json");
  CHECK(two.at("held_out_split") == "test");
  CHECK(two.at("calibration_split") == "train");
  // The same model, assignments and costs; other pictures.
  const auto of = [](const Json& result, const char* key) { return result.at("sets").at("2,4").at(key); };
  CHECK(of(two, "widths_of_layers") == of(one, "widths_of_layers"));
  CHECK(of(two, "methods").at("snr").at("predicted") == of(one, "methods").at("snr").at("predicted"));
  CHECK(of(two, "true_held_out") != of(one, "true_held_out"));
  // One file is in one split.
  inputs.options["--out"] = inputs.path("three");
  const ProgramResult refused = run({"--batch", inputs.path("b.safetensors")});
  CHECK(refused.status == 2);
  CHECK_MESSAGE(is_one_line(refused.err), refused.err);
  CHECK(refused.err.find("--held-out-split") != std::string::npos);
  CHECK(!std::filesystem::exists(inputs.path("three")));
}
