#include "apps/goshawk/sensitivity_state.hpp"

#include <algorithm>
#include <filesystem>
#include <map>

#include "apps/goshawk/sensitivity_report.hpp"
#include "core/error.hpp"
#include "quant/json_file.hpp"

namespace goshawk {
namespace {

using Json = nlohmann::json;

constexpr const char* kFile = "measured.json";

Json to_json(const MeasuredCosts& m) {
  const std::string what = fmt::format("a number of '{}'", m.name);
  for (const CostTable& table : {m.costs, m.errors}) {
    for (const std::vector<double>& layer : table) {
      for (const double x : layer) finite(x, what);
    }
  }
  for (const double x : m.score) finite(x, what);
  for (const auto& [name, values] : m.details) {
    for (const double x : values) finite(x, what);
  }
  return {{"costs", m.costs},
          {"errors", m.errors},
          {"score", m.score},
          {"details", m.details},
          {"road", m.road},
          {"seconds", m.seconds},
          {"projected_seconds", finite(m.projected_seconds, "projected seconds")}};
}

}  // namespace

SensitivityState::SensitivityState(const RunDirectory& run, const WeightCandidates& candidates, double loss)
    : run_(run), candidates_(candidates), state_({{"loss", loss}, {"costs", Json::object()}}) {
  if (!run_.has(kFile)) return;
  state_ = run_.read_json(kFile);
  const double before = run_.read_json(kFile, [](const Json& state) {
    state.at("costs").get<std::map<std::string, Json>>();
    return state.at("loss").get<double>();
  });
  check_same_loss(run_.file(kFile), before, loss);
}

MeasuredCosts SensitivityState::cost(const std::string& name, const std::function<MeasuredCosts()>& measure) {
  Json& costs = state_["costs"];
  if (costs.contains(name) && run_.has(cost_file_name(name))) return stored(name, costs[name]);
  MeasuredCosts measured = measure();
  costs[name] = to_json(measured);
  run_.write_json(kFile, state_);
  return measured;
}

MeasuredCosts SensitivityState::stored(const std::string& name, const Json& costs) const {
  try {
    MeasuredCosts m{.name = name,
                    .costs = costs.at("costs"),
                    .errors = costs.at("errors"),
                    .score = costs.at("score"),
                    .pairs = {},
                    .details = costs.at("details"),
                    .road = costs.at("road"),
                    .seconds = costs.at("seconds"),
                    .projected_seconds = costs.at("projected_seconds")};
    const std::size_t layers = candidates_.layers.size(), widths = candidates_.bits.size();
    const auto fits = [&](const CostTable& table) {
      return table.size() == layers && std::all_of(table.begin(), table.end(),
                                                   [&](const auto& layer) { return layer.size() == widths; });
    };
    const bool whole = fits(m.costs) && (m.errors.empty() || fits(m.errors)) &&
                       (m.score.empty() || m.score.size() == layers) &&
                       std::all_of(m.details.begin(), m.details.end(),
                                   [&](const auto& d) { return d.second.size() == layers; });
    check(whole, "[sensitivity] {} is damaged: '{}' is not of {} layers and {} widths; remove it and resume",
          run_.file(kFile), name, layers, widths);
    return m;
  } catch (const Json::exception& e) {
    fail("[sensitivity] {} is damaged: '{}': {}; remove it and resume", run_.file(kFile), name, e.what());
  }
}

void SensitivityState::finish(const RunDirectory& run) {
  std::filesystem::remove(run.file(kFile));
}

}  // namespace goshawk
