#include "apps/report/run.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <sstream>

#include "apps/reproduce_cifar/rows.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/json.hpp"

namespace goshawk {
namespace {

namespace fs = std::filesystem;

/// Sizes at which the best assignment of one model is looked for.
constexpr int kFrontierSizes = 100;
constexpr const char* kRunDirectories =
    "a directory that reproduce_cifar, predict_loss or goshawk train, finetune, quantize or curvature wrote";

const Row* known_row(std::string_view slug) {
  const auto it =
      std::find_if(rows().begin(), rows().end(), [&](const Row& row) { return row.slug == slug; });
  return it == rows().end() ? nullptr : &*it;
}

class Reader {
 public:
  explicit Reader(const std::string& path) { run_.path = path; }

  ReportRun read() {
    read_config();
    read_table();
    read_log();
    read_layers();
    read_named("costs-", [&](const std::string& name, const std::string& file) {
      run_.costs.emplace(name, read_costs(file));
    });
    read_named("pareto-",
               [&](const std::string& name, const std::string& file) { read_frontier(name, file); });
    read_named("order-", [&](const std::string& name, const std::string& file) { read_order(name, file); });
    if (run_.one_model) read_one_model();
    read_curvature();
    if (has("predictions.json")) run_.predictions = read_predictions(read_object("predictions.json"));
    if (run_.one_model || run_.is_prediction_run()) read_model_and_data();
    if (found_ == 0) {
      throw UsageError(fmt::format(
          "{} holds no run: none of config.json, table.json, result.json, log.jsonl, sensitivity.json, "
          "bits.json, costs.json, curvature.json and predictions.json is in it; give {}",
          run_.path, kRunDirectories));
    }
    name_what_is_missing();
    return std::move(run_);
  }

 private:
  std::string file(const std::string& name) const { return (fs::path(run_.path) / name).string(); }
  bool has(const std::string& name) {
    const bool there = fs::exists(file(name));
    found_ += there ? 1 : 0;
    return there;
  }

  // f(NAME, file) for each PREFIXNAME.json, in the order of the table's rows and then of the alphabet.
  template <class F>
  void read_named(const std::string& prefix, F f) {
    std::vector<std::string> names;
    for (const fs::directory_entry& entry : fs::directory_iterator(run_.path)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with(prefix) && name.ends_with(".json")) {
        names.push_back(name.substr(prefix.size(), name.size() - prefix.size() - 5));
      }
    }
    const auto place = [](const std::string& name) {
      const Row* row = known_row(name);
      return row == nullptr ? static_cast<std::ptrdiff_t>(rows().size()) : row - rows().data();
    };
    std::sort(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
      return std::pair(place(a), a) < std::pair(place(b), b);
    });
    for (const std::string& name : names) f(name, file(prefix + name + ".json"));
  }

  void read_config() {
    if (has("config.json")) {
      const JsonObject config = JsonObject::parse(read_file(file("config.json")), file("config.json"));
      run_.config = config.json();
      if (config.has("program")) run_.program = config.string("program");
      if (run_.program == "goshawk sensitivity") {
        throw UsageError(
            fmt::format("{} is a run of goshawk sensitivity, of which there is no report; its table is {}",
                        run_.path, file("sensitivity.md")));
      }
      for (const char* name : {"train", "finetune", "quantize"}) {
        run_.one_model = run_.one_model || run_.program == std::string("goshawk ") + name;
      }
    } else {
      run_.one_model = fs::exists(file("result.json")) || fs::exists(file("costs.json"));
    }
  }

  // ── one model: result.json, baseline.json, costs.json ──

  void read_one_model() {
    if (has("costs.json")) {
      run_.model_costs = run_.config.is_object() && run_.config.contains("cost")
                             ? JsonObject::parse(run_.config.dump(), file("config.json")).string("cost")
                             : "costs.json";
      run_.costs.emplace(run_.model_costs, read_costs(file("costs.json")));
      add_model_frontier(run_.costs.at(run_.model_costs));
    }
    if (has("baseline.json")) add_evaluation(kBaselineJob, "Full precision", read_object("baseline.json"));
    if (has("result.json")) {
      const JsonObject result = read_object("result.json");
      if (result.has("packed_bytes")) {
        add_quantized(result);
      } else {
        add_evaluation(kBaselineJob, "Full precision", result);
      }
    }
    // goshawk train makes what is a baseline for everything else.
    for (ReportEpoch& epoch : run_.epochs) {
      if (epoch.job == "train") epoch.job = kBaselineJob;
    }
  }

