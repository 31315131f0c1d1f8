#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/apps/run_program.hpp"
#include "tests/support/xml.hpp"

using namespace goshawk;

namespace {

namespace fs = std::filesystem;

// A name that must be escaped wherever it comes.
constexpr const char* kOddName = "c<&\"'>|*";

void write(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

nlohmann::json table() {
  const auto row = [](const char* slug, const char* name, const char* bits, double accuracy, double drop,
                      double comp, int codes) {
    return nlohmann::json{
        {"row", slug},
        {"name", name},
        {"weight_bits", bits},
        {"activation_bits", "4"},
        {"accuracy", accuracy},
        {"standard_deviation", 0.5},
        {"images", 1000},
        {"weight_compression", comp},
        {"activation_compression", 8.0},
        {"packed_bytes",
         {{"codes", codes},
          {"scales", codes / 100},
          {"ranges", 24},
          {"full_weights", 0},
          {"other", codes / 10},
          {"header", codes / 5}}},
        {"drop", drop},
        {"paper",
         {{"accuracy", 92.22}, {"drop", 0.15}, {"weight_compression", 13.11}, {"activation_compression", 8}}},
        {"seeds", {{{"seed", 0}}, {{"seed", 1}}}}};
  };
  nlohmann::json result = {{"model", "resnet20"},
                           {"data", "pictures <of> & \"things\""},
                           {"rows",
                            {row("baseline", "Baseline", "32", 91.5, 0, 1, 0),
                             row("hawq-v2", "HAWQ-V2", "2 MP", 88.25, 3.25, 12.3, 4000)}}};
  result["rows"][1]["untuned_accuracy"] = 61.375;
  return result;
}

nlohmann::json sensitivity() {
  nlohmann::json layers = nlohmann::json::array();
  int k = 1;
  for (const char* name : {"a", "b", kOddName}) {
    layers.push_back({{"name", name},
                      {"parameters", 160 * k},
                      {"macs", 1600},
                      {"input_elements", 64},
                      {"lambda_max", 3.5 / k},
                      {"lambda_residual", 0.01},
                      {"trace", {{"value", 12.0 / k}, {"standard_error", 1.5}, {"samples", 20}}},
                      {"mean_trace", 12.0 / k / (160 * k)},
                      {"perturbation", {{"2", 8.0}, {"4", 0.5}}}});
    ++k;
  }
  return {{"format", "goshawk-sensitivity-1"},       {"model", "resnet20"}, {"weights", "w"},
          {"quantizer", "asymmetric layer min_max"}, {"images", 256},       {"layers", layers}};
}

nlohmann::json bits(const char* method, const std::vector<int>& widths) {
  nlohmann::json layers = nlohmann::json::array();
  int k = 0;
  for (const char* name : {"a", "b", kOddName}) {
    layers.push_back({{"name", name},
                      {"parameters", 160 * (k + 1)},
                      {"input_elements", 64},
                      {"weight_bits", widths[k]},
                      {"activation_bits", 4},
                      {"pinned", false}});
    ++k;
  }
  return {{"format", "goshawk-bits-1"},
          {"method", method},
          {"budget_bytes", 300.0},
          {"omega", 0.75},
          {"layers", layers}};
}

const char* const kLog =
    R"({"row":"baseline","stage":0,"epoch":0,"lr":0.1,"train_loss":2.1,"train_accuracy":0.31,"test_loss":null,"test_accuracy":0.42}
{"row":"baseline","stage":0,"epoch":1,"lr":0.05,"train_loss":1.1,"train_accuracy":0.71,"test_loss":1.2,"test_accuracy":0.72}
{"sensitivity":"hawq","seconds":8.4}
{"row":"hawq-v2-seed1","stage":0,"epoch":0,"lr":0.02,"train_loss":0.9,"train_accuracy":0.8,"test_loss":1.0,"test_accuracy":0.79}
{"row":"hawq-v2-seed1","stage":1,"epoch":1,"lr":0.01,"train_loss":0.8,"train_accuracy":0.82,"test_loss":0.9,"test_accuracy":0.8}
{"row":"hawq-v2-se)";

// A run directory and its report.
struct AnyRun {
  ScratchDirectory scratch;
  fs::path path;

  explicit AnyRun(const char* name) : path(scratch.path() / name) {}

  ProgramResult report(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments{"report", path.string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_built_program("goshawk", arguments);
  }
  std::string html() const { return file_bytes(path / "report.html"); }
  std::set<std::string> figures() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(path / "figures"))
      names.insert(entry.path().filename().string());
    return names;
  }
};

// A small made-up run of reproduce_cifar with everything in it.
struct Run : AnyRun {
  Run() : AnyRun("a & b") {
    write(
        path / "config.json",
        R"({"data": "my pictures/it's", "model": "resnet20", "epochs": 7, "lr": 0.1, "bits": [2, 4], "seed": 3})");
    write(path / "table.json", table().dump());
    write(path / "sensitivity.json", sensitivity().dump());
    write(path / "bits.json",
          nlohmann::json{{"direct", bits("direct", {2, 2, 2})}, {"hawq-v2", bits("hawq-v2", {4, 2, 2})}}
              .dump());
    write(path / "log.jsonl", kLog);
    nlohmann::json layers = nlohmann::json::array();
    for (const char* name : {"a", "b", kOddName}) {
      layers.push_back(
          {{"name", name},
           {"parameters", 160},
           {"score", 0.5},
           {"choices",
            {{{"bits", 2}, {"bytes", 40}, {"cost", 0.625}}, {{"bits", 4}, {"bytes", 80}, {"cost", 0.125}}}}});
    }
    write(path / "costs-hawq-v2.json", nlohmann::json{{"layers", layers}}.dump());
    write(
        path / "pareto-hawq-v2.json",
        R"({"costs": "hawq-v2", "points": [{"bytes": 240, "omega": 1.5, "bits": [2, 2, 2]}, {"bytes": 280, "omega": 0.75, "bits": [4, 2, 2]}]})");
    write(path / "order-hawq-v2.json",
          nlohmann::json{
              {"format", "goshawk-stages-1"},
              {"stages", {{{"epochs", 1}, {"layers", {"b", "a"}}}, {{"epochs", 1}, {"layers", {kOddName}}}}}}
              .dump());
    const fs::path curvature = path / "curvature";
    const nlohmann::json density = {{"curve", "density-network.csv"},
                                    {"smoothing", 0.1},
                                    {"lowest", -0.5},
                                    {"highest", 7.5},
                                    {"probes", 8}};
    const nlohmann::json line = {{"eigenvalue", 7.5}, {"losses", {1.25, 0.25, 1.25}}};
    write(curvature / "curvature.json",
          nlohmann::json{{"model", "resnet20"},
                         {"images", 64},
                         {"loss", 0.25},
                         {"layers",
                          {{{"name", kOddName},
                            {"parameters", 160},
                            {"top_eigenvalues", {7.5}},
                            {"trace", {{"estimate", 16.0}, {"standard_error", 0.3}, {"image_error", 0.4}}}}}},
                         {"network",
                          {{"parameters", 960},
                           {"density", density},
                           {"landscape",
                            {{"plane", "landscape-plane.csv"},
                             {"steps", {-1, 0, 1}},
                             {"eigenvector", line},
                             {"random", line}}}}}}
              .dump());
    write(curvature / "density-network.csv",
          "eigenvalue,density,standard_error\n-0.5,0.01,0.001\n0,3.5,0.2\n7.5,1e-3,1e-4\n");
    std::string plane = "eigenvector,random,loss\n";
    for (int i = -1; i <= 1; ++i) {
      for (int k = -1; k <= 1; ++k)
        plane += std::to_string(i) + "," + std::to_string(k) + "," + std::to_string(1 + i * i + k * k) + "\n";
    }
    write(curvature / "landscape-plane.csv", plane);
  }
};

// Of one model, as goshawk quantize leaves it.
struct ModelRun : AnyRun {
  ModelRun() : AnyRun("model") {
    write(
        path / "config.json",
        R"({"program": "goshawk quantize", "model": "resnet20", "data": "", "synthetic": true, "train-images": 0,
            "mean": null, "pin": [], "bits": [2, 4], "cost": "exact-quadratic", "epochs": 2,
            "weights": "/elsewhere/w.safetensors"})");
    write(path / "baseline.json", R"({"accuracy": 0.925, "correct": 185, "images": 200, "loss": 0.25})");
    write(path / "result.json",
          R"({"accuracy": 0.9, "correct": 180, "images": 200, "loss": 0.375, "weight_compression": 13.7,
              "activation_compression": 4.0, "total_compression": 9.5, "packed": "model.packed.safetensors",
              "packed_bytes": {"total": 380, "codes": 280, "scales": 12, "ranges": 24, "full_weights": 0, "other": 40,
                               "header": 24}})");
    nlohmann::json assignment = bits("exact-quadratic exact", {4, 2, 2});
    for (auto& layer : assignment["layers"]) layer["activation_bits"] = 8;
    write(path / "bits.json", assignment.dump());
    nlohmann::json layers = nlohmann::json::array();
    for (const char* name : {"a", "b", kOddName}) {
      layers.push_back({{"name", name},
                        {"parameters", 160},
                        {"choices",
                         {{{"bits", 2}, {"bytes", 40}, {"cost", 0.625}},
                          {{"bits", 4}, {"bytes", 80}, {"cost", std::string(name) == "b" ? -0.1 : 0.125}}}}});
    }
    write(path / "costs.json", nlohmann::json{{"layers", layers}}.dump());
    write(path / "order-model.json",
          nlohmann::json{
              {"format", "goshawk-stages-1"},
              {"stages", {{{"epochs", 1}, {"layers", {"b", "a"}}}, {{"epochs", 1}, {"layers", {kOddName}}}}}}
              .dump());
    write(path / "log.jsonl",
          R"({"sensitivity":"exact-quadratic","seconds":8.4,"projected_seconds":8.4,"road":"exact"}
{"row":"model","stage":0,"epoch":0,"lr":0.02,"train_loss":0.9,"train_accuracy":0.8,"test_loss":1.0,"test_accuracy":0.79,"seconds":1.5}
{"row":"model","stage":1,"epoch":1,"lr":0.01,"train_loss":0.8,"train_accuracy":0.82,"test_loss":0.9,"test_accuracy":0.8,"seconds":1.5}
)");
  }
};

// Of predict_loss, with eight draws whose order every sensitivity knows but for its last two.
struct PredictionRun : AnyRun {
  nlohmann::json predictions;

