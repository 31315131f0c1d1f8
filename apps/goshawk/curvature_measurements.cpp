#include "apps/goshawk/curvature_measurements.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "apps/goshawk/curvature_landscape.hpp"
#include "apps/goshawk/curvature_state.hpp"
#include "apps/support/progress.hpp"
#include "autograd/curvature/activation_hessian.hpp"
#include "autograd/curvature/gauss_newton.hpp"
#include "autograd/curvature/joined_operator.hpp"
#include "autograd/curvature/lanczos.hpp"
#include "autograd/curvature/road.hpp"
#include "autograd/curvature/spectral_density.hpp"
#include "core/file.hpp"
#include "nn/layers.hpp"

namespace goshawk {
namespace {

using Json = nlohmann::ordered_json;

/// Stopping on the spread of fewer probes makes intervals too short.
constexpr int kMinSamples = 16;

/// The first random stream of a purpose; a part or a layer takes `kStreamsEach` of them.
enum class Purpose : std::uint64_t {
  trace = 1,
  eigenvalues,
  activations,
  fisher,
  fisher_eigenvalues,
  density,
  directions
};
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
    if (options_.wants("trace")) add_traces(parts, network, json["road"]);
    if (options_.wants("activations")) add_activations(parts);
    if (options_.wants("eigenvalues")) add_eigenvalues(parts);
    if (options_.wants("density")) add_densities(parts);
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
    probing.min_samples = kMinSamples;
    probing.max_samples = options_.max_samples;
    return probing;
  }

  // ── traces ──

  void add_traces(Json& parts, Json& network, Json& road) {
    const Json item = exact() ? exact_item(OutputMetric::softmax_cross_entropy) : state_.item("traces", [&] {
      return probe_parts("traces", Purpose::trace, [&](const Part& part) { return problem_.hessian(part); });
    });
    for (Json& part : parts) {
      part["trace"] = item.at("parts").at(part.at("name"));
      part["mean_trace"] = per_parameter(part["trace"], part.at("parameters"));
    }
    network["trace"] = item.at("network");
    network["mean_trace"] = per_parameter(network["trace"], network.at("parameters"));
    if (item.contains("probes")) road["probes"] = item.at("probes");
  }

  /// {"parts": {name: trace}, "network": trace, "probes": {"scheme", "why"}} of the diagonal blocks of an
  /// operator that `make` gives for any part.
  template <class Make>
  Json probe_parts(const std::string& name, Purpose purpose, const Make& make) {
    // The whole with a block for each part, and the parts with one block.
    std::vector<std::vector<std::size_t>> groups;
    std::size_t next = 0;
    for (const Part& part : problem_.parts()) {
      groups.push_back(range(next, part.parameters.size()));
      next += part.parameters.size();
    }
    const auto all = std::shared_ptr(make(problem_.network()));
    const JoinedOperator whole(all, groups);
    const BlockOperator block = [&](std::size_t p) -> std::unique_ptr<const LinearOperator> {
      all->release_graphs();  // they will not be needed for now, and the block has its own
      const Part& part = problem_.parts()[p];
      return std::make_unique<JoinedOperator>(
          std::shared_ptr(make(part)),
          std::vector<std::vector<std::size_t>>(1, range(0, part.parameters.size())));
    };
    Progress progress(name, 1000);
    BlockTraceOptions options{.seed = options_.seed,
                              .stream = stream(purpose),
                              .relative_error = options_.error,
                              .min_samples = kMinSamples,
                              .max_samples = options_.max_samples,
                              .pilot = kMinSamples};
    options.progress = [&](const BlockTraceState& state, std::span<const Estimate> estimates) {
      show(progress, estimates, options_.error);
      state_.save_under_way(name, [&] { return checkpoint(state); });
      return true;
    };
    BlockTraceState state = block_trace_state_from(state_.under_way(name));
    const BlockTraces traces = block_traces(whole, block, options, &state);
    const bool joint = traces.scheme == ProbeScheme::joint;
    Json result;
    for (std::size_t p = 0; p < traces.traces.size(); ++p) {
      result["parts"][problem_.parts()[p].name] = to_json(traces.traces[p]);
    }
    result["network"] = to_json(joint ? joint_sum(whole, state) : separate_sum(whole, state, traces.traces));
    result["probes"] = {{"scheme", joint ? "joint" : "for each part"}, {"why", traces.reason}};
    return result;
  }

  static std::vector<std::size_t> range(std::size_t begin, std::size_t count) {
    std::vector<std::size_t> indices(count);
    std::iota(indices.begin(), indices.end(), begin);
    return indices;
  }

  /// The trace of everything from probes over everything.
  Estimate joint_sum(const LinearOperator& whole, BlockTraceState& state) const {
    HutchinsonOptions options = probing(state.joint.stream);
    options.max_samples = static_cast<int>(state.joint.samples.size());  // draws no more
    return hutchinson(whole, options, &state.joint);
  }