  // Of the configuration, where the results do not say.
  void read_model_and_data() {
    if (run_.predictions) run_.model = run_.predictions->model;
    if (!run_.config.is_object()) return;
    const JsonObject config = JsonObject::parse(run_.config.dump(), file("config.json"));
    if (config.has("model")) run_.model = config.string("model");
    const bool synthetic = config.has("synthetic") && config.boolean("synthetic");
    if (synthetic) run_.data = "synthetic pictures";
    if (!synthetic && config.has("data")) run_.data = without_directories(config.string("data"));
  }

  void add_model_frontier(const Costs& costs) {
    ReportFrontier frontier{.slug = kModelJob,
                            .quantity = costs.pairs.empty() ? "cost" : "sum of the layers' own costs",
                            .layers = layer_names(run_.model_costs)};
    if (const auto it = run_.bits.find(kModelJob); it != run_.bits.end()) {
      frontier.taken = assignment_point(costs, it->second);
    }
    // The exact optimum of a budget is that of its own size too, so it is among the points.
    std::vector<double> sizes;
    if (frontier.taken) sizes.push_back(frontier.taken->bytes);
    frontier.points = exact_frontier(costs, kFrontierSizes, sizes);
    if (frontier.points.size() > 1) run_.frontiers.push_back(std::move(frontier));
  }

  // Nothing when the costs are of other layers or widths.
  static std::optional<FrontierPoint> assignment_point(const Costs& costs, const BitAssignment& bits) {
    FrontierPoint point;
    for (const LayerCosts& layer : costs.layers) {
      const auto same_name = [&](const LayerBits& l) { return l.name == layer.name; };
      const auto given = std::find_if(bits.layers.begin(), bits.layers.end(), same_name);
      if (given == bits.layers.end()) return std::nullopt;
      const auto same_width = [&](const CostChoice& c) { return c.bits == given->weight; };
      const auto choice = std::find_if(layer.choices.begin(), layer.choices.end(), same_width);
      if (choice == layer.choices.end()) return std::nullopt;
      point.bytes += choice->bytes;
      point.objective += choice->cost;
      point.bits.push_back(choice->bits);
    }
    return point;
  }

  JsonObject read_object(const std::string& name) const {
    return JsonObject::parse(read_file(file(name)), file(name));
  }

  ReportRow& add_evaluation(const char* slug, const char* name, const JsonObject& evaluation) {
    return run_.rows.emplace_back(ReportRow{.slug = slug,
                                            .name = name,
                                            .weight_bits = "32",
                                            .activation_bits = "32",
                                            .accuracy = 100 * evaluation.number("accuracy", 0, 1),
                                            .images = evaluation.integer("images"),
                                            .loss = evaluation.number("loss")});
  }

  void add_quantized(const JsonObject& result) {
    ReportRow& row = add_evaluation(kModelJob, "Quantized", result);
    row.weight_compression = result.number("weight_compression");
    row.activation_compression = result.number("activation_compression");
    row.packed = packed_size(result.object("packed_bytes"));
    if (result.has("untuned")) row.untuned = 100 * result.object("untuned").number("accuracy", 0, 1);
    if (const auto it = run_.bits.find(kModelJob); it != run_.bits.end()) {
      row.weight_bits = widths_text(it->second, &LayerBits::weight);
      row.activation_bits = widths_text(it->second, &LayerBits::activation);
    } else {
      row.weight_bits = row.activation_bits = "?";
    }
    if (const ReportRow* baseline = run_.baseline()) row.drop = baseline->accuracy - row.accuracy;
  }

  // "4", or "2–8" when the layers have different widths.
  static std::string widths_text(const BitAssignment& bits, int LayerBits::*width) {
    const auto [least, most] =
        std::minmax_element(bits.layers.begin(), bits.layers.end(),
                            [width](const LayerBits& a, const LayerBits& b) { return a.*width < b.*width; });
    if (least == bits.layers.end()) return "?";
    if ((*least).*width == (*most).*width) return std::to_string((*least).*width);
    return fmt::format("{}–{}", (*least).*width, (*most).*width);
  }

  void read_table() {
    if (!has("table.json")) return;
    const JsonObject table = JsonObject::parse(read_file(file("table.json")), file("table.json"));
    run_.model = table.string("model");
    run_.data = table.has("data") ? table.string("data") : "";
    for (const JsonObject& line : table.objects("rows")) run_.rows.push_back(table_row(line));
    const ReportRow* baseline = run_.baseline();
    for (ReportRow& row : run_.rows) {
      if (!row.drop && baseline != nullptr) row.drop = baseline->accuracy - row.accuracy;
    }
  }