  PredictionRun() : AnyRun("predict") {
    write(path / "config.json",
          R"({"program": "predict_loss", "model": "resnet20", "data": "/elsewhere/pictures", "split": "train",
            "widths": ["2,4", "4,8"], "cost": ["snr", "hawq-s"], "draws": 8, "held-out-split": "test", "batch": ""})");
    const auto correlation = [](const char* key, double value) {
      return nlohmann::json{{key, value}, {"low", value - 0.125}, {"high", value + 0.0625}};
    };
    const auto method = [&](double value, double behind) {
      return nlohmann::json{{"held_out", correlation("spearman", value)},
                            {"calibration", correlation("spearman", value / 2)},
                            {"behind_best", correlation("difference", behind)}};
    };
    std::vector<double> truth, bytes, bits;
    std::vector<std::vector<int>> widths;
    for (int d = 0; d < 8; ++d) {
      truth.push_back(0.001 * (1 << d));
      bytes.push_back(1000 + d);
      bits.push_back(2.5 + d / 16.0);
      widths.push_back({2, 4, d % 2 == 0 ? 2 : 4});
    }
    nlohmann::json set{{"bytes", bytes},
                       {"mean_bits", bits},
                       {"true_held_out", truth},
                       {"true_calibration", truth},
                       {"widths_of_layers", widths},
                       {"best", "snr"}};
    set["methods"] = {{"snr", method(0.875, 0)},
                      {"hawq-s", method(0.75, 0.125)},
                      {kOddName, method(0.25, 0.625)},
                      {"mean-bits", method(0.125, 0)},
                      {"true-on-calibration", method(0.9, 0)}};
    for (const char* name : {"snr", "hawq-s", kOddName}) set["methods"][name]["predicted"] = truth;
    for (const char* bound : {"mean-bits", "true-on-calibration"}) set["methods"][bound].erase("behind_best");
    predictions = {{"format", "goshawk-predictions-1"},
                   {"model", "resnet20"},
                   {"calibration_images", 512},
                   {"held_out_images", 2048},
                   {"calibration_split", "train"},
                   {"held_out_split", "test"},
                   {"calibration_loss", 0.0625},
                   {"held_out_loss", 0.5},
                   {"draws", 8},
                   {"interval", 0.95},
                   {"layers", {"a", "b", kOddName}},
                   {"sets", {{"2,4", set}, {"4,8", set}}}};
    // A loss that falls has no logarithm; widths of 4 and 8 have more bits than 2 and 4.
    predictions["sets"]["4,8"]["true_held_out"] = {-0.5, 1.0, 1.5, 2.0, 0.5, 0.25, 3.0, 2.5};
    for (auto& mean : predictions["sets"]["4,8"]["mean_bits"]) mean = mean.get<double>() + 3;
    save();
  }
  void save() const { write(path / "predictions.json", predictions.dump()); }
};

