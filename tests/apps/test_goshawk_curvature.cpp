// goshawk curvature as its users run it: an untrained ResNet-20 on a few small random pictures.
#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "autograd/curvature/block_vector.hpp"
#include "core/random.hpp"
#include "core/safetensors.hpp"
#include "models/registry.hpp"
#include "nn/layers.hpp"
#include "nn/state_dict.hpp"
#include "tests/apps/run_program.hpp"

using namespace goshawk;

namespace {

using Json = nlohmann::json;

/// Inputs on disk and the command line that uses them.
struct Command {
  ScratchDirectory scratch;
  std::map<std::string, std::string> options = {
      {"--model", "resnet20"},
      {"--weights", path("w.safetensors")},
      {"--batch", path("b.safetensors")},
      {"--microbatch", "2"},
      {"--dtype", "f64"},
      {"--out", path("run")},
  };
  std::vector<std::string> layers = {"conv1", "layer2.0.conv1", "linear"};
  bool resume = false;

  std::string path(const std::string& name) const { return (scratch.path() / name).string(); }

  Command() {
    write_weights();
    Random random(5);
    std::vector<std::int64_t> labels;
    for (int i = 0; i < 6; ++i) labels.push_back(i);
    write_safetensors(path("b.safetensors"), {{"images", random_normal({6, 3, 8, 8}, DType::f32, random)},
                                              {"labels", Tensor::from(labels, {6})}});
  }

  void write_weights(double scale = 1) const {
    StateDict weights = state_dict(*make_model("resnet20", {.seed = 3}));
    for (auto& [name, tensor] : weights) {
      if (name != "linear.weight") continue;
      for (float& value : tensor.span<float>()) value *= static_cast<float>(scale);
    }
    write_safetensors(path("w.safetensors"), weights);
  }

  std::vector<std::string> arguments() const {
    std::vector<std::string> all = {"curvature"};
    for (const auto& [name, value] : options) all.insert(all.end(), {name, value});
    for (const std::string& layer : layers) all.insert(all.end(), {"--layer", layer});
    if (resume) all.emplace_back("--resume");
    return all;
  }
  ProgramResult run() const { return run_built_program("goshawk", arguments()); }

  Json result() const {
    const ProgramResult ran = run();
    INFO(ran.err);
    REQUIRE(ran.status == 0);
    CHECK(ran.out == file_bytes(options.at("--out") + "/curvature.md"));
    return Json::parse(file_bytes(options.at("--out") + "/curvature.json"));
  }
  Json result_in(const std::string& directory) {
    options["--out"] = path(directory);
    return result();
  }
};

double estimate(const Json& trace) {
  return trace.at("estimate");
}

}  // namespace