  /// The same from independent estimates of the parts.
  Estimate separate_sum(const LinearOperator& whole, const BlockTraceState& state,
                        const std::vector<Estimate>& traces) const {
    Estimate sum;
    sum.samples = traces.front().samples;
    std::vector<double> subsets(whole.subset_weights().size());
    double variance = 0;
    for (std::size_t p = 0; p < traces.size(); ++p) {
      sum.value += traces[p].value;
      variance += traces[p].standard_error * traces[p].standard_error;
      sum.samples = std::min(sum.samples, traces[p].samples);
      for (std::size_t b = 0; b < subsets.size(); ++b) {
        subsets[b] += state.blocks[p].subset_sums[b][0] / static_cast<double>(traces[p].samples);
      }
    }
    sum.standard_error = std::sqrt(variance);
    sum.converged = sum.standard_error <= options_.error * std::abs(sum.value);
    const Json image_error = subset_error(whole.subset_weights(), subsets);
    if (!image_error.is_null()) sum.subset_error = image_error.get<double>();
    return sum;
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
      if (hessian) options.samples = directions();
      options.seed = options_.seed;
      options.stream = stream(Purpose::directions);
      ExactTraceState state = exact_trace_state_from(state_.under_way(name));
      options.progress = [&](std::size_t done, std::size_t) {
        progress.update(static_cast<std::int64_t>(done));
        state_.save_under_way(name, [&] { return checkpoint(state); });
        return true;
      };
      const ExactTraces traces = exact_traces(problem_.pass(), problem_.sizes(), options, &state);
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

  /// Random directions per image; 0 for the exact sum, which takes a pass for each class but one.
  int directions() const {
    if (options_.directions >= 0) return options_.directions;
    constexpr std::int64_t kManyClasses = 128;
    constexpr int kRandom = 32;
    return problem_.classes() > kManyClasses ? kRandom : 0;
  }

  /// The trace of a part from those of its layers, image by image.
  Json sum_of(const ExactTraces& traces, const Part& part) const {
    std::vector<double> per_image(static_cast<std::size_t>(problem_.images()));
    double standard_error = 0;  // layers share their random directions, so errors may all go the same way
    for (const std::size_t i : part.parameters) {
      const auto layer = std::find_if(traces.layers.begin(), traces.layers.end(), [&](const LayerTraces& l) {
        return l.name + ".weight" == problem_.parameters()[i].name;
      });
      check(layer != traces.layers.end(), "[curvature] the forward pass does not use {}; choose other layers",
            problem_.parameters()[i].name);
      for (std::size_t n = 0; n < per_image.size(); ++n) per_image[n] += layer->weight_per_image[n];
      standard_error += layer->weight.standard_error;
    }
    const Estimate over_images = estimate_mean(per_image);
    Estimate exact;
    exact.value = over_images.value;
    exact.standard_error = standard_error;
    exact.samples = traces.directions;
    exact.converged = standard_error <= options_.error * std::abs(exact.value);
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
      state_.save_under_way(key, [&] { return checkpoint(state); });
      return true;
    };
    HutchinsonState state = hutchinson_state_from(state_.under_way(key));
    const Estimate trace = hutchinson(hessian, options, &state);
    return {{"elements", hessian.size() / problem_.images()}, {"trace", to_json(trace)}};
  }

  // ── eigenvalues ──

  /// One layer's weight, in which the logits are piecewise linear: its Hessian block is a Gauss-Newton
  /// matrix.
  bool semidefinite(const Part& part) const {
    return part.parameters.size() == 1 && natural_.road == Road::exact;
  }

  const char* operator_name(const Part& part) const {
    return semidefinite(part) && exact() ? "Gauss-Newton, which is the Hessian here" : "Hessian";
  }
  std::unique_ptr<LinearOperator> hessian_of(const Part& part) const {
    if (semidefinite(part) && exact()) {
      return std::make_unique<GaussNewtonOperator>(problem_.variables(part), problem_.sizes(),
                                                   problem_.pass(), OutputMetric::softmax_cross_entropy,
                                                   problem_.kept_graphs());
    }
    return problem_.hessian(part);
  }

