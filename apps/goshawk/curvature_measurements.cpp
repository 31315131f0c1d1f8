#include "apps/goshawk/curvature_measurements.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "apps/goshawk/curvature_landscape.hpp"
#include "apps/goshawk/curvature_state.hpp"
#include "apps/support/progress.hpp"
#include "autograd/curvature/activation_hessian.hpp"
#include "autograd/curvature/gauss_newton.hpp"
#include "autograd/curvature/joined_operator.hpp"
#include "autograd/curvature/lanczos.hpp"
#include "autograd/curvature/road.hpp"
#include "nn/layers.hpp"

namespace goshawk {
namespace {

using Json = nlohmann::ordered_json;

/// The first random stream of a purpose; a part or a layer takes `kStreamsEach` of them.
enum class Purpose : std::uint64_t { trace = 1, eigenvalues, activations, fisher, fisher_eigenvalues };
constexpr std::uint64_t kStreamsEach = std::uint64_t{1} << 24;
std::uint64_t stream(Purpose purpose, std::uint64_t number = 0) {
  return (static_cast<std::uint64_t>(purpose) << 48) + number * kStreamsEach;
}

/// How far probing has come towards the wanted error, whose square falls with the number of probes.
void show(Progress& progress, std::span<const Estimate> estimates, double wanted) {
  double worst = 0;
  for (const Estimate& e : estimates) {
    if (e.standard_error > 0) worst = std::max(worst, e.standard_error / std::abs(e.value));
  }
  const double part = worst > wanted ? wanted / worst * (wanted / worst) : 1;
  progress.update(static_cast<std::int64_t>(part * 1000),
                  fmt::format("{} probes, largest error {:.1f} % (wanted {:.1f} %), first trace {:.4g}",
                              estimates.front().samples, 100 * worst, 100 * wanted, estimates.front().value));
}

Json per_parameter(const Json& trace, std::int64_t elements) {
  return trace.at("estimate").get<double>() / static_cast<double>(elements);
}

class Measurements {
 public:
  Measurements(const CurvatureOptions& options, const CurvatureProblem& problem, const RunDirectory& run)
      : options_(options), problem_(problem), run_(run), state_(run) {}

  Json all() {
    Json json{{"model", options_.model}, {"weights", options_.weights},       {"images", problem_.images()},
              {"seed", options_.seed},   {"parameters", options_.parameters}, {"loss", check_loss()}};
    choose();
    json["road"] = {{"taken", road_name(road_.road)}, {"why", road_.reason}};
    Json parts = Json::array();
    for (const Part& part : problem_.parts()) parts.push_back(describe(part));
    Json network = describe(problem_.network());
    network.erase("name");
    if (options_.wants("trace")) add_traces(parts, network);
    if (options_.wants("activations")) add_activations(parts);
    if (options_.wants("eigenvalues")) add_eigenvalues(parts);
    if (options_.wants("fisher")) add_fisher(parts, network);
    if (options_.per == "network") {
      parts[0].erase("name");
      network.update(parts[0]);
    } else {
      json[options_.per + "s"] = parts;
    }
    if (options_.wants("landscape")) network["landscape"] = landscape();
    // Over some of the groups only, the sums are not the network's.
    if (problem_.complete() || network.contains("landscape")) json["network"] = network;
    return json;
  }

 private:
  Json describe(const Part& part) const {
    Json json{{"name", part.name}, {"parameters", part.elements}};
    for (const std::size_t i : part.parameters) json["tensors"].push_back(problem_.parameters()[i].name);
    return json;
  }

  /// The mean loss, which also tells whether a resumed run has the weights and images that it began with.
  double check_loss() {
    const double loss = problem_.loss();
    check(std::isfinite(loss),
          "[curvature] the loss of {} on these images is {}: its outputs overflow; check that weights and "
          "normalisation belong together, or use --dtype f64",
          options_.weights, loss);
    const double before = state_.item("loss", [&] { return loss; });
    if (before != loss) {
      throw UsageError(fmt::format(
          "the run in {} was started at loss {} and now it is {}: weights or images have changed; "
          "give another --out",
          options_.out, before, loss));
    }
    return loss;
  }

