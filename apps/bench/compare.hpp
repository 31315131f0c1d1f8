// Stages side by side in one process: on a machine that others use too, two processes a minute apart differ
// by more than most changes are worth, two runs one after the other by far less.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "apps/bench/stages.hpp"

namespace goshawk {

/// A stage, and the size of its microbatches if it is not that of BenchOptions.
struct ComparedKind {
  std::string text;  ///< as it was given
  const StageKind* kind = nullptr;
  std::int64_t microbatch = 0;
};

/// From "STAGE" or "STAGE@MICROBATCH". Throws Error when there is no such stage or size.
ComparedKind compared_kind(std::string_view text);

/// What was measured of one of the stages.
struct ComparedStage {
  std::string text;
  double images_per_second = 0;  ///< median over the turns
  double ratio = 0;              ///< median of this stage's rate over the first one's, turn by turn
  std::array<double, 2> ratio_quartiles{};  ///< of the same
};

/// Sets all stages up at once, and runs each once a turn, every other turn from the last one to the first.
/// `turns` of them are measured, after one that is not. Throws Error unless there are two kinds and a turn.
std::vector<ComparedStage> compare_stages(const BenchOptions& options, const std::vector<ComparedKind>& kinds,
                                          int turns);

}  // namespace goshawk