TEST_CASE("curvature reports every layer under its name in the state dict, with errors") {
  Command command;
  command.layers.clear();
  command.options["--what"] = "eigenvalues,trace,activations,fisher";
  command.options["--top"] = "2";
  command.options["--dtype"] = "f32";
  const Json result = command.result();
  CHECK(result.at("model") == "resnet20");
  CHECK(result.at("images") == 6);
  CHECK(result.at("seed") == 0);
  CHECK(result.at("road").at("taken") == "exact");
  CHECK(result.at("road").at("why").get<std::string>().find("piecewise linear") != std::string::npos);
  const auto model = make_model("resnet20");
  const auto layers = weighted_layers(*model);
  REQUIRE(result.at("layers").size() == layers.size());
  double trace = 0, fisher = 0;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Json& layer = result.at("layers")[l];
    const auto& [name, module] = layers[l];
    CHECK(layer.at("name") == name);
    CHECK(layer.at("tensors") == Json::array({name + ".weight"}));
    CHECK(layer.at("parameters") == module->weight_count());
    CHECK(layer.at("trace").at("standard_error") == 0);
    CHECK(layer.at("trace").at("image_error") > 0);
    CHECK(layer.at("trace").at("samples") == 9);
    CHECK(layer.at("trace").at("interval_95")[0] == estimate(layer.at("trace")));
    CHECK(layer.at("mean_trace").get<double>() ==
          estimate(layer.at("trace")) / layer.at("parameters").get<double>());
    const std::vector<double> top = layer.at("top_eigenvalues");
    REQUIRE(top.size() == 2);
    CHECK(top[0] > top[1]);
    CHECK(top[1] > 0);
    // Of a positive semidefinite matrix.
    CHECK(top[0] + top[1] <= estimate(layer.at("trace")) * (1 + 1e-3));
    CHECK(layer.at("eigenvalues").at("residuals").size() == 2);
    CHECK(layer.at("eigenvalues").at("residuals")[0] <= 1e-3);
    CHECK(layer.at("eigenvalues").at("image_errors")[0] > 0);
    CHECK(layer.at("eigenvalues").at("converged") == true);
    CHECK_FALSE(layer.contains("bottom_eigenvalues"));
    CHECK(layer.at("eigenvalues").at("operator").get<std::string>().find("Gauss-Newton") == 0);
    CHECK(estimate(layer.at("activations").at("trace")) > 0);
    CHECK(layer.at("activations").at("elements") > 0);
    CHECK(layer.at("fisher").at("top_eigenvalues")[0] <=
          estimate(layer.at("fisher").at("trace")) * (1 + 1e-3));
    trace += estimate(layer.at("trace"));
    fisher += estimate(layer.at("fisher").at("trace"));
    CHECK(file_bytes(command.path("run/curvature.md")).find("| " + name + " ") != std::string::npos);
  }
  const Json& network = result.at("network");
  CHECK(estimate(network.at("trace")) == doctest::Approx(trace).epsilon(1e-12));
  CHECK(estimate(network.at("fisher").at("trace")) == doctest::Approx(fisher).epsilon(1e-12));
}

TEST_CASE("both roads agree: traces within their intervals, eigenvalues to their tolerance") {
  Command command;
  command.options["--what"] = "eigenvalues,trace,activations,fisher";
  command.options["--error"] = "0.1";
  const Json exact = command.result_in("exact");
  command.options["--road"] = "double-backward";
  const Json probed = command.result_in("probed");
  CHECK(exact.at("road").at("taken") == "exact");
  CHECK(probed.at("road").at("taken") == "double-backward");
  CHECK_FALSE(exact.contains("network"));  // of three layers the sums would not be the network's
  REQUIRE(probed.at("layers").size() == 3);
  const auto within = [](const Json& a, const Json& b) {
    REQUIRE(b.at("samples") >= 16);
    CHECK(b.at("standard_error").get<double>() <= 0.1 * std::abs(estimate(b)));
    CHECK(b.at("converged") == true);
    CHECK(b.at("interval_95")[0] < estimate(b));
    CHECK(b.at("interval_95")[1] > estimate(b));
    CHECK(std::abs(estimate(a) - estimate(b)) < 4 * b.at("standard_error").get<double>());
    CHECK(estimate(a) != estimate(b));
    // The error from the choice of images is a matter of the images.
    CHECK(b.at("image_error").get<double>() > 0);
  };
  for (std::size_t l = 0; l < 3; ++l) {
    const Json &a = exact.at("layers")[l], &b = probed.at("layers")[l];
    CAPTURE(a.at("name").get<std::string>());
    CHECK(b.at("name") == command.layers[l]);
    within(a.at("trace"), b.at("trace"));
    within(a.at("activations").at("trace"), b.at("activations").at("trace"));
    CHECK(estimate(a.at("fisher").at("trace")) > 0);
    const double fisher_error = b.at("fisher").at("trace").at("standard_error");
    CHECK(std::abs(estimate(a.at("fisher").at("trace")) - estimate(b.at("fisher").at("trace"))) <
          4 * fisher_error);
    CHECK(a.at("top_eigenvalues")[0].get<double>() ==
          doctest::Approx(b.at("top_eigenvalues")[0].get<double>()).epsilon(1e-5));
    CHECK(a.at("eigenvalues").at("image_errors")[0].get<double>() ==
          doctest::Approx(b.at("eigenvalues").at("image_errors")[0].get<double>()).epsilon(1e-2));
  }
}