  void choose() {
    const Road wanted = road_of(options_.road);
    const RecordingGuard on(true);
    const ClassifierGraph graph = problem_.pass()(0);
    natural_ = choose_road(graph);
    if (options_.parameters == "all") {
      if (wanted == Road::exact) {
        throw UsageError(
            "--road exact covers the weights of convolutions and linear layers; use --parameters weights or "
            "another --road");
      }
      natural_ = {Road::double_backward,
                  "biases and normalisation are asked for, and the exact road covers layers' weights only"};
    }
    road_ = wanted == Road::automatic ? natural_ : choose_road(graph, wanted);
  }
  bool exact() const { return road_.road == Road::exact; }

  HutchinsonOptions probing(std::uint64_t first_stream) const {
    HutchinsonOptions probing{
        .seed = options_.seed, .stream = first_stream, .relative_error = options_.error};
    probing.min_samples = 16;  // stopping on the spread of fewer makes intervals too short
    probing.max_samples = options_.max_samples;
    return probing;
  }

  // ── traces ──

  void add_traces(Json& parts, Json& network) {
    const Json item = exact() ? exact_item(OutputMetric::softmax_cross_entropy) : state_.item("trace", [&] {
      return probe_parts("trace",
                         std::make_shared<HessianOperator>(problem_.variables(problem_.network()),
                                                           problem_.sizes(), problem_.loss_of_microbatch()),
                         Purpose::trace);
    });
    for (Json& part : parts) {
      part["trace"] = item.at("parts").at(part.at("name"));
      part["mean_trace"] = per_parameter(part["trace"], part.at("parameters"));
    }
    network["trace"] = item.at("network");
    network["mean_trace"] = per_parameter(network["trace"], network.at("parameters"));
  }

  /// {"parts": {name: trace}, "network": trace} of diagonal blocks, from joint probes.
  Json probe_parts(const std::string& name, const std::shared_ptr<const LinearOperator>& whole,
                   Purpose purpose) {
    std::vector<std::vector<std::size_t>> groups;
    std::size_t next = 0;
    for (const Part& part : problem_.parts()) {
      groups.emplace_back(part.parameters.size());
      std::iota(groups.back().begin(), groups.back().end(), next);
      next += part.parameters.size();
    }
    const JoinedOperator joined(whole, groups);
    Progress progress(name, 1000);
    HutchinsonOptions options = probing(stream(purpose));
    options.progress = [&](const HutchinsonState& state, std::span<const Estimate> estimates) {
      show(progress, estimates, options_.error);
      state_.save_under_way(name, [&] { return to_json(state); });
      return true;
    };
    HutchinsonState state = hutchinson_state_from(state_.under_way(name));
    const std::vector<Estimate> traces = layer_traces(joined, options, &state);
    // The same samples, summed over the parts.
    options.max_samples = static_cast<int>(state.samples.size());
    const Estimate network = hutchinson(joined, options, &state);
    Json result;
    for (std::size_t p = 0; p < traces.size(); ++p) {
      result["parts"][problem_.parts()[p].name] = to_json(traces[p]);
    }
    result["network"] = to_json(network);
    return result;
  }

  /// {"parts": …, "network": …, "activations": {layer: {"elements", "trace"}}} on the exact road.
  Json exact_item(OutputMetric metric) {
    const bool hessian = metric == OutputMetric::softmax_cross_entropy;
    const std::string name = hessian ? "exact traces" : "fisher traces";
    return state_.item(name, [&] {
      Progress progress(name, static_cast<std::int64_t>(problem_.sizes().size()));
      ExactTraceOptions options{.metric = metric,
                                .weights = !hessian || options_.wants("trace"),
                                .activations = hessian && options_.wants("activations")};
      options.progress = [&](std::size_t done, std::size_t) {
        progress.update(static_cast<std::int64_t>(done));
        return true;
      };
      const ExactTraces traces = exact_traces(problem_.pass(), problem_.sizes(), options);
      Json result;
      if (options.weights) {
        for (const Part& part : problem_.parts()) result["parts"][part.name] = sum_of(traces, part);
        result["network"] = sum_of(traces, problem_.network());
      }
      for (const LayerTraces& layer : traces.layers) {
        if (!options.activations) break;
        result["activations"][layer.name] = {{"elements", layer.activation_elements},
                                             {"trace", to_json(layer.activation)}};
      }
      return result;
    });
  }