void check_report(const ProgramResult& result) {
  CHECK_MESSAGE(result.status == 0, result.err);
  CHECK_MESSAGE(is_one_line(result.out), result.out);
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("goshawk report writes one page with everything that the run has") {
  const Run run;
  const ProgramResult result = run.report();
  CHECK_MESSAGE(result.status == 0, result.err);
  CHECK(is_one_line(result.out));
  CHECK(contains(result.out, "report.html"));
  const std::string html = run.html();
  CHECK(is_well_formed(html));
  CHECK(html.size() < 2'000'000);
  CHECK(run.figures() == std::set<std::string>{
                             "bits.svg", "curvature.svg", "density-network.svg", "drops.svg",
                             "finetuning-accuracy.svg", "finetuning-loss.svg", "landscape-plane.svg",
                             "landscape.svg", "mean-trace.svg", "noise.svg", "omega-hawq-v2.svg", "order.svg",
                             "pareto-hawq-v2.svg", "size.svg", "training-accuracy.svg", "training-loss.svg"});
  for (const std::string& name : run.figures()) {
    const std::string svg = file_bytes(run.path / "figures" / name);
    CHECK_MESSAGE(is_well_formed(svg), name);
    CHECK_MESSAGE(contains(svg, "prefers-color-scheme:dark"), name);
    CHECK_MESSAGE(contains(svg, "xmlns=\"http://www.w3.org/2000/svg\""), name);
    CHECK_MESSAGE(contains(html, "id=\"figure-" + name.substr(0, name.size() - 4) + "\""), name);
    CHECK_MESSAGE(!contains(svg, "nan"), name);
  }

  // Our drop and the paper's, and that they differ.
  CHECK(contains(html, "<td>3.25</td>"));
  CHECK(contains(html, "<td class=\"first-of-group\">92.22</td>"));
  CHECK(contains(html, "<td>61.38</td><td>88.25 ± 0.50 (2)"));
  CHECK(contains(html, "3.25 instead of 0.15"));
  // Omega comes from the costs: 0.625 at two bits and 0.125 at four.
  CHECK(contains(html, "HAWQ-V2 at 4 bits&#10;Ω: 0.125"));
  // Every point of the frontier says its assignment, and which one was taken.
  CHECK(contains(html, "280 bytes, Ω 0.75 (taken by HAWQ-V2)&#10;4 bits: a&#10;2 bits: b, c&lt;&amp;&quot;"));
  CHECK(contains(html, "Tr(H)/n: 0.075 ± 0.0094"));
  // The errors of the probes and of the pictures: √(0.3² + 0.4²) over 160 weights.
  CHECK(contains(html, "trace / n: 0.1 ± 0.0031"));
  CHECK(contains(html, "HAWQ-V2, seed 1"));
  CHECK(contains(html, "weights&#39; codes: 4,000 bytes"));
  CHECK(contains(file_bytes(run.path / "figures" / "landscape-plane.svg"), "<path class=\"gf-contour "));
  // The command; what is at its default is left out, and the shell sees one word.
  CHECK(contains(html, "reproduce_cifar --data &#39;my pictures/it&#39;\\&#39;&#39;s&#39; --epochs 7"));
  CHECK(contains(html, "--bits 2,4"));
  CHECK(contains(html, "--seed 3"));
  CHECK(contains(html, "--out &#39;a &amp; b-again&#39;"));
  CHECK(!contains(html, "--lr"));
  CHECK(contains(html, "--finetune-seeds 2"));

  // Nothing that a run says becomes markup, and nothing comes from elsewhere.
  CHECK(!contains(html, kOddName));
  CHECK(contains(html, "c&lt;&amp;&quot;&#39;&gt;|*"));
  CHECK(contains(html, "pictures &lt;of&gt; &amp; &quot;things&quot;"));
  for (const char* part : {"src=", "@import", "url(", "fetch", "href=\"http"})
    CHECK_MESSAGE(!contains(html, part), part);
  CHECK(!contains(html, "Not in this run"));

  const std::string markdown = file_bytes(run.path / "report.md");
  CHECK(contains(markdown, "# a &amp; b\n"));
  CHECK(contains(markdown, "](figures/pareto-hawq-v2.svg)"));
  CHECK(contains(markdown, "c&lt;&amp;\"'>\\|\\*"));
  CHECK(contains(markdown, "paper: accuracy"));
}

TEST_CASE("goshawk report shows one model that goshawk quantize, finetune or train made") {
  const ModelRun run;
  check_report(run.report());
  const std::string html = run.html();
  CHECK(is_well_formed(html));
  CHECK(run.figures() == std::set<std::string>{"bits.svg", "costs.svg", "layer-bytes.svg", "order.svg",
                                               "pareto-model.svg", "size.svg", "training-accuracy.svg",
                                               "training-loss.svg"});
  // Before and after, and the error of both: √(0.9 · 0.1 / 200).
  CHECK(contains(html, "<dt>full precision</dt><dd>92.50 %</dd>"));
  CHECK(contains(html, "<dt>drop, in points</dt><dd>2.50</dd>"));
  CHECK(contains(html, "Quantization costs 2.50 points of accuracy."));
  CHECK(contains(html, "Test loss: 0.25 before, 0.375 after."));
  CHECK(contains(html, "accuracy on 200 pictures is 2.12 points"));
  CHECK(contains(
      html, "<td>Quantized</td><td class=\"first-of-group\">2–4</td><td>8</td><td>90.00</td><td>2.50</td>"));
  // What every width costs, which one was taken, and that one cost has no logarithm.
  CHECK(contains(html, "Bits by exact-quadratic exact, within 300 bytes of weights; they take 280."));
  CHECK(contains(html, "a&#10;4 bits (chosen)&#10;cost: 0.125&#10;80 bytes"));
  CHECK(contains(html, "1 value is not positive and has no place on it"));
  CHECK(contains(html, "What the sensitivity exact-quadratic expects. Ringed:"));
  // The best of all assignments, and the one that was taken, which is none of them: b gains more than a.
  CHECK(contains(html, "120 bytes, cost 1.875&#10;2 bits: a, b, c&lt;"));
  CHECK(contains(html, "160 bytes, cost 1.15&#10;4 bits: b&#10;2 bits: a, c&lt;"));
  CHECK(contains(html,
                 "160 bytes, cost 1.375 (taken by the quantized model)&#10;4 bits: a&#10;2 bits: b, c&lt;"));
  CHECK(contains(html, "240 bytes, cost 0.15&#10;4 bits: a, b, c&lt;"));
  CHECK(contains(html, "cost of the whole network (log scale)"));
  CHECK(contains(html, "c&lt;&amp;&quot;&#39;&gt;|*&#10;the quantized model: stage 2 of 2"));
  CHECK(contains(html, "160 weights of 4 bits: 80 bytes"));
  CHECK(contains(html, "weights&#39; codes: 280 bytes"));
  CHECK(contains(html, "<h3>Accuracy</h3>"));
  CHECK(contains(html, "Ringed: the first epoch with another part of the layers quantized."));
  // The command has every option: a flag without a value, and of an absolute path its name.
  CHECK(contains(html, "goshawk quantize --model resnet20 --weights w.safetensors --synthetic "));
  CHECK(contains(html, "--bits 2,4"));
  CHECK(contains(html, "--out model-again"));
  CHECK(contains(html, "goshawk quantize --config config.json --out model-again"));
  CHECK(contains(html, "Of an absolute path only the last name is shown."));
  CHECK(!contains(html, "/elsewhere"));
  CHECK(!contains(html, "seconds"));
  CHECK(!contains(html, "reproduce_cifar"));
  CHECK(!contains(html, "paper"));
  CHECK(!contains(html, kOddName));
  CHECK(!contains(html, "Not in this run"));
  CHECK(contains(html, "resnet20, synthetic pictures"));

  // Stopped in the middle.
  fs::remove(run.path / "result.json");
  check_report(run.report());
  CHECK(contains(run.html(), "result.json: the run is not finished."));
  CHECK(contains(run.html(), "<dt>full precision</dt>"));
  CHECK(!contains(run.html(), "drop, in points"));
  for (const char* name : {"costs.json", "bits.json", "order-model.json", "log.jsonl", "baseline.json"}) {
    fs::remove(run.path / name);
    check_report(run.report());
    CHECK_MESSAGE(is_well_formed(run.html()), name);
  }
  CHECK(contains(run.html(), "log.jsonl: no training curves."));
}

TEST_CASE("goshawk report shows fine-tuning without a baseline, training alone, and what is damaged") {
  const ModelRun run;
  fs::remove(run.path / "baseline.json");
  fs::remove(run.path / "costs.json");
  write(
      run.path / "config.json",
      R"({"program": "goshawk finetune", "model": "resnet20", "data": "/elsewhere/pictures/", "epochs": 0})");
  write(run.path / "log.jsonl", "");
  check_report(run.report());
  CHECK(contains(run.html(), "goshawk finetune --model resnet20 --data pictures --epochs 0"));
  CHECK(contains(run.html(), "<p class=\"summary\">resnet20, pictures</p>"));
  CHECK(contains(run.html(), "<td>90.00</td><td>-</td>"));
  CHECK(!contains(run.html(), "Not in this run"));

  write(run.path / "result.json", R"({"accuracy": 0.9, "packed_bytes": {}})");
  const ProgramResult damaged = run.report();
  CHECK(damaged.status == 1);
  CHECK_MESSAGE(is_one_line(damaged.err), damaged.err);
  CHECK(contains(damaged.err, "result.json"));

  const ScratchDirectory scratch;
  const fs::path trained = scratch.path() / "trained";
  write(trained / "config.json", R"({"program": "goshawk train", "model": "resnet20", "data": "d"})");
  write(trained / "result.json", R"({"accuracy": 0.925, "correct": 185, "images": 200, "loss": 0.25})");
  write(
      trained / "log.jsonl",
      R"({"row":"train","stage":0,"epoch":0,"lr":0.1,"train_loss":2,"train_accuracy":0.3,"test_loss":2,"test_accuracy":0.4})"
      "\n");
  check_report(run_built_program("goshawk", {"report", trained.string()}));
  const std::string html = file_bytes(trained / "report.html");
  CHECK(contains(html, "<td>Full precision</td><td class=\"first-of-group\">32</td>"));
  CHECK(contains(html, "training accuracy: 30"));
  CHECK(!contains(html, "Not in this run"));
}

TEST_CASE("goshawk report shows who predicts best") {
  PredictionRun run;
  check_report(run.report());
  const std::string html = run.html();
  CHECK(is_well_formed(html));
  CHECK(run.figures() == std::set<std::string>{"correlations.svg", "predicted-2_4.svg", "predicted-4_8.svg"});
  for (const std::string& name : run.figures()) {
    const std::string svg = file_bytes(run.path / "figures" / name);
    CHECK_MESSAGE(is_well_formed(svg), name);
    CHECK_MESSAGE(!contains(svg, "nan"), name);
  }
  // Wide widths first, the best sensitivity first, between ceiling and floor.
  CHECK(html.find("<h4>Widths 4, 8</h4>") < html.find("<h4>Widths 2, 4</h4>"));
  const std::string svg = file_bytes(run.path / "figures" / "correlations.svg");
  std::size_t at = 0;
  for (const char* name : {">truth (ceiling)<", ">SNR<", ">λ/n<", ">c&lt;&amp;", ">bits alone (floor)<"}) {
    CHECK_MESSAGE(svg.find(name, at) != std::string::npos, name);
    at = svg.find(name, at);
  }
  CHECK(contains(html, "<dt>ranks best on average</dt><dd>SNR</dd>"));
  CHECK(contains(html, "<dt>its mean rank correlation</dt><dd>0.88</dd>"));
  CHECK(contains(html, "<dt>random assignments</dt><dd>16</dd>"));
  CHECK(contains(html, "costs measured on 512 pictures of the train split (loss 0.0625)"));
  CHECK(contains(html, "measured on 2,048 pictures of the test split (loss 0.5)"));
  // Ringed are the best and what is not told apart from it: the interval of λ/n's difference begins at 0.
  CHECK(contains(html, "Widths 2, 4: SNR ranks best, 0.88 [0.75, 0.94]. Not told apart from it: λ/n."));
  std::size_t rings = 0;
  for (at = svg.find("gf-ring\" cx"); at != std::string::npos; at = svg.find("gf-ring\" cx", at + 1)) ++rings;
  CHECK(rings == 4);
  CHECK(contains(html, "SNR (snr), widths 2, 4&#10;held-out pictures: 0.88 [0.75, 0.94]"));
  CHECK(contains(html, "behind the best: 0.12 [0.00, 0.19]"));
  CHECK(contains(html, "<td>λ/n</td><td>hawq-s</td>"));
  // The assignments, once for all panels; axes that need no logarithm have none.
  CHECK(contains(html,
                 "<li>1,001 bytes of weights, 2.56 bits a weight&#10;4 bits: b, "
                 "c&lt;&amp;&quot;&#39;&gt;|*&#10;2 bits: a</li>"));
  CHECK(contains(html, "data-note=\"7\" aria-label=\"predicted 0.128, true 0.128\""));
  CHECK(contains(html, ">true loss change (log scale)<"));
  CHECK(contains(html, ">true loss change<"));
  CHECK(contains(html, "predict_loss --model resnet20 --data pictures --cost snr,hawq-s"));
  CHECK(contains(html, "--widths 2,4 --widths 4,8"));
  CHECK(!contains(html, "/elsewhere"));
  CHECK(!contains(html, kOddName));
  CHECK(!contains(html, "Not in this run"));
  CHECK(contains(html, "<p class=\"summary\">resnet20, pictures</p>"));
  CHECK(contains(file_bytes(run.path / "report.md"), "](figures/correlations.svg)"));

  // As earlier versions wrote it.
  for (const char* key : {"format", "layers", "held_out_split"}) run.predictions.erase(key);
  for (auto& [widths, set] : run.predictions["sets"].items()) {
    set.erase("bytes");
    for (auto& [name, method] : set["methods"].items()) method.erase("behind_best");
  }
  run.save();
  check_report(run.report());
  CHECK(contains(run.html(), "<li>2.56 bits a weight&#10;4 bits: layer 2, layer 3&#10;2 bits: layer 1</li>"));
  CHECK(contains(run.html(), "measured on 2,048 others"));
  CHECK(!contains(run.html(), "Ringed"));

  // Stopped in the middle, and damaged.
  fs::remove(run.path / "predictions.json");
  check_report(run.report());
  CHECK(contains(run.html(), "predictions.json: the run is not finished."));
  CHECK(!contains(run.html(), "table.json"));
  const auto damaged = [&](const nlohmann::json& predictions, const std::string& part) {
    write(run.path / "predictions.json", predictions.dump());
    const ProgramResult result = run.report();
    CHECK(result.status == 1);
    CHECK_MESSAGE(is_one_line(result.err), result.err);
    CHECK_MESSAGE(contains(result.err, "predictions.json"), result.err);
    CHECK_MESSAGE(contains(result.err, part), result.err);
  };
  const auto with = [&](const char* pointer, const nlohmann::json& value) {
    nlohmann::json changed = PredictionRun().predictions;
    changed[nlohmann::json::json_pointer(pointer)] = value;
    return changed;
  };
  damaged({}, "object");
  damaged(with("/format", "goshawk-predictions-9"), "goshawk-predictions-1");
  damaged(with("/sets", nlohmann::json::object()), "no draws");
  damaged(with("/sets/2,4/true_calibration", {1, 2}), "list of 8 numbers");
  damaged(with("/sets/2,4/methods/snr/predicted", "x"), "predicted");
  damaged(with("/sets/2,4/methods/snr/held_out/spearman", 3), "spearman");
  damaged(with("/sets/2,4/widths_of_layers/3", {2, 2}), "equally long");
  damaged(with("/layers", {"a"}), "widths of 3 layers");
  damaged(with("/sets/2,4/methods", nlohmann::json::object()), "no sensitivity");
}

TEST_CASE("goshawk report takes --quiet, and options from a file") {
  const ModelRun run;
  const std::string options = run.scratch / "options.toml", other = run.scratch / "elsewhere";
  run.scratch.write("options.toml", "epochs = 3\n[report]\nout = \"" + other + "\"\nquiet = true\n");
  const ProgramResult unknown = run.report({"--config", options});
  CHECK(unknown.status == 2);
  CHECK(contains(unknown.err, "goshawk report has no option 'epochs'"));
  run.scratch.write("options.toml", "[train]\nepochs = 3\n[report]\nout = \"" + other + "\"\nquiet = true\n");
  const ProgramResult result = run.report({"--config", options});
  check_report(result);
  CHECK(result.err.empty());
  CHECK(contains(result.out, "elsewhere/report.html"));
  CHECK(run.report({"--quiet"}).err.empty());
  CHECK(file_bytes(fs::path(other) / "report.html") == run.html());
  // A run's own file is another program's.
  const ProgramResult foreign = run.report({"--config", (run.path / "config.json").string()});
  CHECK(foreign.status == 2);
  CHECK(contains(foreign.err, "the configuration of goshawk quantize, not of goshawk report"));
}

TEST_CASE("goshawk report writes elsewhere when told, and the same bytes in any locale") {
  const Run run;
  CHECK(run.report().status == 0);
  const fs::path other = run.scratch.path() / "new" / "place";
  setenv("LC_ALL", "de_DE.UTF-8", 1);
  const ProgramResult result = run.report({"--out", other.string()});
  unsetenv("LC_ALL");
  CHECK_MESSAGE(result.status == 0, result.err);
  CHECK(file_bytes(other / "report.html") == run.html());
  CHECK(fs::exists(other / "figures" / "size.svg"));
}

TEST_CASE("goshawk report shows what there is of a run and says what is not") {
  const Run run;
  for (const char* name : {"table.json", "sensitivity.json", "costs-hawq-v2.json", "order-hawq-v2.json",
                           "log.jsonl", "curvature"}) {
    fs::remove_all(run.path / name);
    const ProgramResult result = run.report();
    CHECK_MESSAGE(result.status == 0, name, result.err);
    CHECK_MESSAGE(is_well_formed(run.html()), name);
  }
  CHECK(contains(run.html(), "Not in this run"));
  CHECK(contains(run.html(), "table.json: no row is finished"));
  CHECK(contains(run.html(), "curvature.json: no spectral density"));
  CHECK(contains(run.html(), "280 bytes, Ω 0.75 (taken by HAWQ-V2)"));
  CHECK(contains(run.html(), "<td>280</td>"));  // bytes of the weights, from bits.json

  // Earlier versions counted layers in the order of their sensitivities, and named no rows.
  write(run.path / "pareto-hawq-v2.json",
        nlohmann::json{{"order", {kOddName, "b", "a"}},
                       {"widths", {4, 2}},
                       {"candidates", 4},
                       {"points", {{{"bytes", 320}, {"omega", 1.0}, {"layers_per_width", {1, 2}}}}}}
            .dump());
  write(run.path / "table.json", R"({"model": "resnet20", "data": "d", "rows": [
    {"row": "baseline", "weight_bits": "32", "activation_bits": "32", "accuracy": 88, "correct": 880, "images": 1000,
     "weight_compression": 1.0, "activation_compression": 1.0},
    {"row": "hawq", "weight_bits": "2 MP", "activation_bits": "4", "accuracy": 87.5, "correct": 875, "images": 1000,
     "weight_compression": 13.0, "activation_compression": 8.0}]})");
  write(run.path / "sensitivity.json", sensitivity().dump());
  const ProgramResult result = run.report();
  CHECK_MESSAGE(result.status == 0, result.err);
  CHECK(contains(run.html(), "320 bytes, Ω 1&#10;4 bits: c&lt;&amp;&quot;&#39;&gt;|*&#10;2 bits: a, b\""));
  CHECK(contains(run.html(), "<td>HAWQ</td>"));
  CHECK(contains(run.html(), "<td>0.50</td>"));
  CHECK(contains(run.html(), "<td>0.15</td>"));                    // the paper's drop
  CHECK(contains(run.html(), "HAWQ-V2 at 4 bits&#10;Ω: 0.0375"));  // 12 / 160 · 0.5

  // A directory of goshawk curvature alone.
  const Run other;
  write(
      other.path / "curvature" / "config.json",
      R"({"program": "goshawk curvature", "model": "resnet20", "data": "d", "images": 64, "batch": "", "directions": -1, "mean": null})");
  const ProgramResult curvature =
      run_built_program("goshawk", {"report", (other.path / "curvature").string()});
  CHECK_MESSAGE(curvature.status == 0, curvature.err);
  const std::string html = file_bytes(other.path / "curvature" / "report.html");
  CHECK(contains(html, "goshawk curvature --model resnet20 --data d --images 64"));
  CHECK(!contains(html, "table.json"));
}