  static PackedSize packed_size(const JsonObject& size) {
    return {.codes = size.integer("codes"),
            .scales = size.integer("scales"),
            .ranges = size.integer("ranges"),
            .full_weights = size.integer("full_weights"),
            .other = size.integer("other"),
            .header = size.integer("header")};
  }

  static ReportRow table_row(const JsonObject& line) {
    ReportRow row{.slug = line.string("row"),
                  .name = line.has("name") ? line.string("name") : job_title(line.string("row")),
                  .weight_bits = line.string("weight_bits"),
                  .activation_bits = line.string("activation_bits"),
                  .accuracy = line.number("accuracy", 0, 100)};
    if (line.has("standard_deviation")) row.deviation = line.number("standard_deviation");
    if (line.has("images")) row.images = line.integer("images");
    if (line.has("seeds")) row.seeds = std::max<std::size_t>(1, line.objects("seeds").size());
    if (line.has("untuned_accuracy")) row.untuned = line.number("untuned_accuracy", 0, 100);
    if (line.has("drop")) row.drop = line.number("drop");
    row.weight_compression = line.number("weight_compression");
    row.activation_compression = line.number("activation_compression");
    if (line.has("packed_bytes")) {
      const PackedSize packed = packed_size(line.object("packed_bytes"));
      if (packed.total() > 0) row.packed = packed;
    }
    if (line.has("paper")) {
      const JsonObject paper = line.object("paper");
      row.paper = {paper.number("accuracy"), paper.number("drop"), paper.number("weight_compression"),
                   paper.number("activation_compression")};
    } else if (const Row* known = known_row(row.slug);
               known != nullptr && known->paper && !line.has("name")) {
      row.paper = {known->paper->accuracy, baseline_row().paper->accuracy - known->paper->accuracy,
                   known->paper->weight_compression, known->paper->activation_compression};
    }
    return row;
  }

  void read_log() {
    if (!has("log.jsonl")) return;
    const std::string source = file("log.jsonl"), text = read_file(source);
    std::istringstream lines(text);
    std::int64_t number = 0;
    for (std::string line; std::getline(lines, line);) {
      const std::string where = fmt::format("{}, line {}", source, ++number);
      // A run that is being written, or was killed, may end in half a line.
      if (lines.eof() && nlohmann::json::parse(line, nullptr, false).is_discarded()) break;
      if (line.empty()) continue;
      const JsonObject entry = JsonObject::parse(line, where);
      if (!entry.has("row") || !entry.has("epoch")) continue;
      const auto real = [&](const char* key) {
        return entry.has(key) && entry.json().at(key).is_null() ? NAN : entry.number(key);
      };
      run_.epochs.push_back({entry.string("row"), entry.has("stage") ? entry.integer("stage") : 0,
                             entry.integer("epoch"), real("lr"), real("train_loss"), real("train_accuracy"),
                             real("test_loss"), real("test_accuracy")});
    }
  }

  void read_layers() {
    if (has("sensitivity.json")) run_.sensitivity = read_sensitivity(file("sensitivity.json"));
    if (!has("bits.json")) return;
    const std::string source = file("bits.json");
    if (run_.one_model) {
      run_.bits.emplace(kModelJob, read_bits(source));
      return;
    }
    const nlohmann::json all = JsonObject::parse(read_file(source), source).json();
    for (const auto& [slug, bits] : all.items()) {
      run_.bits.emplace(slug, bits_from_json(bits.dump(), fmt::format("{}: {}", source, printable(slug))));
    }
  }

  // The layers' names in the order of the costs, from whatever file has them.
  std::vector<std::string> layer_names(const std::string& costs) const {
    std::vector<std::string> names;
    if (const auto it = run_.costs.find(costs); it != run_.costs.end()) {
      for (const LayerCosts& layer : it->second.layers) names.push_back(layer.name);
    } else if (run_.sensitivity) {
      for (const LayerSensitivity& layer : run_.sensitivity->layers) names.push_back(layer.name);
    } else if (!run_.bits.empty()) {
      for (const LayerBits& layer : run_.bits.begin()->second.layers) names.push_back(layer.name);
    }
    return names;
  }

