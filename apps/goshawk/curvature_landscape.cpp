#include "apps/goshawk/curvature_landscape.hpp"

#include <cmath>

#include "apps/support/progress.hpp"
#include "autograd/curvature/lanczos.hpp"
#include "autograd/curvature/landscape.hpp"
#include "core/file.hpp"

namespace goshawk {
namespace {

constexpr std::uint64_t kEigenvectorStream = std::uint64_t{16} << 48;
constexpr std::uint64_t kDirectionStream = std::uint64_t{17} << 48;
constexpr double kRange = 1;
constexpr const char* kLosses = "losses";  // in a checkpoint

}  // namespace

nlohmann::ordered_json measure_landscape(const CurvatureOptions& options, const CurvatureProblem& problem,
                                         const RunDirectory& run, CurvatureState& state) {
  const std::vector<Variable> parameters = problem.variables(problem.network());
  // The state of a finished search gives its result again without products.
  const Checkpoint begun = state.under_way(kLandscapeItem);
  LanczosState search = lanczos_state_from(begun);
  std::vector<double> known;  // losses, in the order in which they are evaluated
  for (const auto& [name, tensor] : begun.tensors) {
    if (name == kLosses) known = tensor.to_vector<double>();
  }
  const auto save = [&] {
    state.save_under_way(kLandscapeItem, [&] {
      Checkpoint so_far = checkpoint(search);
      if (!known.empty()) {
        so_far.tensors.emplace_back(kLosses, Tensor::from(known, {static_cast<std::int64_t>(known.size())}));
      }
      return so_far;
    });
  };
  Eigenpair top;
  {
    const std::unique_ptr<HessianOperator> hessian = problem.hessian(problem.network());
    LanczosOptions lanczos_options{.largest = 1};
    lanczos_options.max_products = options.max_products;
    lanczos_options.seed = options.seed;
    lanczos_options.stream = kEigenvectorStream;
    lanczos_options.progress = [&](const LanczosState&, std::span<const RitzValue>,
                                   std::span<const RitzValue>) {
      save();
      return true;
    };
    top = lanczos(*hessian, lanczos_options, &search).largest.at(0);
  }
  const Vector eigenvector = clone(top.vector);
  // A step of 1 raises the loss by 1 as far as its second derivative tells.
  const double length = top.value == 0 ? 1 : std::sqrt(2 / std::abs(top.value));
  rescale(eigenvector, length);
  const Vector random = filter_normalised_direction(parameters, options.seed, kDirectionStream);

  const std::vector<double> steps = landscape_steps(options.landscape_points, kRange);
  std::size_t evaluated = 0;
  const auto loss = [&] {
    if (evaluated == known.size()) {
      known.push_back(problem.loss());
      save();
    }
    return known[evaluated++];
  };
  const auto n = static_cast<std::int64_t>(steps.size());
  Progress progress("landscape", 2 * n + n * n);
  std::int64_t before = 0;
  const LandscapeOptions reporting{.progress = [&](std::size_t done, std::size_t) {
    progress.update(before + static_cast<std::int64_t>(done));
    return true;
  }};
  const std::vector<double> along_eigenvector = loss_along(parameters, eigenvector, steps, loss, reporting);
  before += n;
  const std::vector<double> along_random = loss_along(parameters, random, steps, loss, reporting);
  before += n;
  const auto plane = loss_over(parameters, eigenvector, random, steps, steps, loss, reporting);

  std::string lines = "direction,step,loss\n", rows = "eigenvector,random,loss\n";
  for (std::size_t i = 0; i < steps.size(); ++i) {
    lines += fmt::format("eigenvector,{},{}\n", steps[i], along_eigenvector[i]);
  }
  for (std::size_t i = 0; i < steps.size(); ++i) {
    lines += fmt::format("random,{},{}\n", steps[i], along_random[i]);
  }
  for (std::size_t i = 0; i < steps.size(); ++i) {
    for (std::size_t k = 0; k < steps.size(); ++k) {
      rows += fmt::format("{},{},{}\n", steps[i], steps[k], plane[i][k]);
    }
  }
  write_file_atomic(run.file("landscape.csv"), lines);
  write_file_atomic(run.file("landscape-plane.csv"), rows);
  return {{"lines", "landscape.csv"},
          {"plane", "landscape-plane.csv"},
          {"steps", steps},
          {"eigenvector",
           {{"eigenvalue", top.value},
            {"converged", top.converged},
            {"length_of_a_step_of_1", length},
            {"losses", along_eigenvector}}},
          {"random", {{"length_of_a_step_of_1", norm(random)}, {"losses", along_random}}}};
}

}  // namespace goshawk