TEST_CASE(
    "goshawk report: of many rows the layers' table has the papers' two, and all are in one of their own") {
  const Run run;
  nlohmann::json all{{"direct", bits("direct", {2, 2, 2})}};
  for (const char* slug : {"hawq", "hawq-v2", "mpqco", "joint"}) all[slug] = bits(slug, {4, 2, 8});
  write(run.path / "bits.json", all.dump());
  CHECK(run.report().status == 0);
  CHECK(contains(run.html(), "<th>HAWQ bits</th>"));
  CHECK(!contains(run.html(), "<th>MPQCO bits</th>"));
  CHECK(contains(run.html(), "Weight bits of each row"));
  CHECK(contains(run.html(), "<td>640</td>"));
  CHECK(contains(run.html(), "<td>4 2 8</td>"));
  CHECK(!contains(run.html(), "<td>2 2 2</td>"));  // said in the figure's caption

  all.erase("joint");
  write(run.path / "bits.json", all.dump());
  CHECK(run.report().status == 0);
  CHECK(contains(run.html(), "<th>MPQCO bits</th>"));
  CHECK(!contains(run.html(), "Weight bits of each row"));
}

TEST_CASE("goshawk report: choices of bits within one budget, before and after fine-tuning") {
  const Run run;
  nlohmann::json all;
  for (const char* slug : {"hawq", "hawq-v2", "joint", "dnas-11.6"}) all[slug] = bits(slug, {4, 2, 8});
  all["dnas-11.6"]["budget_bytes"] = 400.0;  // another size
  all["hawq"]["layers"][1]["weight_bits"] = 3;
  write(run.path / "bits.json", all.dump());
  nlohmann::json result = table();
  nlohmann::json& rows = result["rows"];
  const auto add = [&](const char* slug, const char* name, double untuned, double accuracy,
                       double compression) {
    nlohmann::json row = rows[1];
    row["row"] = slug;
    row["name"] = name;
    row["untuned_accuracy"] = untuned;
    row["accuracy"] = accuracy;
    row["weight_compression"] = compression;
    rows.push_back(row);
  };
  add("hawq", "HAWQ", 70.25, 88.5, 13);
  add("dnas-11.6", "DNAS 11.6x", 80, 88.75, 11);
  write(run.path / "table.json", result.dump());
  CHECK(run.report().status == 0);
  const auto figure = [&] { return file_bytes(run.path / "figures" / "choices.svg"); };
  const std::string first = figure();
  CHECK(is_well_formed(first));
  CHECK(contains(first, "2 rows with bits for one size"));
  // The best before fine-tuning stands above.
  CHECK(first.find(">HAWQ<") < first.find(">HAWQ-V2<"));
  CHECK(!contains(first, "DNAS"));
  CHECK(!contains(first, "without quantization"));
  CHECK(contains(run.html(), "HAWQ&#10;before: 70.25 %&#10;after: 88.50 ± "));
  CHECK(contains(
      run.html(),
      "weights smaller by 13.00&#10;8 bits: c&lt;&amp;&quot;&#39;&gt;|*&#10;4 bits: a&#10;3 bits: b"));

  add("fine-tuned", "32/32 fine-tuned", 91.5, 92, 1);
  rows.back()["activation_compression"] = 1;
  write(run.path / "table.json", result.dump());
  CHECK(run.report().status == 0);
  CHECK(contains(figure(), ">32/32 fine-tuned<"));
  CHECK(contains(figure(), "without quantization"));

  fs::remove(run.path / "figures" / "choices.svg");
  rows.erase(2);  // HAWQ: one choice alone is not compared with anything
  write(run.path / "table.json", result.dump());
  CHECK(run.report().status == 0);
  CHECK(run.figures().count("choices.svg") == 0);
}

