#include "apps/goshawk/curvature_state.hpp"

#include <cmath>

#include "core/error.hpp"
#include "core/file.hpp"

namespace goshawk {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFile = "checkpoints/curvature.state.json";

}  // namespace

CurvatureState::CurvatureState(const RunDirectory& run) : run_(run) {
  if (run_.has(kFile)) {
    // Keys must keep their order, which read_json does not.
    state_ = Json::parse(read_file(run_.file(kFile)), nullptr, false);
    check(state_.is_object() && state_.contains("finished") && state_.contains("under_way"),
          "[curvature] {} is damaged; start again in another --out", run_.file(kFile));
  } else {
    state_ = {{"finished", Json::object()}, {"under_way", Json::object()}};
  }
}

Json CurvatureState::item(const std::string& name, const std::function<Json()>& compute) {
  Json& finished = state_["finished"];
  if (!finished.contains(name)) {
    Json result = compute();
    finished[name] = std::move(result);
    state_["under_way"] = Json::object();
    write();
  }
  return finished[name];
}

Json CurvatureState::under_way(const std::string& name) const {
  const Json& all = state_.at("under_way");
  return all.contains(name) ? all.at(name) : Json();
}

void CurvatureState::save_under_way(const std::string& name, const std::function<Json()>& state) {
  constexpr std::chrono::milliseconds kMoment{500};
  if (std::chrono::steady_clock::now() - saved_ < kMoment) return;
  state_["under_way"] = {{name, state()}};
  write();
}

void CurvatureState::write() {
  run_.write_json(kFile, state_);
  saved_ = std::chrono::steady_clock::now();
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

Json to_json(const HutchinsonState& state) {
  return {{"probe", static_cast<int>(state.probe)},
          {"seed", state.seed},
          {"stream", state.stream},
          {"samples", state.samples},
          {"subset_sums", state.subset_sums}};
}

HutchinsonState hutchinson_state_from(const Json& json) {
  if (json.is_null()) return {};
  return {.probe = static_cast<Probe>(json.at("probe").get<int>()),
          .seed = json.at("seed"),
          .stream = json.at("stream"),
          .samples = json.at("samples"),
          .subset_sums = json.at("subset_sums")};
}

Json to_json(const BlockTraceState& state) {
  Json json = {{"joint", to_json(state.joint)}, {"blocks", Json::array()}, {"reason", state.reason}};
  for (const HutchinsonState& block : state.blocks) json["blocks"].push_back(to_json(block));
  if (state.scheme) json["scheme"] = static_cast<int>(*state.scheme);
  return json;
}

BlockTraceState block_trace_state_from(const Json& json) {
  BlockTraceState state;
  if (json.is_null()) return state;
  state.joint = hutchinson_state_from(json.at("joint"));
  for (const Json& block : json.at("blocks")) state.blocks.push_back(hutchinson_state_from(block));
  state.reason = json.at("reason");
  if (json.contains("scheme")) state.scheme = static_cast<ProbeScheme>(json.at("scheme").get<int>());
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
