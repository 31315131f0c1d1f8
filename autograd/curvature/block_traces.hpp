// The trace of every diagonal block to a wanted error, by whichever probes need less work.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "autograd/curvature/hutchinson.hpp"
#include "autograd/curvature/operator.hpp"
#include "autograd/curvature/results.hpp"

namespace goshawk {

enum class ProbeScheme : std::uint8_t {
  joint,      ///< probes over the whole operator serve all blocks (layer_traces)
  per_block,  ///< each block has probes of its own (hutchinson on the block's operator)
};

/// Everything known so far: enough to go on after a break and end with the same bits.
struct BlockTraceState {
  HutchinsonState joint;
  std::vector<HutchinsonState> blocks;
  std::optional<ProbeScheme> scheme;  ///< once it has been chosen
  std::string reason;
};

struct BlockTraceOptions {
  Probe probe = Probe::rademacher;
  /// Joint probe k is drawn from the random stream (seed, stream + k), probe k of block l from
  /// (seed, stream + (l + 1) · 2³² + k).
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  /// Stop when every block's standard error is at most max(relative_error · |trace|, absolute_error).
  double relative_error = 0.05;
  double absolute_error = 0;
  int min_samples = 16;    ///< of each block; at least 8
  int max_samples = 1000;  ///< of each block
  int probes_per_pass = 4;
  /// Probes of either kind that the choice is made from; at least 8. They stay in use.
  int pilot = 16;
  /// What a product costs, in gradients or any other unit: with the whole operator (for a Hessian about two
  /// gradients) …
  double joint_cost = 2;
  /// … and with each block's own operator; empty for joint_cost each.
  std::vector<double> block_costs = {};
  /// Called after each pass with the state (save it to resume later) and the estimates as they stand;
  /// returning false ends the search.
  std::function<bool(const BlockTraceState& state, std::span<const Estimate> traces)> progress = {};
};

struct BlockTraces {
  std::vector<Estimate> traces;  ///< of the blocks in order; converged says whether each reached its error
  ProbeScheme scheme = ProbeScheme::joint;
  std::string reason;  ///< for the choice, with the numbers it was made from
  double work = 0;     ///< spent in all, in the unit of the costs
};

/// The operator of diagonal block l, as HessianOperator::block gives it.
using BlockOperator = std::function<std::unique_ptr<const LinearOperator>(std::size_t l)>;

/// The traces of all diagonal blocks of `whole`. A joint probe gives a sample of every block at once, but the
/// off-diagonal blocks add to its variance; a block's own probes have less variance and cost a product a
/// block. Which needs less work depends on the operator, so a pilot of each is drawn, the number of probes
/// (standard deviation / wanted error)² predicted for every block, and the scheme that has less work left
/// goes on. The per-block pilot is left out when it alone would cost more than finishing with joint probes,
/// and both are when there is one block, whose two kinds of probes are the same: then the cheaper product is
/// taken. Only the chosen scheme's samples enter the estimates. A non-null `state` is where to start (as a
/// former call left it, or empty) and is kept up to date. Throws Error for options out of range and as
/// hutchinson does.
BlockTraces block_traces(const LinearOperator& whole, const BlockOperator& block,
                         const BlockTraceOptions& options = {}, BlockTraceState* state = nullptr);

}  // namespace goshawk