TEST_CASE("goshawk report stays small for a deep network with a long frontier") {
  const Run run;
  nlohmann::json layers = nlohmann::json::array(), points = nlohmann::json::array();
  constexpr int kLayers = 58, kPoints = 2000;
  for (int l = 0; l < kLayers; ++l) {
    layers.push_back({{"name", "layer" + std::to_string(l) + ".long.name"},
                      {"parameters", 1000},
                      {"choices", {{{"bits", 2}, {"bytes", 250}, {"cost", 1}}}}});
  }
  for (int p = 0; p < kPoints; ++p) {
    points.push_back(
        {{"bytes", 1000 + p}, {"omega", 1.0 / (p + 1)}, {"bits", std::vector<int>(kLayers, 2 + p % 3)}});
  }
  write(run.path / "costs-hawq.json", nlohmann::json{{"layers", layers}}.dump());
  for (const char* slug : {"hawq", "hawq-reversed-bits", "hawq-reversed-order"}) {
    points[0]["omega"] = std::string(slug).size();  // frontiers that are the same are shown once
    write(run.path / (std::string("pareto-") + slug + ".json"),
          nlohmann::json{{"costs", "hawq"}, {"points", points}}.dump());
  }
  CHECK(run.report().status == 0);
  CHECK(run.html().size() < 2'000'000);
  CHECK(contains(run.html(), "assignments (2000)"));
  CHECK(contains(run.html(), "One point in 24 is shown"));
}