  /// The trace of a part from those of its layers, image by image.
  Json sum_of(const ExactTraces& traces, const Part& part) const {
    std::vector<double> per_image(static_cast<std::size_t>(problem_.images()));
    for (const std::size_t i : part.parameters) {
      const auto layer = std::find_if(traces.layers.begin(), traces.layers.end(), [&](const LayerTraces& l) {
        return l.name + ".weight" == problem_.parameters()[i].name;
      });
      check(layer != traces.layers.end(), "[curvature] the forward pass does not use {}; choose other layers",
            problem_.parameters()[i].name);
      for (std::size_t n = 0; n < per_image.size(); ++n) per_image[n] += layer->weight_per_image[n];
    }
    const Estimate over_images = estimate_mean(per_image);
    Estimate exact;
    exact.value = over_images.value;
    exact.samples = traces.directions;
    exact.converged = true;
    if (per_image.size() >= 2) exact.subset_error = over_images.standard_error;
    return to_json(exact);
  }

  void add_activations(Json& parts) {
    for (Json& part : parts) {
      const std::string name = part.at("name");
      const auto layers = weighted_layers(problem_.model());
      const auto layer =
          std::find_if(layers.begin(), layers.end(), [&](const auto& l) { return l.first == name; });
      if (layer == layers.end()) continue;  // normalisation
      Json item;
      if (exact()) {
        item = exact_item(OutputMetric::softmax_cross_entropy).at("activations").at(name);
      } else {
        const std::string key = "activations of " + name;
        item = state_.item(key, [&] {
          return probe_activations(key, name, static_cast<std::uint64_t>(layer - layers.begin()));
        });
      }
      item["mean_trace"] = per_parameter(item.at("trace"), item.at("elements"));
      part["activations"] = item;
    }
  }

  Json probe_activations(const std::string& key, const std::string& layer, std::uint64_t number) {
    const ActivationHessian hessian(layer, problem_.sizes(), problem_.pass());
    Progress progress(key, 1000);
    HutchinsonOptions options = probing(stream(Purpose::activations, number));
    options.progress = [&](const HutchinsonState& state, std::span<const Estimate> estimates) {
      show(progress, estimates, options_.error);
      state_.save_under_way(key, [&] { return to_json(state); });
      return true;
    };
    HutchinsonState state = hutchinson_state_from(state_.under_way(key));
    const Estimate trace = hutchinson(hessian, options, &state);
    return {{"elements", hessian.size() / problem_.images()}, {"trace", to_json(trace)}};
  }

  // ── eigenvalues ──

  void add_eigenvalues(Json& parts) {
    Progress progress("eigenvalues", static_cast<std::int64_t>(parts.size()));
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const Part& part = problem_.parts()[p];
      const Json item = state_.item("eigenvalues of " + part.name, [&]() -> Json {
        // One layer's weight, in which the logits are piecewise linear.
        const bool gauss_newton = part.parameters.size() == 1 && natural_.road == Road::exact;
        Json found;
        if (gauss_newton && exact()) {
          const GaussNewtonOperator a(problem_.variables(part), problem_.sizes(), problem_.pass());
          found = extremes(a, part, 0, Purpose::eigenvalues, progress, p);
        } else {
          const HessianOperator a(problem_.variables(part), problem_.sizes(), problem_.loss_of_microbatch());
          found = extremes(a, part, gauss_newton ? 0 : options_.bottom, Purpose::eigenvalues, progress, p);
        }
        found["semidefinite"] = gauss_newton;
        return found;
      });
      parts[p].update(item);
      progress.update(static_cast<std::int64_t>(p) + 1);
    }
  }

