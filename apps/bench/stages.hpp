// What is timed end to end: each stage is set up, run several times, and torn down.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nn/module.hpp"

namespace goshawk {

struct BenchOptions {
  std::string model = "resnet20";
  std::int64_t batch = 128;
  /// Images of one microbatch where batch norm is in eval mode, so that images do not interact; several are
  /// at work at the same time. 0: chosen by the size of the pictures and how many vectors there are.
  std::int64_t microbatch = 0;
  /// MiB for gradient graphs that are kept between products (MicrobatchOptions::graph_bytes).
  std::int64_t graph_megabytes = 512;
  int rounds = 3;                 ///< times that all stages are set up, in turn
  int repetitions = 5;            ///< timed runs of each stage in a round
  std::vector<std::string> only;  ///< stages; empty: all
  /// Called after each stage of each round, outside of what is timed: stages done in all rounds, and its
  /// name.
  std::function<void(std::int64_t, const std::string&)> progress;
};

/// A stage that is ready to run.
struct ReadyStage {
  std::function<void()> run;
  double images = 0;  ///< handled by one run (for k vectors: k times the batch)
  double macs =
      0;  ///< multiply-accumulates that one run needs at least, those of convolutions and linear layers
};

/// One kind of work on a model: its name, and how to set it up for a batch of random pictures.
struct StageKind {
  const char* name;
  const char* what;
  std::function<ReadyStage(const BenchOptions&)> set_up;
};

/// In the order in which they are reported.
const std::vector<StageKind>& stage_kinds();

/// What was measured of one stage.
struct StageResult {
  std::string name;
  double seconds = 0;  ///< median of all timed runs
  double images_per_second = 0;
  double gflops = 0;          ///< by ReadyStage::macs
  double peak_rss_mb = 0;     ///< largest resident memory of the process while the stage was set up and ran
  double peak_tensor_mb = 0;  ///< largest memory of tensors at the same time
  double allocations = 0;     ///< of tensor memory, per run
  double system_allocations = 0;  ///< those that had to ask the system, per timed run
};

/// Of the values, which must not be none, the one that a share of the others is below: 0.5 for the median.
double quantile(std::vector<double> values, double share);

/// Times the stages, round after round.
std::vector<StageResult> run_stages(const BenchOptions& options);

}  // namespace goshawk
