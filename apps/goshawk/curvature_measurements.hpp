// The measurements of goshawk curvature, each an item that is resumed or skipped after a break.
#pragma once

#include <nlohmann/json.hpp>

#include "apps/goshawk/curvature_problem.hpp"
#include "apps/support/run_directory.hpp"

namespace goshawk {

/// What the command line asked of this model on these images, as the content of curvature.json; curves go to
/// files of their own in `run`. Throws Error when the exact road is forced and does not hold.
nlohmann::ordered_json measure_curvature(const CurvatureOptions& options, const CurvatureProblem& problem,
                                         const RunDirectory& run);

}  // namespace goshawk
