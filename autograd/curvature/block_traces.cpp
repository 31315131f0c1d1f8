#include "autograd/curvature/block_traces.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace goshawk {
namespace {

// What a scheme has left to do, as far as its pilot tells.
struct Forecast {
  double work = 0;
  int out_of_reach = 0;  // blocks that would need more than max_samples
};

class BlockTraceSearch {
 public:
  BlockTraceSearch(const LinearOperator& whole, const BlockOperator& block, const BlockTraceOptions& options,
                   BlockTraceState& state)
      : whole_(whole), block_(block), options_(options), state_(state), costs_(options.block_costs) {
    const std::size_t blocks = whole.shapes().size();
    if (costs_.empty()) costs_.assign(blocks, options.joint_cost);
    check(costs_.size() == blocks,
          "[block_traces] {} block costs were given for {} blocks; give one for each", costs_.size(), blocks);
    const auto positive = [](double cost) { return cost > 0 && std::isfinite(cost); };
    check(positive(options.joint_cost) && std::all_of(costs_.begin(), costs_.end(), positive),
          "[block_traces] the cost of a product must be positive and finite");
    check_sampling(sampling(options.stream, false), "block_traces");
    check(options.pilot >= 8 && options.pilot <= options.max_samples,
          "[block_traces] the pilot is {} probes; give 8 to max_samples, {}", options.pilot,
          options.max_samples);
    check(block != nullptr, "[block_traces] the function that gives the blocks' operators is empty");
    check(state.blocks.empty() || state.blocks.size() == blocks,
          "[block_traces] the state has {} blocks but the operator {}; start with an empty state",
          state.blocks.size(), blocks);
    state_.blocks.resize(blocks);
    traces_.resize(blocks);
  }

  BlockTraces run() {
    if (!state_.scheme) {
      choose();
    } else if (costs_.size() > 1 && !state_.joint.samples.empty()) {
      // Draws nothing: the pilot's estimates, for blocks whose own probes are yet to come. A single block had
      // no pilot.
      joint_probes(true);
    }
    if (go_on_ && state_.scheme == ProbeScheme::joint) joint_probes(false);
    if (go_on_ && state_.scheme == ProbeScheme::per_block) {
      for (std::size_t l = 0; l < costs_.size() && go_on_; ++l) block_probes(l, false);
    }
    BlockTraces result;
    result.traces = std::move(traces_);
    result.scheme = state_.scheme.value_or(ProbeScheme::joint);
    result.reason = state_.scheme ? state_.reason : "ended before there was a choice";
    result.work = static_cast<double>(state_.joint.samples.size()) * options_.joint_cost;
    for (std::size_t l = 0; l < costs_.size(); ++l) {
      result.work += static_cast<double>(state_.blocks[l].samples.size()) * costs_[l];
    }
    return result;
  }

 private:
  HutchinsonOptions sampling(std::uint64_t stream, bool pilot) const {
    HutchinsonOptions o{.probe = options_.probe,
                        .seed = options_.seed,
                        .stream = stream,
                        .relative_error = options_.relative_error,
                        .absolute_error = options_.absolute_error,
                        .min_samples = options_.min_samples,
                        .max_samples = options_.max_samples,
                        .probes_per_pass = options_.probes_per_pass};
    if (pilot) {
      // All of it, whatever the errors are after a part.
      o.min_samples = o.max_samples = options_.pilot;
      o.relative_error = o.absolute_error = 0;
    }
    return o;
  }

  bool report() {
    go_on_ = !options_.progress || options_.progress(state_, traces_);
    return go_on_;
  }

  std::vector<Estimate> joint_probes(bool pilot) {
    HutchinsonOptions o = sampling(options_.stream, pilot);
    o.progress = [&](const HutchinsonState&, std::span<const Estimate> estimates) {
      traces_.assign(estimates.begin(), estimates.end());
      return report();
    };
    traces_ = layer_traces(whole_, o, &state_.joint);
    return traces_;
  }