TEST_CASE("forward over reverse gives the same traces and eigenvalues up to rounding, and says so") {
  Command command;
  command.options["--road"] = "double-backward";
  command.options["--error"] = "0.2";
  const Json reverse = command.result_in("reverse");
  command.options["--hvp-road"] = "forward-over-reverse";
  const Json forward = command.result_in("forward");
  for (std::size_t l = 0; l < command.layers.size(); ++l) {
    const Json &a = reverse.at("layers")[l], &b = forward.at("layers")[l];
    CAPTURE(a.at("name").get<std::string>());
    CHECK(a.at("trace").at("samples") == b.at("trace").at("samples"));
    CHECK(estimate(a.at("trace")) == doctest::Approx(estimate(b.at("trace"))).epsilon(1e-10));
    CHECK(a.at("top_eigenvalues")[0].get<double>() ==
          doctest::Approx(b.at("top_eigenvalues")[0].get<double>()).epsilon(1e-8));
  }
  CHECK(reverse.at("layers") != forward.at("layers"));  // it was another road
  const auto config = [&](const char* run) {
    return Json::parse(file_bytes(command.path(run) + "/config.json")).at("hvp-road");
  };
  CHECK(config("reverse").is_null());  // as in runs of programs that had no choice
  CHECK(config("forward") == "forward-over-reverse");
}