  void read_frontier(const std::string& slug, const std::string& source) {
    const JsonObject json = JsonObject::parse(read_file(source), source);
    ReportFrontier frontier{.slug = slug};
    std::vector<std::int64_t> widths;
    // Earlier versions wrote how many layers have each width, in the order of their sensitivities.
    const bool counted = json.has("order");
    frontier.layers = counted ? json.strings("order") : layer_names(json.string("costs"));
    if (counted) widths = integers(json, "widths");
    for (const JsonObject& entry : json.objects("points")) {
      FrontierPoint point{.bytes = entry.number("bytes"), .objective = entry.number("omega")};
      const std::vector<std::int64_t> numbers = integers(entry, counted ? "layers_per_width" : "bits");
      if (counted) {
        check(numbers.size() == widths.size(), "[report] {}: layers_per_width has {} numbers for {} widths",
              entry.where(), numbers.size(), widths.size());
        for (std::size_t k = 0; k < widths.size(); ++k) {
          const auto count = static_cast<std::size_t>(std::clamp<std::int64_t>(
              numbers[k], 0, static_cast<std::int64_t>(frontier.layers.size() - point.bits.size())));
          point.bits.insert(point.bits.end(), count, static_cast<int>(widths[k]));
        }
      } else {
        for (const std::int64_t bits : numbers) point.bits.push_back(static_cast<int>(bits));
      }
      check(frontier.layers.empty() || point.bits.size() == frontier.layers.size(),
            "[report] {}: bits for {} layers, and the run has {}; the files are of different runs",
            entry.where(), point.bits.size(), frontier.layers.size());
      frontier.points.push_back(std::move(point));
    }
    if (counted) put_in_network_order(frontier);
    if (!frontier.points.empty()) run_.frontiers.push_back(std::move(frontier));
  }

  // Stays as it is when the network's order is unknown.
  void put_in_network_order(ReportFrontier& frontier) const {
    const std::vector<std::string> network = layer_names("");
    if (!std::is_permutation(network.begin(), network.end(), frontier.layers.begin(),
                             frontier.layers.end())) {
      return;
    }
    for (FrontierPoint& point : frontier.points) {
      std::vector<int> bits;
      for (const std::string& name : network) {
        const auto at = std::find(frontier.layers.begin(), frontier.layers.end(), name);
        bits.push_back(point.bits[static_cast<std::size_t>(at - frontier.layers.begin())]);
      }
      point.bits = std::move(bits);
    }
    frontier.layers = network;
  }

  static std::vector<std::int64_t> integers(const JsonObject& json, const char* key) {
    const auto fits = [](const nlohmann::json& value) {
      return value.is_number_integer() && value >= 0 && value <= 1'000'000'000;
    };
    const bool list = json.has(key) && json.json().at(key).is_array();
    check(list && std::all_of(json.json().at(key).begin(), json.json().at(key).end(), fits),
          "[report] {}: \"{}\" must be a list of integers", json.where(), key);
    return json.json().at(key).get<std::vector<std::int64_t>>();
  }

  void read_order(const std::string& job, const std::string& source) {
    const JsonObject json = JsonObject::parse(read_file(source), source);
    ReportStages& stages = run_.orders[job];
    for (const JsonObject& stage : json.objects("stages")) stages.push_back(stage.strings("layers"));
  }

  void read_curvature() {
    // goshawk curvature has a config.json of its own and wants a directory of its own: one within the run.
    for (const char* directory : {"", "curvature"}) {
      const fs::path path = fs::path(run_.path) / directory;
      const std::string source = (path / "curvature.json").string();
      if (!fs::exists(source)) continue;
      ++found_;
      run_.curvature = JsonObject::parse(read_file(source), source);
      run_.curvature_path = path.string();
      if (run_.model.empty()) run_.model = run_.curvature->string("model");
      return;
    }
  }