TEST_CASE("goshawk report: what is wrong ends in one line and leaves no page") {
  const auto fails = [](const ProgramResult& result, int status, const std::string& part) {
    CHECK(result.status == status);
    CHECK_MESSAGE(is_one_line(result.err), result.err);
    CHECK_MESSAGE(contains(result.err, part), result.err);
  };
  const ScratchDirectory scratch;
  fails(run_built_program("goshawk", {"report"}), 2, "run");
  fails(run_built_program("goshawk", {"report", (scratch.path() / "none").string()}), 2,
        "there is no directory");
  fails(run_built_program("goshawk", {"report", scratch.path().string()}), 2, "holds no run");

  scratch.write("sensitivity/config.json", R"({"program": "goshawk sensitivity"})");
  scratch.write("sensitivity/sensitivity.json", R"({"model": "resnet20", "layers": []})");
  fails(run_built_program("goshawk", {"report", scratch / "sensitivity"}), 2,
        "its table is " + (scratch / "sensitivity/sensitivity.md"));

  const auto damaged = [&](const std::string& name, const std::string& text, const std::string& part) {
    const Run run;
    write(run.path / name, text);
    const ProgramResult result = run.report();
    fails(result, 1, part);
    fails(result, 1, name.substr(name.rfind('/') + 1));
    CHECK(!fs::exists(run.path / "report.html"));
  };
  damaged("table.json", R"({"model": "m", "rows": [)", "table.json");
  damaged("table.json", R"({"model": "m", "rows": [{"row": "hawq"}]})", "weight_bits");
  damaged("table.json", "[]", "object");
  damaged("config.json", "nothing", "config.json");
  damaged("sensitivity.json", "{}", "sensitivity.json");
  damaged("bits.json", R"({"hawq": {"format": "goshawk-bits-1"}})", "hawq");
  damaged("log.jsonl", "{\"row\": \"baseline\n{}\n", "line 1");
  damaged("log.jsonl", "{}\n{\"row\": \"baseline\", \"epoch\": \"x\"}\n", "line 2");
  damaged("costs-hawq.json", "{}", "layers");
  damaged("pareto-hawq.json", R"({"costs": "hawq-v2", "points": [{"bytes": 1, "omega": 1, "bits": [2]}]})",
          "different runs");
  damaged("pareto-hawq.json", R"({"costs": "hawq-v2", "points": [{"bytes": 1, "omega": 1, "bits": ["x"]}]})",
          "list of integers");
  damaged("order-hawq.json", R"({"stages": 1})", "stages");
  damaged("curvature/curvature.json", R"({"model": "m", "images": 8})", "loss");
  damaged("curvature/density-network.csv", "eigenvalue,density,standard_error\n1,2\n", "line 2");
  damaged("curvature/density-network.csv", "", "first line");
  damaged("curvature/landscape-plane.csv", "eigenvector,random,loss\n", "plane");
}