TEST_CASE("probes over the whole and for each part: whichever is taken, the parts add up") {
  Command command;
  command.options["--what"] = "trace";
  command.options["--road"] = "double-backward";
  command.options["--max-samples"] = "100";
  // Of all layers, probes over the whole are mostly noise from other layers; of few they are not.
  command.options["--error"] = "0.2";
  command.layers.clear();
  const Json many = command.result_in("many");
  CHECK(many.at("road").at("probes").at("scheme") == "for each part");
  CHECK(many.at("road").at("probes").at("why").get<std::string>().find("pilot") != std::string::npos);
  const Json& network = many.at("network").at("trace");
  double sum = 0, squares = 0;
  for (const Json& layer : many.at("layers")) {
    sum += estimate(layer.at("trace"));
    squares += std::pow(layer.at("trace").at("standard_error").get<double>(), 2);
  }
  CHECK(estimate(network) == doctest::Approx(sum).epsilon(1e-12));
  CHECK(network.at("standard_error").get<double>() == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
  CHECK(network.at("image_error").get<double>() > 0);

  command.options["--error"] = "0.5";
  command.layers = {"conv1", "linear"};
  const Json few = command.result_in("few");
  CHECK(few.at("road").at("probes").at("scheme") == "joint");
  CHECK(few.at("layers")[0].at("trace").at("samples") == few.at("layers")[1].at("trace").at("samples"));
}

TEST_CASE("random directions on the exact road come with an error that covers the exact sum") {
  Command command;
  command.options["--what"] = "trace,activations";
  const Json exact = command.result_in("exact");
  command.options["--directions"] = "64";
  const Json random = command.result_in("random");
  for (std::size_t l = 0; l < 3; ++l) {
    const Json &a = exact.at("layers")[l], &b = random.at("layers")[l];
    for (const auto& [x, y] : {std::pair{a.at("trace"), b.at("trace")},
                               {a.at("activations").at("trace"), b.at("activations").at("trace")}}) {
      const double error = y.at("standard_error");
      CHECK(error > 0);
      CHECK(error < 0.2 * estimate(y));
      CHECK(std::abs(estimate(x) - estimate(y)) < 4 * error);
      CHECK(y.at("samples") == 64);
    }
  }
}

TEST_CASE("a spectral density has the trace for its mean and the eigenvalues for its ends") {
  Command command;
  command.options["--what"] = "eigenvalues,trace,density";
  command.options["--density-steps"] = "20";
  command.layers = {"linear"};
  const Json layer = command.result().at("layers")[0];
  const Json& density = layer.at("density");
  CHECK(density.at("highest").get<double>() ==
        doctest::Approx(layer.at("top_eigenvalues")[0].get<double>()).epsilon(1e-5));
  const double error = density.at("trace").at("standard_error");
  CHECK(std::abs(estimate(density.at("trace")) - estimate(layer.at("trace"))) < 5 * error);
  CHECK(density.at("probes").get<int>() <= 8);
  std::istringstream curve(file_bytes(command.path("run/density-linear.csv")));
  std::string line;
  std::getline(curve, line);
  CHECK(line == "eigenvalue,density,standard_error");
  double integral = 0, before = 0;
  for (bool first = true; std::getline(curve, line); first = false) {
    const std::size_t comma = line.find(',');
    const double x = std::stod(line.substr(0, comma)), y = std::stod(line.substr(comma + 1));
    if (!first) integral += (x - before) * y;
    before = x;
  }
  CHECK(integral == doctest::Approx(1).epsilon(1e-6));
}

TEST_CASE("an untrained network has negative curvature as a whole, and blocks add up to it") {
  Command command;
  command.layers.clear();
  command.options["--per"] = "network";
  const Json whole = command.result_in("network").at("network");
  CHECK(whole.at("bottom_eigenvalues")[0] < 0);
  CHECK(whole.at("top_eigenvalues")[0] > 0);
  CHECK(whole.at("eigenvalues").at("operator") == "Hessian");
  CHECK(whole.at("parameters") == 268336);
  command.options["--per"] = "block";
  command.options["--what"] = "trace";
  const Json blocks = command.result_in("blocks");
  REQUIRE(blocks.at("blocks").size() == 11);
  double sum = 0;
  for (const Json& block : blocks.at("blocks")) sum += estimate(block.at("trace"));
  CHECK(blocks.at("blocks")[1].at("name") == "layer1.0");
  CHECK(blocks.at("blocks")[1].at("tensors").size() == 2);
  CHECK(sum == doctest::Approx(estimate(whole.at("trace"))).epsilon(1e-12));

  // With biases and normalisation there is more to it, and it takes the other road.
  command.options["--parameters"] = "all";
  command.options["--per"] = "layer";
  command.options["--max-samples"] = "16";
  command.layers = {"bn1", "linear"};
  const Json all = command.result_in("all");
  CHECK(all.at("road").at("taken") == "double-backward");
  CHECK(all.at("layers")[0].at("tensors") == Json::array({"bn1.weight", "bn1.bias"}));
  CHECK(all.at("layers")[1].at("parameters") == 650);
  CHECK(all.at("layers")[0].at("trace").at("samples") == 16);
}

TEST_CASE("every model of ours, block by block") {
  for (const std::string& name : model_names()) {
    // The deeper and wider ones differ in numbers only.
    if (name != "resnet20_b" && name != "squeezenext23" && name != "squeezenext23v5") continue;
    CAPTURE(name);
    Command command;
    const auto model = make_model(name, {.seed = 3});
    const bool squeezenext = name.starts_with("squeezenext");
    StateDict weights = state_dict(*model);
    for (auto& [key, tensor] : weights) {
      // Without training, batch norm in eval mode does not hold the logits in bounds.
      if (key == "output.weight") rescale({tensor}, 1e-6);
    }
    write_safetensors(command.path("w.safetensors"), weights);
    command.options["--model"] = name;
    command.options["--what"] = "trace,eigenvalues";
    command.options["--per"] = "block";
    command.options["--images"] = "2";
    command.options["--microbatch"] = "1";
    command.options["--max-products"] = "4";
    command.options["--dtype"] = "f32";
    const std::string block = squeezenext ? "features.stage2.unit1" : "layer2.0";
    command.layers = {block, squeezenext ? "output" : "linear"};
    if (squeezenext) {
      // The pictures must survive six halvings.
      Random random(5);
      write_safetensors(command.path("b.safetensors"),
                        {{"images", random_normal({2, 3, 64, 64}, DType::f32, random)},
                         {"labels", Tensor::from<std::int64_t>({1, 7}, {2})}});
    }
    const Json result = command.result();
    REQUIRE(result.at("blocks").size() == 2);
    std::int64_t parameters = 0;
    std::vector<std::string> tensors;
    for (const auto& [layer, module] : weighted_layers(*model)) {
      if (layer.starts_with(block + ".")) {
        parameters += module->weight_count();
        tensors.push_back(layer + ".weight");
      }
    }
    const Json& first = result.at("blocks")[0];
    CHECK(first.at("name") == block);
    CHECK(first.at("tensors") == tensors);
    CHECK(tensors.size() == (squeezenext ? 6 : 3));
    CHECK(first.at("parameters") == parameters);
    CHECK(result.at("road").at("taken") == "exact");
    CHECK(estimate(first.at("trace")) > 0);
    CHECK(first.at("top_eigenvalues")[0].get<double>() > 0);
  }
}

TEST_CASE("the landscape has the loss in its middle, and tables of it") {
  Command command;
  command.options["--what"] = "landscape";
  command.options["--landscape-points"] = "3";
  command.options["--max-products"] = "10";
  const Json result = command.result();
  const Json& landscape = result.at("network").at("landscape");
  const double loss = result.at("loss");
  for (const char* direction : {"eigenvector", "random"}) {
    const std::vector<double> losses = landscape.at(direction).at("losses");
    REQUIRE(losses.size() == 3);
    CHECK(losses[1] == loss);
    CHECK(losses[0] != loss);
    CHECK(losses[2] != loss);
  }
  const double length = landscape.at("eigenvector").at("length_of_a_step_of_1");
  CHECK(length * length * landscape.at("eigenvector").at("eigenvalue").get<double>() ==
        doctest::Approx(2).epsilon(1e-12));
  CHECK(landscape.at("steps") == Json::array({-1.0, 0.0, 1.0}));
  const auto lines = [&](const std::string& name) {
    const std::string text = file_bytes(command.path("run/" + name));
    return std::count(text.begin(), text.end(), '\n');
  };
  CHECK(lines("landscape.csv") == 1 + 2 * 3);
  CHECK(lines("landscape-plane.csv") == 1 + 3 * 3);
}

TEST_CASE("the same bits for one thread and for two, killed or not") {
  Command command;
  command.options["--what"] = "eigenvalues,trace,density,activations,fisher,landscape";
  command.options["--road"] = "double-backward";
  command.options["--landscape-points"] = "3";
  command.options["--max-products"] = "20";
  command.options["--max-samples"] = "24";
  command.options["--density-steps"] = "5";
  command.options["--density-probes"] = "2";
  command.options["--threads"] = "2";
  command.result_in("two");
  command.options["--threads"] = "1";
  command.result_in("one");
  const auto same = [&](const std::string& a, const std::string& b) {
    for (const char* name :
         {"curvature.json", "curvature.md", "landscape.csv", "landscape-plane.csv", "density-linear.csv"}) {
      INFO(name);
      CHECK((file_bytes(command.path(a) + "/" + name) == file_bytes(command.path(b) + "/" + name)));
    }
  };
  same("two", "one");

  // Killed again and again, later each time, until it gets through.
  command.resume = true;
  command.options["--out"] = command.path("killed");
  int kills = 0;
  for (int wait = 100; run_and_kill("goshawk", command.arguments(), wait); wait += wait / 2) ++kills;
  CHECK(kills > 1);
  command.result();
  same("two", "killed");

  // A finished run only prints its table again; without --resume it is left alone.
  CHECK(command.result() == Json::parse(file_bytes(command.path("two/curvature.json"))));
  command.resume = false;
  const ProgramResult refused = command.run();
  CHECK(refused.status == 2);
  CHECK(refused.err.find("--resume") != std::string::npos);
  // Nor does it go on with other options or other weights.
  command.resume = true;
  command.options["--seed"] = "1";
  CHECK(command.run().status == 2);
  command.options["--seed"] = "0";
  command.write_weights(1.5);
  const ProgramResult changed = command.run();
  CHECK(changed.status == 2);
  CHECK(changed.err.find("changed") != std::string::npos);
}

TEST_CASE("eigenvalues and a density that were killed on the way go on from there, with the same bits") {
  struct Case {
    std::string what, item;
    std::map<std::string, std::string> options;
  };
  for (const Case& c :
       {Case{"density", "density of conv1", {{"--density-steps", "200"}, {"--layer", "conv1"}}},
        Case{"eigenvalues",
             "eigenvalues of network",
             {{"--per", "network"}, {"--top", "8"}, {"--max-products", "40"}}}}) {
    CAPTURE(c.what);
    Command command;
    command.layers.clear();
    command.options["--what"] = c.what;
    command.options["--density-probes"] = "2";
    for (const auto& [name, value] : c.options) command.options[name] = value;
    const Json whole = command.result_in("whole");

    command.options["--out"] = command.path("killed");
    command.resume = true;
    const std::string file = command.path("killed/checkpoints/under_way.safetensors");
    REQUIRE(run_and_kill_after("goshawk", command.arguments(), file));
    SafeTensors checkpoint = read_safetensors(file);
    CHECK(checkpoint.metadata.at("item") == c.item);
    CHECK(Json::parse(checkpoint.metadata.at("numbers")).at("products") > 0);
    CHECK(command.result() == whole);
    CHECK_FALSE(std::filesystem::exists(file));

    // It is the checkpoint that is gone on from: another number of products in it is in the result.
    std::filesystem::remove_all(command.path("killed"));
    REQUIRE(run_and_kill_after("goshawk", command.arguments(), file));
    checkpoint = read_safetensors(file);
    Json numbers = Json::parse(checkpoint.metadata.at("numbers"));
    numbers["products"] = numbers.at("products").get<int>() + 1;
    checkpoint.metadata["numbers"] = numbers.dump();
    write_safetensors(file, checkpoint.tensors, checkpoint.metadata);
    CHECK(command.result() != whole);
  }
}

TEST_CASE("curvature finds more eigenvalues than the usual basis of Lanczos has room for") {
  Command command;
  command.layers = {"layer1.0.conv1"};
  command.options["--what"] = "eigenvalues";
  command.options["--top"] = "130";
  command.options["--max-products"] = "140";
  CHECK(command.result().at("layers")[0].at("top_eigenvalues").size() == 130);
}

TEST_CASE("curvature says in one line what is wrong and what to do") {
  struct Case {
    std::string what;
    std::function<void(Command&)> spoil;
    int status;
    std::vector<std::string> says;
  };
  const auto option = [](const std::string& name, const std::string& value) {
    return [=](Command& command) { command.options[name] = value; };
  };
  const std::vector<Case> cases = {
      {"layer that does not exist",
       [](Command& c) { c.layers = {"layer2.0.con1"}; },
       2,
       {"layer2.0.con1", "'layer2.0.conv1'", "near"}},
      {"block that does not exist",
       [](Command& c) {
         c.options["--per"] = "block";
         c.layers = {"layer9"};
       },
       2,
       {"no block 'layer9'", "'layer1.0'"}},
      {"unknown measurement", option("--what", "trace,spectrum"), 2, {"--what", "spectrum"}},
      {"one direction", option("--directions", "1"), 2, {"--directions", "2 or more"}},
      {"unknown road", option("--road", "scenic"), 2, {"--road", "scenic"}},
      {"unknown road of products", option("--hvp-road", "scenic"), 2, {"--hvp-road", "scenic"}},
      {"more images than there are", option("--images", "7"), 1, {"6 images", "7", "b.safetensors"}},
      {"no images", [](Command& c) { c.options.erase("--batch"); }, 2, {"--data", "--batch"}},
      {"two sources", option("--data", "x"), 2, {"--data", "--batch"}},
      {"exact road where it does not reach",
       [](Command& c) {
         c.options["--parameters"] = "all";
         c.options["--road"] = "exact";
       },
       2,
       {"--road exact", "--parameters weights"}},
      {"activations of blocks",
       [](Command& c) {
         c.options["--what"] = "activations";
         c.options["--per"] = "block";
         c.layers = {};
       },
       2,
       {"activations", "--per layer"}},
      {"loss that is not finite",
       [](Command& c) {
         c.options["--dtype"] = "f32";
         c.write_weights(1e38);
       },
       1,
       {"loss", "w.safetensors", "f64"}},
      {"weight that is not finite", [](Command& c) { c.write_weights(NAN); }, 1, {"linear.weight", "nan"}},
      {"no run to write", option("--out", "/dev/null/run"), 1, {"/dev/null/run"}},
  };
  for (const Case& c : cases) {
    CAPTURE(c.what);
    Command command;
    c.spoil(command);
    const ProgramResult result = command.run();
    CHECK(result.status == c.status);
    CHECK(result.out.empty());
    CAPTURE(result.err);
    CHECK(is_one_line(result.err));
    for (const std::string& part : c.says) {
      CAPTURE(part);
      CHECK(contains(result.err, part));
    }
    CHECK_FALSE(std::filesystem::exists(command.path("run/curvature.json")));
  }
}