  void add_eigenvalues(Json& parts) {
    Progress progress("eigenvalues", static_cast<std::int64_t>(parts.size()));
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const Part& part = problem_.parts()[p];
      const std::string key = "eigenvalues of " + part.name;
      const Json item = state_.item(key, [&] {
        Json found = extremes(key, *hessian_of(part), part, semidefinite(part) ? 0 : options_.bottom,
                              Purpose::eigenvalues, progress, p);
        found["eigenvalues"]["operator"] = operator_name(part);
        found["semidefinite"] = semidefinite(part);
        return found;
      });
      parts[p].update(item);
      progress.update(static_cast<std::int64_t>(p) + 1);
    }
  }

  /// {"top_eigenvalues": […], "bottom_eigenvalues": […], "eigenvalues": how they were found}.
  Json extremes(const std::string& key, const LinearOperator& a, const Part& part, int bottom,
                Purpose purpose, Progress& progress, std::size_t done) {
    const auto at_most = [&](int wanted) {
      return static_cast<int>(std::min<std::int64_t>(wanted, part.elements));
    };
    LanczosOptions lanczos_options{.largest = at_most(options_.top), .smallest = at_most(bottom)};
    // At least twice the pairs, or a basis that is full of them makes no progress.
    lanczos_options.max_basis =
        std::max(lanczos_options.max_basis, 2 * (lanczos_options.largest + lanczos_options.smallest) + 4);
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
      state_.save_under_way(key, [&] { return checkpoint(state); });
      return true;
    };
    LanczosState state = lanczos_state_from(state_.under_way(key));
    const LanczosResult found = lanczos(a, lanczos_options, &state);
    Json json;
    const auto list = [&](const std::vector<Eigenpair>& pairs, const std::string& name) {
      json[name] = Json::array();
      for (const Eigenpair& pair : pairs) json[name].push_back(pair.value);
    };
    list(found.largest, "top_eigenvalues");
    if (bottom > 0) list(found.smallest, "bottom_eigenvalues");
    // The error from the choice of images takes a product of its own for each eigenvector.
    const auto pairs_found = static_cast<int>(found.largest.size() + found.smallest.size());
    Json& how = json["eigenvalues"];
    how = {{"residuals", Json::array()},
           {"image_errors", image_errors(a, found)},
           {"products", found.products + pairs_found},
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
      return std::make_unique<GaussNewtonOperator>(problem_.variables(part), problem_.sizes(),
                                                   problem_.pass(), OutputMetric::empirical_fisher,
                                                   problem_.kept_graphs());
    };
    const Json traces =
        exact() ? exact_item(OutputMetric::empirical_fisher) : state_.item("fisher traces", [&] {
          return probe_parts("fisher traces", Purpose::fisher, fisher);
        });
    network["fisher"]["trace"] = traces.at("network");
    Progress progress("fisher eigenvalues", static_cast<std::int64_t>(parts.size()));
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const Part& part = problem_.parts()[p];
      Json& json = parts[p]["fisher"];
      json["trace"] = traces.at("parts").at(part.name);
      json["mean_trace"] = per_parameter(json["trace"], part.elements);
      const std::string key = "fisher eigenvalues of " + part.name;
      json.update(state_.item(key, [&] {
        return extremes(key, *fisher(part), part, 0, Purpose::fisher_eigenvalues, progress, p);
      }));
      progress.update(static_cast<std::int64_t>(p) + 1);
    }
  }

  // ── spectral density ──

  void add_densities(Json& parts) {
    Progress progress("densities", static_cast<std::int64_t>(parts.size()));
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const Part& part = problem_.parts()[p];
      const std::string key = "density of " + part.name;
      parts[p]["density"] = state_.item(key, [&] {
        SpectralDensityOptions options{.steps = options_.density_steps,
                                       .seed = options_.seed,
                                       .stream = stream(Purpose::density, part.number)};
        options.max_probes = options_.density_probes;
        options.min_probes = std::min(options.min_probes, options.max_probes);
        options.progress = [&](const SpectralDensityState& state) {
          progress.update(
              static_cast<std::int64_t>(p),
              fmt::format("{}: {} probes, {} products", part.name, state.quadratures.size(), state.products));
          state_.save_under_way(key, [&] { return checkpoint(state); });
          return true;
        };
        SpectralDensityState state = spectral_density_state_from(state_.under_way(key));
        return write_density(part, spectral_density(*hessian_of(part), options, &state));
      });
      progress.update(static_cast<std::int64_t>(p) + 1);
    }
  }

  Json write_density(const Part& part, const SpectralDensity& density) const {
    const std::string file = fmt::format("density-{}.csv", part.name);
    std::string lines = "eigenvalue,density,standard_error\n";
    for (std::size_t i = 0; i < density.curve.grid.size(); ++i) {
      lines += fmt::format("{},{},{}\n", density.curve.grid[i], density.curve.density[i],
                           density.curve.standard_error[i]);
    }
    write_file_atomic(run_.file(file), lines);
    return {{"curve", file},
            {"operator", operator_name(part)},
            {"smoothing", density.curve.smoothing},
            {"mean", to_json(density.mean)},
            {"trace", to_json(density.trace)},
            {"lowest", density.lowest},
            {"highest", density.highest},
            {"probes", density.quadratures.size()},
            {"products", density.products},
            {"converged", density.converged}};
  }

  Json landscape() {
    return state_.item(kLandscapeItem, [&] { return measure_landscape(options_, problem_, run_, state_); });
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