  Estimate block_probes(std::size_t l, bool pilot) {
    const std::unique_ptr<const LinearOperator> a = block_(l);
    check(a != nullptr && a->shapes().size() == 1 && a->shapes()[0] == whole_.shapes()[l],
          "[block_traces] the operator given for block {} does not have that block's shape, {}", l,
          whole_.shapes()[l]);
    HutchinsonOptions o = sampling(options_.stream + ((static_cast<std::uint64_t>(l) + 1) << 32), pilot);
    o.progress = [&](const HutchinsonState&, std::span<const Estimate> estimates) {
      // Before the choice the joint estimates are the ones to show.
      if (!pilot) traces_[l] = estimates.front();
      return report();
    };
    const Estimate estimate = hutchinson(*a, o, &state_.blocks[l]);
    if (!pilot) traces_[l] = estimate;
    return estimate;
  }

  // Probes in all that a block needs, given its pilot.
  double probes_needed(const Estimate& pilot) const {
    const double wanted = std::max(options_.relative_error * std::abs(pilot.value), options_.absolute_error);
    const double deviation = pilot.standard_error * std::sqrt(static_cast<double>(pilot.samples));
    const double needed = deviation == 0 ? 0 : std::ceil(deviation * deviation / (wanted * wanted));
    return std::max({needed, static_cast<double>(options_.min_samples), static_cast<double>(pilot.samples)});
  }

  void add(Forecast& forecast, double probes, double cost) const {
    const double most = options_.max_samples;
    // Also counts a wanted error of zero, which needs infinitely many.
    if (!(probes <= most)) ++forecast.out_of_reach;
    forecast.work += (std::min(probes, most) - options_.pilot) * cost;
  }

  void choose() {
    if (costs_.size() == 1) {
      choose(costs_.front() < options_.joint_cost ? ProbeScheme::per_block : ProbeScheme::joint,
             "one block has one kind of probe");
      return;
    }
    const std::vector<Estimate> joint_pilot = joint_probes(true);
    if (!go_on_) return;
    Forecast joint;
    double probes = 0;
    for (const Estimate& e : joint_pilot) {
      probes = std::max(probes, probes_needed(e));
      if (!(probes_needed(e) <= options_.max_samples)) ++joint.out_of_reach;
    }
    joint.work =
        (std::min(probes, static_cast<double>(options_.max_samples)) - options_.pilot) * options_.joint_cost;
    double pilot_work = 0;
    for (double cost : costs_) pilot_work += options_.pilot * cost;
    if (joint.out_of_reach == 0 && joint.work <= pilot_work) {
      choose(
          ProbeScheme::joint,
          fmt::format("joint probes need {:.4g} more units of work, and probes for each block {:.4g} for a "
                      "pilot alone",
                      joint.work, pilot_work));
      return;
    }
    Forecast per_block;
    for (std::size_t l = 0; l < costs_.size(); ++l) {
      const Estimate pilot = block_probes(l, true);
      if (!go_on_) return;
      add(per_block, probes_needed(pilot), costs_[l]);
    }
    const bool take_joint = joint.out_of_reach != per_block.out_of_reach
                                ? joint.out_of_reach < per_block.out_of_reach
                                : joint.work <= per_block.work;
    choose(
        take_joint ? ProbeScheme::joint : ProbeScheme::per_block,
        fmt::format("after {} pilot probes of each kind, joint probes need about {:.4g} more units of work "
                    "and leave {} of {} blocks short of the wanted error; probes for each block {:.4g} and "
                    "{}",
                    options_.pilot, joint.work, joint.out_of_reach, costs_.size(), per_block.work,
                    per_block.out_of_reach));
  }

  void choose(ProbeScheme scheme, std::string reason) {
    state_.scheme = scheme;
    state_.reason = std::move(reason);
  }

  const LinearOperator& whole_;
  const BlockOperator& block_;
  const BlockTraceOptions& options_;
  BlockTraceState& state_;
  std::vector<double> costs_;
  std::vector<Estimate> traces_;
  bool go_on_ = true;
};

}  // namespace

BlockTraces block_traces(const LinearOperator& whole, const BlockOperator& block,
                         const BlockTraceOptions& options, BlockTraceState* state) {
  BlockTraceState fresh;
  return BlockTraceSearch(whole, block, options, state != nullptr ? *state : fresh).run();
}

}  // namespace goshawk
