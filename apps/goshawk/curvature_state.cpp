#include "apps/goshawk/curvature_state.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fmt/format.h>
#include <map>

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/safetensors.hpp"

namespace goshawk {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFile = "checkpoints/curvature.state.json";
constexpr const char* kUnderWay = "checkpoints/under_way.safetensors";

std::string tensor_name(const std::string& name, std::size_t vector, std::size_t block) {
  return fmt::format("{}.{}.{}", name, vector, block);
}

/// Vectors under a name that none of the others begins with.
void put(Checkpoint& to, const std::string& name, const std::vector<Vector>& vectors) {
  to.numbers["vectors"][name] = {vectors.size(), vectors.empty() ? 0 : vectors.front().size()};
  for (std::size_t k = 0; k < vectors.size(); ++k) {
    for (std::size_t l = 0; l < vectors[k].size(); ++l) {
      to.tensors.emplace_back(tensor_name(name, k, l), vectors[k][l]);
    }
  }
}
std::vector<Vector> get(const Checkpoint& from, const std::string& name) {
  std::map<std::string_view, const Tensor*> tensors;
  for (const auto& [key, tensor] : from.tensors) tensors.emplace(key, &tensor);
  const Json& counts = from.numbers.at("vectors").at(name);
  std::vector<Vector> vectors(counts.at(0).get<std::size_t>());
  for (std::size_t k = 0; k < vectors.size(); ++k) {
    for (std::size_t l = 0; l < counts.at(1).get<std::size_t>(); ++l) {
      const auto found = tensors.find(tensor_name(name, k, l));
      check(found != tensors.end(), "[curvature] {} lacks {}; remove it to begin with this measurement again",
            kUnderWay, tensor_name(name, k, l));
      vectors[k].push_back(*found->second);
    }
  }
  return vectors;
}

Tensor tensor_of(const std::vector<double>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
}

Json numbers_of(const HutchinsonState& state) {
  return {{"probe", static_cast<int>(state.probe)},
          {"seed", state.seed},
          {"stream", state.stream},
          {"samples", state.samples},
          {"subset_sums", state.subset_sums}};
}
HutchinsonState hutchinson_state_from(const Json& json) {
  return {.probe = static_cast<Probe>(json.at("probe").get<int>()),
          .seed = json.at("seed"),
          .stream = json.at("stream"),
          .samples = json.at("samples"),
          .subset_sums = json.at("subset_sums")};
}

}  // namespace

CurvatureState::CurvatureState(const RunDirectory& run) : run_(run) {
  if (run_.has(kFile)) {
    // Keys must keep their order, which read_json does not.
    state_ = Json::parse(read_file(run_.file(kFile)), nullptr, false);
    check(state_.is_object() && state_.contains("finished"),
          "[curvature] {} is damaged; start again in another --out", run_.file(kFile));
  } else {
    state_ = {{"finished", Json::object()}};
  }
}

Json CurvatureState::item(const std::string& name, const std::function<Json()>& compute) {
  Json& finished = state_["finished"];
  if (!finished.contains(name)) {
    Json result = compute();
    finished[name] = std::move(result);
    run_.write_json(kFile, state_);
    std::filesystem::remove(run_.file(kUnderWay));
  }
  return finished[name];
}

Checkpoint CurvatureState::under_way(const std::string& name) const {
  if (!run_.has(kUnderWay)) return {};
  SafeTensors file = read_safetensors(run_.file(kUnderWay));
  // That of a finished item is left where the program was killed before it could be removed.
  if (file.metadata["item"] != name) return {};
  Checkpoint found{.numbers = Json::parse(file.metadata["numbers"], nullptr, false),
                   .tensors = std::move(file.tensors)};
  check(found.numbers.is_object(),
        "[curvature] {} is damaged; remove it to begin with this measurement again", run_.file(kUnderWay));
  return found;
}

void CurvatureState::save_under_way(const std::string& name, const std::function<Checkpoint()>& make) {
  constexpr std::chrono::milliseconds kMoment{500};
  const auto now = std::chrono::steady_clock::now();
  const auto pause = std::max<std::chrono::steady_clock::duration>(kMoment, 20 * writing_);
  if (saved_ && now - *saved_ < pause) return;
  const Checkpoint state = make();
  write_safetensors(run_.file(kUnderWay), state.tensors, {{"item", name}, {"numbers", state.numbers.dump()}});
  saved_ = std::chrono::steady_clock::now();
  writing_ = *saved_ - now;
}

Json to_json(const Estimate& estimate) {
  const Interval interval = confidence_interval(estimate, 0.95);
  Json json = {{"estimate", estimate.value},
               {"standard_error", estimate.standard_error},
               {"interval_95", {interval.low, interval.high}},
               {"samples", estimate.samples},
               {"converged", estimate.converged}};
  if (estimate.subset_error) json["image_error"] = *estimate.subset_error;
  return json;
}

Checkpoint checkpoint(const HutchinsonState& state) {
  return {.numbers = numbers_of(state), .tensors = {}};
}

HutchinsonState hutchinson_state_from(const Checkpoint& from) {
  if (from.numbers.is_null()) return {};
  return hutchinson_state_from(from.numbers);
}

Checkpoint checkpoint(const BlockTraceState& state) {
  Json json = {{"joint", numbers_of(state.joint)}, {"blocks", Json::array()}, {"reason", state.reason}};
  for (const HutchinsonState& block : state.blocks) json["blocks"].push_back(numbers_of(block));
  if (state.scheme) json["scheme"] = static_cast<int>(*state.scheme);
  return {.numbers = json, .tensors = {}};
}

