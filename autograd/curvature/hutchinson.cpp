#include "autograd/curvature/hutchinson.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace goshawk {
namespace {

double total(const std::vector<double>& blocks) {
  return std::accumulate(blocks.begin(), blocks.end(), 0.0);
}

// Enters the options into a fresh state, and refuses a state that other options or another operator made.
void adopt_state(const LinearOperator& a, const HutchinsonOptions& options, HutchinsonState& state) {
  const std::size_t subsets = a.subset_weights().size();
  if (state.samples.empty()) {
    state = {.probe = options.probe,
             .seed = options.seed,
             .stream = options.stream,
             .samples = {},
             .subset_sums = std::vector(subsets, std::vector<double>(a.shapes().size(), 0.0))};
    return;
  }
  check(state.probe == options.probe && state.seed == options.seed && state.stream == options.stream,
        "[hutchinson] the state was drawn with probe {}, seed {}, stream {} but the options say probe {}, "
        "seed {}, "
        "stream {}; resume with the same or start with an empty state",
        static_cast<int>(state.probe), state.seed, state.stream, static_cast<int>(options.probe),
        options.seed, options.stream);
  const auto fits = [&](const std::vector<double>& row) { return row.size() == a.shapes().size(); };
  check(std::all_of(state.samples.begin(), state.samples.end(), fits) &&
            state.subset_sums.size() == subsets &&
            std::all_of(state.subset_sums.begin(), state.subset_sums.end(), fits),
        "[hutchinson] the state does not fit an operator with {} blocks and {} subsets; start with an empty "
        "state",
        a.shapes().size(), subsets);
}

void draw(const LinearOperator& a, HutchinsonState& state, int count) {
  const std::vector<Vector> probes =
      draw_probes(a, state.probe, state.seed, state.stream + state.samples.size(), count);
  std::vector<QuadraticForms> drawn = a.quadratic_forms(probes);
  for (const QuadraticForms& forms : drawn) {
    check(std::isfinite(total(forms.blocks)),
          "[hutchinson] a probe gave zᵀHz = {}; the loss or its derivatives overflow, so check the weights "
          "and the "
          "pictures",
          total(forms.blocks));
    check(forms.subsets.size() == state.subset_sums.size(),
          "[hutchinson] the operator gave quadratic forms of {} subsets but weights of {}; they must be as "
          "many",
          forms.subsets.size(), state.subset_sums.size());
  }
  for (QuadraticForms& forms : drawn) {
    for (std::size_t b = 0; b < state.subset_sums.size(); ++b) {
      for (std::size_t l = 0; l < forms.blocks.size(); ++l) state.subset_sums[b][l] += forms.subsets[b][l];
    }
    state.samples.push_back(std::move(forms.blocks));
  }
}

// The estimate of Σ pick(blocks), where pick sums some of them.
template <class Pick>
Estimate estimate(const LinearOperator& a, const HutchinsonOptions& options, const HutchinsonState& state,
                  const Pick& pick) {
  std::vector<double> samples;
  for (const std::vector<double>& blocks : state.samples) samples.push_back(pick(blocks));
  Estimate result = estimate_mean(samples);
  result.converged = result.samples >= options.min_samples &&
                     result.standard_error <=
                         std::max(options.relative_error * std::abs(result.value), options.absolute_error);
  const std::vector<double> weights = a.subset_weights();
  if (weights.size() >= 2) {
    // Variance of a weighted mean of independent subsets: B/(B−1) Σ_b w_b² (T_b − T)².
    double squares = 0;
    for (std::size_t b = 0; b < weights.size(); ++b) {
      const double mean = pick(state.subset_sums[b]) / static_cast<double>(samples.size());
      squares += weights[b] * weights[b] * (mean - result.value) * (mean - result.value);
    }
    const auto n = static_cast<double>(weights.size());
    result.subset_error = std::sqrt(squares * n / (n - 1));
  }
  return result;
}

// `report` makes the wanted estimates from the state; `enough` decides from them whether to stop.
template <class Report, class Enough>
std::vector<Estimate> run(const LinearOperator& a, const HutchinsonOptions& options, HutchinsonState& state,
                          const Report& report, const Enough& enough) {
  check_sampling(options, "hutchinson");
  adopt_state(a, options, state);
  std::vector<Estimate> estimates;
  if (!state.samples.empty()) estimates = report();
  const auto next = [&] {
    return next_pass(static_cast<int>(state.samples.size()), options.probes_per_pass, options.max_samples,
                     [&] { return !estimates.empty() && enough(estimates); });
  };
  while (const int count = next()) {
    draw(a, state, count);
    estimates = report();
    if (options.progress && !options.progress(state, estimates)) break;
  }
  return estimates;
}

}  // namespace

void check_sampling(const HutchinsonOptions& options, std::string_view op) {
  check(options.min_samples >= 8 && options.max_samples >= options.min_samples,
        "[{}] min_samples is {} and max_samples {}; give 8 or more, the larger as max_samples", op,
        options.min_samples, options.max_samples);
  check(options.relative_error >= 0 && options.absolute_error >= 0,
        "[{}] relative_error is {} and absolute_error {}; neither may be negative", op,
        options.relative_error, options.absolute_error);
  check(options.probes_per_pass >= 1, "[{}] probes_per_pass is {}; give 1 or more", op,
        options.probes_per_pass);
}

Estimate hutchinson(const LinearOperator& a, const HutchinsonOptions& options, HutchinsonState* state) {
  HutchinsonState fresh;
  HutchinsonState& current = state != nullptr ? *state : fresh;
  return run(
             a, options, current, [&] { return std::vector{estimate(a, options, current, total)}; },
             [](const std::vector<Estimate>& estimates) { return estimates.front().converged; })
      .front();
}

std::vector<Estimate> layer_traces(const LinearOperator& a, const HutchinsonOptions& options,
                                   HutchinsonState* state) {
  HutchinsonState fresh;
  HutchinsonState& current = state != nullptr ? *state : fresh;
  const auto report = [&] {
    std::vector<Estimate> estimates;
    for (std::size_t l = 0; l < a.shapes().size(); ++l) {
      estimates.push_back(
          estimate(a, options, current, [l](const std::vector<double>& blocks) { return blocks[l]; }));
    }
    return estimates;
  };
  const auto enough = [&](const std::vector<Estimate>& estimates) {
    if (!options.every_block) return estimate(a, options, current, total).converged;
    return std::all_of(estimates.begin(), estimates.end(), [](const Estimate& e) { return e.converged; });
  };
  return run(a, options, current, report, enough);
}

}  // namespace goshawk
