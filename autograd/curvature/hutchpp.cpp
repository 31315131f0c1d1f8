#include "autograd/curvature/hutchpp.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

namespace goshawk {
namespace {

double total(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0);
}

// P A P for Hutchinson's estimator, with tr(Qᵀ A Q) added to every sample zᵀ P A P z, so that they are
// samples of the whole trace. Such a sum has no blocks; it stands in the first.
class SketchedOperator final : public LinearOperator {
 public:
  SketchedOperator(const LinearOperator& a, const HutchppState& state) : a_(a), basis_(state.basis) {
    captured_ = total(state.captured);
    captured_subsets_.assign(a.subset_weights().size(), 0.0);
    for (const std::vector<double>& subsets : state.captured_subsets) {
      for (std::size_t b = 0; b < subsets.size(); ++b) captured_subsets_[b] += subsets[b];
    }
  }
  const std::vector<Shape>& shapes() const override { return a_.shapes(); }
  DType dtype() const override { return a_.dtype(); }
  std::vector<double> subset_weights() const override { return a_.subset_weights(); }
  Vector apply(const Vector&) const override {
    fail("[hutchpp] the sketched operator has quadratic forms only");
  }
  std::vector<QuadraticForms> quadratic_forms(std::span<const Vector> vectors) const override {
    std::vector<Vector> projected;
    for (const Vector& v : vectors) project_out(projected.emplace_back(clone(v)), basis_);
    std::vector<QuadraticForms> forms = a_.quadratic_forms(projected);
    const auto gather = [](std::vector<double>& blocks, double captured) {
      const double sum = captured + total(blocks);
      std::fill(blocks.begin(), blocks.end(), 0.0);
      blocks.front() = sum;
    };
    for (QuadraticForms& f : forms) {
      gather(f.blocks, captured_);
      for (std::size_t b = 0; b < f.subsets.size(); ++b) gather(f.subsets[b], captured_subsets_[b]);
    }
    return forms;
  }

 private:
  const LinearOperator& a_;
  const std::vector<Vector>& basis_;
  double captured_ = 0;
  std::vector<double> captured_subsets_;
};

void adopt_state(const LinearOperator& a, const HutchppOptions& options, HutchppState& state) {
  check(options.rank >= 1 && options.rank <= a.size(),
        "[hutchpp] the rank is {}; give 1 to {}, the number of rows", options.rank, a.size());
  if (state.sketched == 0) {
    state = {};
    state.probe = options.probe;
    state.seed = options.seed;
    state.stream = options.stream;
    state.rank = options.rank;
    return;
  }
  check(state.probe == options.probe && state.seed == options.seed && state.stream == options.stream &&
            state.rank == options.rank,
        "[hutchpp] the state was drawn with probe {}, seed {}, stream {}, rank {} but the options say probe "
        "{}, "
        "seed {}, stream {}, rank {}; resume with the same or start with an empty state",
        static_cast<int>(state.probe), state.seed, state.stream, state.rank, static_cast<int>(options.probe),
        options.seed, options.stream, options.rank);
  check(state.captured.size() <= state.basis.size() && state.captured_subsets.size() == state.captured.size(),
        "[hutchpp] the state is not whole: {} basis vectors, {} products; start with an empty state",
        state.basis.size(), state.captured.size());
  const std::size_t subsets = a.subset_weights().size();
  for (const std::vector<double>& captured : state.captured_subsets) {
    check(captured.size() == subsets,
          "[hutchpp] the state was drawn from an operator with {} subsets and this one has {}; resume with "
          "the same "
          "microbatches or start with an empty state",
          captured.size(), subsets);
  }
  for (const Vector& q : state.basis) check_blocks(a, q, "hutchpp");
}

// Multiplies the next sketch vectors and adds them to the basis.
void sketch(const LinearOperator& a, HutchppState& state, int count) {
  const std::vector<Vector> vectors = draw_probes(
      a, state.probe, state.seed, state.stream + static_cast<std::uint64_t>(state.sketched), count);
  std::vector<Vector> products = a.apply_many(vectors);
  for (const Vector& product : products) check_product(product, "hutchpp");
  for (Vector& product : products) {
    // A product that adds nothing is left out: A has lower rank than the sketch.
    if (orthonormalise(product, state.basis) > 0) state.basis.push_back(std::move(product));
  }
  state.sketched += count;
}

void capture(const LinearOperator& a, HutchppState& state, std::size_t count) {
  std::vector<QuadraticForms> forms =
      a.quadratic_forms(std::span<const Vector>(state.basis).subspan(state.captured.size(), count));
  for (const QuadraticForms& f : forms) {
    state.captured.push_back(total(f.blocks));
    std::vector<double>& subsets = state.captured_subsets.emplace_back();
    for (const std::vector<double>& blocks : f.subsets) subsets.push_back(total(blocks));
  }
}

}  // namespace

Estimate hutchpp(const LinearOperator& a, const HutchppOptions& options, HutchppState* state) {
  HutchppState fresh;
  HutchppState& current = state != nullptr ? *state : fresh;
  HutchinsonOptions sampling{.probe = options.probe,
                             .seed = options.seed,
                             .stream = options.stream + static_cast<std::uint64_t>(options.rank),
                             .relative_error = options.relative_error,
                             .absolute_error = options.absolute_error,
                             .min_samples = options.min_samples,
                             .max_samples = options.max_samples,
                             .probes_per_pass = options.probes_per_pass};
  check_sampling(sampling, "hutchpp");
  adopt_state(a, options, current);
  Estimate nothing;
  nothing.standard_error = std::numeric_limits<double>::infinity();
  while (current.sketched < options.rank) {
    sketch(a, current, std::min(options.probes_per_pass, options.rank - current.sketched));
    if (options.progress && !options.progress(current, nothing)) return nothing;
  }
  while (current.captured.size() < current.basis.size()) {
    capture(a, current,
            std::min(static_cast<std::size_t>(options.probes_per_pass),
                     current.basis.size() - current.captured.size()));
    if (options.progress && !options.progress(current, nothing)) return nothing;
  }
  if (options.progress) {
    sampling.progress = [&](const HutchinsonState&, std::span<const Estimate> estimates) {
      return options.progress(current, estimates.front());
    };
  }
  return hutchinson(SketchedOperator(a, current), sampling, &current.residual);
}

}  // namespace goshawk