  /// {"top_eigenvalues": […], "bottom_eigenvalues": […], "eigenvalues": how they were found}.
  Json extremes(const LinearOperator& a, const Part& part, int bottom, Purpose purpose, Progress& progress,
                std::size_t done) const {
    const auto at_most = [&](int wanted) {
      return static_cast<int>(std::min<std::int64_t>(wanted, part.elements));
    };
    LanczosOptions lanczos_options{.largest = at_most(options_.top), .smallest = at_most(bottom)};
    lanczos_options.max_products = options_.max_products;
    lanczos_options.seed = options_.seed;
    lanczos_options.stream = stream(purpose, part.number);
    lanczos_options.progress = [&](const LanczosState& state, std::span<const RitzValue> largest,
                                   std::span<const RitzValue>) {
      if (!largest.empty()) {
        progress.update(
            static_cast<std::int64_t>(done),
            fmt::format("{}: {:.4g} after {} products", part.name, largest.front().value, state.products));
      }
      return true;
    };
    const LanczosResult found = lanczos(a, lanczos_options);
    Json json;
    const auto list = [&](const std::vector<Eigenpair>& pairs, const std::string& key) {
      json[key] = Json::array();
      for (const Eigenpair& pair : pairs) json[key].push_back(pair.value);
    };
    list(found.largest, "top_eigenvalues");
    if (bottom > 0) list(found.smallest, "bottom_eigenvalues");
    Json& how = json["eigenvalues"];
    how = {{"residuals", Json::array()},
           {"image_errors", image_errors(a, found)},
           {"products", found.products},
           {"converged", found.converged}};
    for (const std::vector<Eigenpair>* pairs : {&found.largest, &found.smallest}) {
      for (const Eigenpair& pair : *pairs) how["residuals"].push_back(pair.residual);
    }
    return json;
  }

  /// To first order an eigenvalue changes by vᵀ (A_b − A) v when a subset of the images takes the place of
  /// all.
  static Json image_errors(const LinearOperator& a, const LanczosResult& found) {
    std::vector<Vector> vectors;
    for (const std::vector<Eigenpair>* pairs : {&found.largest, &found.smallest}) {
      for (const Eigenpair& pair : *pairs) vectors.push_back(pair.vector);
    }
    Json errors = Json::array();
    for (const QuadraticForms& forms : a.quadratic_forms(vectors)) {
      std::vector<double> values;
      for (const std::vector<double>& blocks : forms.subsets) {
        values.push_back(std::accumulate(blocks.begin(), blocks.end(), 0.0));
      }
      errors.push_back(subset_error(a.subset_weights(), values));
    }
    return errors;
  }

  // ── Fisher ──

  void add_fisher(Json& parts, Json& network) {
    const auto fisher = [&](const Part& part) {
      return GaussNewtonOperator(problem_.variables(part), problem_.sizes(), problem_.pass(),
                                 OutputMetric::empirical_fisher);
    };
    const Json traces =
        exact() ? exact_item(OutputMetric::empirical_fisher) : state_.item("fisher traces", [&] {
          return probe_parts("fisher traces",
                             std::make_shared<GaussNewtonOperator>(fisher(problem_.network())),
                             Purpose::fisher);
        });
    network["fisher"]["trace"] = traces.at("network");
    Progress progress("fisher eigenvalues", static_cast<std::int64_t>(parts.size()));
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const Part& part = problem_.parts()[p];
      Json& json = parts[p]["fisher"];
      json["trace"] = traces.at("parts").at(part.name);
      json["mean_trace"] = per_parameter(json["trace"], part.elements);
      json.update(state_.item("fisher eigenvalues of " + part.name, [&] {
        return extremes(fisher(part), part, 0, Purpose::fisher_eigenvalues, progress, p);
      }));
      progress.update(static_cast<std::int64_t>(p) + 1);
    }
  }

  Json landscape() {
    return state_.item("landscape", [&] { return measure_landscape(options_, problem_, run_); });
  }

  const CurvatureOptions& options_;
  const CurvatureProblem& problem_;
  const RunDirectory& run_;
  CurvatureState state_;
  RoadChoice natural_;  // what the model qualifies for
  RoadChoice road_;     // what is taken
};

}  // namespace

Json measure_curvature(const CurvatureOptions& options, const CurvatureProblem& problem,
                       const RunDirectory& run) {
  return Measurements(options, problem, run).all();
}

}  // namespace goshawk