  void name_what_is_missing() {
    const auto say = [&](bool there, const char* text) {
      if (!there) run_.missing.emplace_back(text);
    };
    say(!run_.config.is_null(), "config.json: how the run was made is unknown.");
    if (run_.one_model) {
      name_what_one_model_misses();
    } else if (run_.is_prediction_run()) {
      say(run_.predictions.has_value(),
          "predictions.json: the run is not finished. The same command with --resume goes on with it.");
    } else if (!run_.is_curvature_run()) {
      say(!run_.rows.empty(), "table.json: no row is finished, so there is no table and no comparison.");
      const bool packed =
          std::any_of(run_.rows.begin(), run_.rows.end(), [](const auto& r) { return r.packed; });
      say(run_.rows.empty() || packed,
          "packed_bytes in table.json: sizes are those of the weights' bits alone.");
      say(!run_.epochs.empty(), "log.jsonl: no training curves.");
      say(run_.sensitivity.has_value(), "sensitivity.json: no traces, eigenvalues and quantization noise.");
      say(!run_.bits.empty(), "bits.json: no layer's bits are known.");
      say(!run_.costs.empty(), run_.sensitivity
                                   ? "costs-*.json: Ω is made of sensitivity.json, for HAWQ and HAWQ-V2 only."
                                   : "costs-*.json: no Ω of the layers.");
      say(!run_.frontiers.empty(), "pareto-*.json: no Pareto frontier.");
      say(run_.curvature.has_value(),
          "curvature.json: no spectral density and no loss landscape. goshawk curvature --what "
          "eigenvalues,trace,density,landscape with --out RUN/curvature makes it.");
    }
    if (!run_.curvature) return;
    const std::vector<JsonObject> parts = curvature_parts(run_);
    const auto measured = [&](const char* key) {
      return std::any_of(parts.begin(), parts.end(), [&](const JsonObject& part) { return part.has(key); });
    };
    say(measured("density"),
        "density in curvature.json: no spectral density; goshawk curvature --what density measures it.");
    say(measured("landscape"),
        "landscape in curvature.json: no loss landscape; goshawk curvature --what landscape measures it.");
  }

  void name_what_one_model_misses() {
    const bool trains = run_.program == "goshawk train", quantizes = run_.program == "goshawk quantize";
    const bool finished = run_.row(trains ? kBaselineJob : kModelJob) != nullptr;
    if (!finished) {
      run_.missing.emplace_back(
          "result.json: the run is not finished. The same command with --resume goes on with it.");
    }
    if (quantizes && run_.costs.empty()) run_.missing.emplace_back("costs.json: no costs of the layers.");
    if (!trains && run_.bits.empty()) run_.missing.emplace_back("bits.json: no layer's bits are known.");
    const bool untrained = run_.config.is_object() && run_.config.value("epochs", Json()) == 0;
    if (run_.epochs.empty() && !untrained) run_.missing.emplace_back("log.jsonl: no training curves.");
  }

  using Json = nlohmann::json;
  ReportRun run_;
  int found_ = 0;
};

}  // namespace

double ReportRow::spread() const {
  if (images == 0) return deviation;
  const double p = accuracy / 100;
  return std::hypot(deviation, 100 * std::sqrt(p * (1 - p) / static_cast<double>(images)));
}

const ReportRow* ReportRun::row(std::string_view slug) const {
  const auto it = std::find_if(rows.begin(), rows.end(), [&](const ReportRow& r) { return r.slug == slug; });
  return it == rows.end() ? nullptr : &*it;
}

std::string ReportRun::costs_of(const std::string& slug) const {
  if (one_model) return slug == kModelJob ? model_costs : "";
  const Row* row = known_row(slug);
  return row == nullptr ? "" : row->costs;
}

std::string job_title(const std::string& job) {
  const std::size_t at = job.rfind("-seed");
  const std::string slug = job.substr(0, at);
  if (job == kModelJob) return "the quantized model";
  if (const Row* row = known_row(job)) return row->name;
  if (const Row* row = known_row(slug); row != nullptr && at != std::string::npos) {
    return fmt::format("{}, seed {}", row->name, job.substr(at + 5));
  }
  return job;
}

std::string without_directories(const std::string& path) {
  if (!path.starts_with('/')) return path;
  fs::path normal = fs::path(path).lexically_normal();
  if (!normal.has_filename()) normal = normal.parent_path();
  return normal.has_filename() ? normal.filename().string() : path;
}

ReportRun read_report_run(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    throw UsageError(fmt::format("there is no directory {}; give {}", path, kRunDirectories));
  }
  return Reader(path).read();
}

std::vector<JsonObject> curvature_parts(const ReportRun& run) {
  std::vector<JsonObject> parts;
  if (!run.curvature) return parts;
  for (const char* key : {"layers", "blocks"}) {
    if (!run.curvature->has(key)) continue;
    for (const JsonObject& part : run.curvature->objects(key)) parts.push_back(part);
  }
  if (run.curvature->has("network")) parts.push_back(run.curvature->object("network"));
  return parts;
}

}  // namespace goshawk