BlockTraceState block_trace_state_from(const Checkpoint& from) {
  BlockTraceState state;
  const Json& json = from.numbers;
  if (json.is_null()) return state;
  state.joint = hutchinson_state_from(json.at("joint"));
  for (const Json& block : json.at("blocks")) state.blocks.push_back(hutchinson_state_from(block));
  state.reason = json.at("reason");
  if (json.contains("scheme")) state.scheme = static_cast<ProbeScheme>(json.at("scheme").get<int>());
  return state;
}

Checkpoint checkpoint(const ExactTraceState& state) {
  Checkpoint to;
  to.numbers = {{"metric", static_cast<int>(state.metric)},
                {"samples", state.samples},
                {"probe", static_cast<int>(state.probe)},
                {"seed", state.seed},
                {"stream", state.stream},
                {"weights", state.weights},
                {"activations", state.activations},
                {"sizes", state.sizes},
                {"loss", state.loss},
                {"directions", state.directions},
                {"sites", Json::array()}};
  std::vector<Vector> sums;
  for (const ExactTraceState::Site& site : state.sites) {
    to.numbers["sites"].push_back({{"name", site.name},
                                   {"weight_elements", site.weight_elements},
                                   {"activation_elements", site.activation_elements}});
    sums.push_back({tensor_of(site.weight.sum), tensor_of(site.weight.squares),
                    tensor_of(site.activation.sum), tensor_of(site.activation.squares)});
  }
  put(to, "sums", sums);
  return to;
}

ExactTraceState exact_trace_state_from(const Checkpoint& from) {
  ExactTraceState state;
  const Json& json = from.numbers;
  if (json.is_null()) return state;
  state.metric = static_cast<OutputMetric>(json.at("metric").get<int>());
  state.samples = json.at("samples");
  state.probe = static_cast<OutputProbe>(json.at("probe").get<int>());
  state.seed = json.at("seed");
  state.stream = json.at("stream");
  state.weights = json.at("weights");
  state.activations = json.at("activations");
  state.sizes = json.at("sizes").get<std::vector<std::int64_t>>();
  state.loss = json.at("loss");
  state.directions = json.at("directions");
  const std::vector<Vector> sums = get(from, "sums");
  for (std::size_t s = 0; s < sums.size(); ++s) {
    const Json& site = json.at("sites").at(s);
    const auto values = [&](std::size_t k) { return sums[s].at(k).to_vector<double>(); };
    state.sites.push_back({.name = site.at("name"),
                           .weight_elements = site.at("weight_elements"),
                           .activation_elements = site.at("activation_elements"),
                           .weight = {values(0), values(1)},
                           .activation = {values(2), values(3)}});
  }
  return state;
}

Checkpoint checkpoint(const LanczosState& state) {
  Checkpoint to;
  to.numbers = {{"seed", state.seed},           {"stream", state.stream},     {"block", state.block},
                {"projected", state.projected}, {"coupling", state.coupling}, {"products", state.products},
                {"restarts", state.restarts},   {"fresh", state.fresh}};
  put(to, "basis", state.basis);
  put(to, "next", state.next);
  return to;
}

LanczosState lanczos_state_from(const Checkpoint& from) {
  const Json& json = from.numbers;
  if (json.is_null()) return {};
  LanczosState state;
  state.seed = json.at("seed");
  state.stream = json.at("stream");
  state.block = json.at("block");
  state.basis = get(from, "basis");
  state.next = get(from, "next");
  state.projected = json.at("projected").get<std::vector<std::vector<double>>>();
  state.coupling = json.at("coupling").get<std::vector<std::vector<double>>>();
  state.products = json.at("products");
  state.restarts = json.at("restarts");
  state.fresh = json.at("fresh");
  return state;
}

Checkpoint checkpoint(const SpectralDensityState& state) {
  Checkpoint to;
  to.numbers = {{"probe", static_cast<int>(state.probe)},
                {"seed", state.seed},
                {"stream", state.stream},
                {"steps", state.steps},
                {"products", state.products},
                {"quadratures", Json::array()},
                {"running", Json::array()}};
  for (const Quadrature& q : state.quadratures) to.numbers["quadratures"].push_back({q.nodes, q.weights});
  for (std::size_t i = 0; i < state.running.size(); ++i) {
    const LanczosProcess& process = state.running[i];
    to.numbers["running"].push_back({process.diagonal, process.off_diagonal});
    put(to, fmt::format("running{}", i), process.basis);
  }
  return to;
}

SpectralDensityState spectral_density_state_from(const Checkpoint& from) {
  SpectralDensityState state;
  const Json& json = from.numbers;
  if (json.is_null()) return state;
  state.probe = static_cast<Probe>(json.at("probe").get<int>());
  state.seed = json.at("seed");
  state.stream = json.at("stream");
  state.steps = json.at("steps");
  state.products = json.at("products");
  for (const Json& q : json.at("quadratures")) {
    state.quadratures.push_back({q.at(0).get<std::vector<double>>(), q.at(1).get<std::vector<double>>()});
  }
  for (const Json& process : json.at("running")) {
    state.running.push_back({.basis = get(from, fmt::format("running{}", state.running.size())),
                             .diagonal = process.at(0).get<std::vector<double>>(),
                             .off_diagonal = process.at(1).get<std::vector<double>>()});
  }
  return state;
}

Json subset_error(const std::vector<double>& weights, const std::vector<double>& values) {
  if (weights.size() < 2) return nullptr;
  double mean = 0, squares = 0;
  for (std::size_t b = 0; b < weights.size(); ++b) mean += weights[b] * values[b];
  for (std::size_t b = 0; b < weights.size(); ++b) {
    squares += weights[b] * weights[b] * (values[b] - mean) * (values[b] - mean);
  }
  const auto n = static_cast<double>(weights.size());
  return std::sqrt(squares * n / (n - 1));
}

}  // namespace goshawk
