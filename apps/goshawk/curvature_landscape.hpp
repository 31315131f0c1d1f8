// The loss around the weights of a model, as tables.
#pragma once

#include <nlohmann/json.hpp>

#include "apps/goshawk/curvature_problem.hpp"
#include "apps/goshawk/curvature_state.hpp"
#include "apps/support/run_directory.hpp"

namespace goshawk {

/// The item of the state in which the landscape keeps how far it has come.
inline constexpr const char* kLandscapeItem = "landscape";

/// The loss along the top eigenvector of the Hessian (a step of 1 is √(2 / |λ|) long), along a random
/// filter-normalised direction, and over the plane of both. Writes landscape.csv (direction, step, loss) and
/// landscape-plane.csv (eigenvector, random, loss), and returns what describes them.
nlohmann::ordered_json measure_landscape(const CurvatureOptions& options, const CurvatureProblem& problem,
                                         const RunDirectory& run, CurvatureState& state);

}  // namespace goshawk
