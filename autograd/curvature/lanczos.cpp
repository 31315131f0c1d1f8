#include "autograd/curvature/lanczos.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <utility>

#include "core/kernels/symmetric_eigen.hpp"
#include "core/parallel.hpp"

namespace goshawk {
namespace {

// Elements of every basis vector that are combined at a time: few enough for all of them to stay in the
// cache.
constexpr std::int64_t kRotateGrain = 1024;

// Σ_j weights[k][j] · basis[j] for every k, into targets[k], which may be basis[k].
void combine(std::span<const Vector> basis, std::span<const std::vector<double>> weights,
             std::span<const Vector> targets) {
  for (std::size_t l = 0; l < basis.front().size(); ++l) {
    dispatch_floating(basis.front()[l].dtype(), "lanczos", [&]<class T>() {
      parallel_for(basis.front()[l].numel(), kRotateGrain, [&](std::int64_t begin, std::int64_t end) {
        const auto count = static_cast<std::size_t>(end - begin);
        std::vector<double> sums(targets.size() * count, 0.0);
        for (std::size_t j = 0; j < basis.size(); ++j) {
          const T* from = basis[j][l].data<T>() + begin;
          for (std::size_t k = 0; k < targets.size(); ++k) {
            const double weight = weights[k][j];
            double* sum = sums.data() + k * count;
            for (std::size_t i = 0; i < count; ++i) sum[i] += weight * static_cast<double>(from[i]);
          }
        }
        for (std::size_t k = 0; k < targets.size(); ++k) {
          T* to = targets[k][l].data<T>() + begin;
          for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<T>(sums[k * count + i]);
        }
      });
    });
  }
}

// The eigenpairs of H and how far each is from one of A.
struct Ritz {
  std::vector<double> values;  // rising
  std::vector<std::vector<double>> vectors;
  std::vector<double> residuals;
  double scale = 0;  // largest |value|
};

Ritz ritz_pairs(const LanczosState& state) {
  const std::size_t m = state.basis.size();
  std::vector<double> dense(m * m, 0.0);
  for (std::size_t i = 0; i < m; ++i) {
    std::copy(state.projected[i].begin(), state.projected[i].end(),
              dense.begin() + static_cast<std::ptrdiff_t>(i * m));
  }
  kernels::SymmetricEigen eigen = kernels::symmetric_eigen(std::move(dense), m);
  Ritz ritz{.values = std::move(eigen.values), .vectors = std::move(eigen.vectors), .residuals = {}};
  for (std::size_t k = 0; k < m; ++k) {
    double squares = 0;
    for (const std::vector<double>& row : state.coupling) {
      const double part = std::inner_product(row.begin(), row.end(), ritz.vectors[k].begin(), 0.0);
      squares += part * part;
    }
    ritz.residuals.push_back(std::sqrt(squares));
    ritz.scale = std::max(ritz.scale, std::abs(ritz.values[k]));
  }
  return ritz;
}

class Lanczos {
 public:
  Lanczos(const LinearOperator& a, const LanczosOptions& options, LanczosState& state)
      : a_(a), options_(options), state_(state), epsilon_(epsilon(a.dtype())) {
    check_options();
    choose_capacity();
    adopt_state();
  }

  LanczosResult run() {
    Ritz ritz = ritz_pairs(state_);
    while (!converged(ritz) && !state_.next.empty() &&
           state_.products + static_cast<int>(state_.next.size()) <= options_.max_products) {
      if (state_.basis.size() + state_.next.size() > capacity_) restart(ritz);
      step();
      ritz = ritz_pairs(state_);
      if (options_.progress) {
        const std::vector<RitzValue> top = values(ritz, largest(ritz)), bottom = values(ritz, smallest(ritz));
        if (!options_.progress(state_, top, bottom)) break;
      }
    }
    LanczosResult result;
    result.largest = pairs(ritz, largest(ritz));
    result.smallest = pairs(ritz, smallest(ritz));
    result.products = state_.products;
    result.restarts = state_.restarts;
    result.converged = converged(ritz);
    return result;
  }

 private:
  std::size_t wanted() const {
    return static_cast<std::size_t>(options_.largest) + static_cast<std::size_t>(options_.smallest);
  }

  void check_options() const {
    const std::int64_t n = a_.size();
    check(
        options_.largest >= 0 && options_.smallest >= 0 && wanted() >= 1 && options_.largest <= n &&
            options_.smallest <= n,
        "[lanczos] {} largest and {} smallest eigenpairs were asked for; an operator with {} rows has up to "
        "{} of either",
        options_.largest, options_.smallest, n, n);
    check(options_.tolerance > 0 && options_.max_products >= 1,
          "[lanczos] tolerance is {} and max_products {}; both must be positive", options_.tolerance,
          options_.max_products);
    check(options_.block >= 1 && options_.block <= n, "[lanczos] the block is {}; give 1 to {} vectors",
          options_.block, n);
  }

  void choose_capacity() {
    const std::int64_t n = a_.size();
    const std::int64_t bytes = n * dtype_size(a_.dtype());
    const std::int64_t fit = options_.basis_bytes / bytes;
    // Room for the wanted pairs, the block that is multiplied and at least one more.
    const std::int64_t least =
        std::min<std::int64_t>(n, static_cast<std::int64_t>(wanted()) + 2 * std::int64_t{options_.block} + 2);
    check(fit >= least,
          "[lanczos] basis_bytes is {}, which holds {} vectors of {} bytes, but {} pairs need {}; allow more "
          "memory or ask for fewer pairs",
          options_.basis_bytes, fit, bytes, wanted(), least);
    check(options_.max_basis >= least,
          "[lanczos] max_basis is {} but {} pairs need at least {}; two or three times as many as pairs work "
          "well",
          options_.max_basis, wanted(), least);
    capacity_ = static_cast<std::size_t>(std::min({n, fit, std::int64_t{options_.max_basis}}));
  }

  void adopt_state() {
    if (state_.fresh == 0) {
      state_ = {};
      state_.seed = options_.seed;
      state_.stream = options_.stream;
      state_.block = options_.block;
      while (state_.next.size() < static_cast<std::size_t>(options_.block)) {
        state_.next.push_back(fresh_vector(state_.next));
        state_.coupling.emplace_back();
      }
      return;
    }
    check(
        state_.seed == options_.seed && state_.stream == options_.stream && state_.block == options_.block,
        "[lanczos] the state was made with seed {}, stream {}, block {} but the options say seed {}, stream "
        "{}, block {}; resume with the same or start with an empty state",
        state_.seed, state_.stream, state_.block, options_.seed, options_.stream, options_.block);
    const std::size_t m = state_.basis.size();
    bool fits = state_.projected.size() == m && state_.coupling.size() == state_.next.size();
    for (std::size_t i = 0; fits && i < m; ++i) fits = state_.projected[i].size() == i + 1;
    for (const std::vector<double>& row : state_.coupling) fits = fits && row.size() == m;
    check(fits,
          "[lanczos] the state is not whole: {} basis vectors with {} rows of H; start with an empty one", m,
          state_.projected.size());
    for (const Vector& v : state_.basis) check_blocks(a_, v, "lanczos");
    for (const Vector& v : state_.next) check_blocks(a_, v, "lanczos");
  }

  // A random vector of length 1, orthogonal to `others`.
  Vector fresh_vector(std::span<const Vector> others) {
    for (;;) {
      Random random(state_.seed, state_.stream + static_cast<std::uint64_t>(state_.fresh++));
      Vector v = normal_vector(a_.shapes(), a_.dtype(), random);
      if (orthonormalise(v, others) > 0) return v;
    }
  }

  void step() {
    const std::size_t m = state_.basis.size(), b = state_.next.size();
    std::vector<Vector> products = a_.apply_many(state_.next);
    for (const Vector& product : products) check_product(product, "lanczos");
    state_.products += static_cast<int>(b);

    // H grows by the rows [C, PᵀAP].
    for (std::size_t i = 0; i < b; ++i) {
      std::vector<double>& row = state_.projected.emplace_back(std::move(state_.coupling[i]));
      for (std::size_t j = 0; j <= i; ++j) row.push_back(dot(state_.next[j], products[i]));
    }
    std::move(state_.next.begin(), state_.next.end(), std::back_inserter(state_.basis));
    state_.next.clear();
    double scale = 0;
    for (const std::vector<double>& row : state_.projected) {
      for (double element : row) scale = std::max(scale, std::abs(element));
    }

    // What is left of the products beside the basis, orthonormalised, is the next block.
    std::vector<Vector> all = state_.basis;
    std::vector<std::vector<double>> columns;  // of C, for the vectors multiplied
    const auto rows = static_cast<std::size_t>(a_.size());
    for (std::size_t i = 0; i < b; ++i) {
      const std::vector<double> parts = project_out(products[i], all);
      std::vector<double>& column =
          columns.emplace_back(parts.begin() + static_cast<std::ptrdiff_t>(state_.basis.size()), parts.end());
      if (all.size() == rows) continue;  // the basis is complete, and what is left is rounding
      double length = norm(products[i]);
      if (length > 64 * epsilon_ * scale) {
        Vector next = std::move(products[i]);
        rescale(next, 1 / length);
        // It may be a small part of the product, with the product's rounding errors.
        project_out(next, all);
        rescale(next, 1 / norm(next));
        all.push_back(std::move(next));
      } else {
        all.push_back(fresh_vector(all));
        length = 0;
      }
      column.push_back(length);
    }
    state_.next.assign(all.begin() + static_cast<std::ptrdiff_t>(state_.basis.size()), all.end());
    state_.coupling.assign(state_.next.size(), std::vector<double>(m + b, 0.0));
    for (std::size_t i = 0; i < b; ++i) {
      for (std::size_t j = 0; j < columns[i].size(); ++j) state_.coupling[j][m + i] = columns[i][j];
    }
  }

  // Keeps the wanted Ritz vectors and, of the others, those next to them: a part of the room that is left.
  void restart(const Ritz& ritz) {
    const std::size_t m = state_.basis.size();
    const auto top = static_cast<std::size_t>(options_.largest);
    const auto bottom = static_cast<std::size_t>(options_.smallest);
    const std::size_t room = capacity_ - state_.next.size();
    const std::size_t extra = 2 * (room - std::min(room, wanted())) / 5;
    const std::size_t upper = top + (bottom == 0 ? extra : top == 0 ? 0 : (extra + 1) / 2);
    const std::size_t lower = bottom + (top == 0 ? extra : bottom == 0 ? 0 : extra / 2);
    std::vector<std::size_t> kept;
    for (std::size_t k = 0; k < m; ++k) {
      if (k < lower || k + upper >= m) kept.push_back(k);
    }
    std::vector<std::vector<double>> weights, coupling(state_.next.size());
    for (std::size_t k : kept) {
      weights.push_back(ritz.vectors[k]);
      for (std::size_t i = 0; i < coupling.size(); ++i) {
        const std::vector<double>& row = state_.coupling[i];
        coupling[i].push_back(std::inner_product(row.begin(), row.end(), ritz.vectors[k].begin(), 0.0));
      }
    }
    // A copy of the state that someone kept must not change: its tensors are replaced, not overwritten.
    std::vector<Vector> targets(kept.size());
    for (std::size_t k = 0; k < kept.size(); ++k) {
      for (const Tensor& block : state_.basis[k]) {
        targets[k].push_back(block.unique() ? block : Tensor::empty_like(block));
      }
    }
    combine(state_.basis, weights, targets);
    state_.basis = std::move(targets);
    state_.coupling = std::move(coupling);
    state_.projected.clear();
    for (std::size_t k = 0; k < kept.size(); ++k) {
      state_.projected.emplace_back(k + 1, 0.0).back() = ritz.values[kept[k]];
    }
    ++state_.restarts;
  }

  std::vector<std::size_t> largest(const Ritz& ritz) const {
    std::vector<std::size_t> indices;
    const std::size_t m = ritz.values.size();
    for (std::size_t k = 0; k < std::min(m, static_cast<std::size_t>(options_.largest)); ++k) {
      indices.push_back(m - 1 - k);
    }
    return indices;
  }
  std::vector<std::size_t> smallest(const Ritz& ritz) const {
    std::vector<std::size_t> indices(
        std::min(ritz.values.size(), static_cast<std::size_t>(options_.smallest)));
    std::iota(indices.begin(), indices.end(), std::size_t{0});
    return indices;
  }

  // In n dimensions a random vector shows little of an operator beside its multiple of the identity, if it
  // has one: its residual is small beside its Ritz value whatever the eigenvalues are. So until the space has
  // had time to grow, the residual must be small beside the spread of the Ritz values too.
  bool pair_converged(const Ritz& ritz, std::size_t k) const {
    double size = std::abs(ritz.values[k]);
    if (state_.products < 2 + std::log2(static_cast<double>(a_.size()))) {
      size = std::min(size, ritz.values.back() - ritz.values.front());
    }
    return ritz.residuals[k] <= std::max(options_.tolerance * size, 64 * epsilon_ * ritz.scale);
  }

  bool converged(const Ritz& ritz) const {
    if (state_.next.empty()) return true;
    const std::size_t m = ritz.values.size();
    if (m < wanted()) return false;
    for (const std::vector<std::size_t>& indices : {largest(ritz), smallest(ritz)}) {
      for (std::size_t k : indices) {
        if (!pair_converged(ritz, k)) return false;
      }
    }
    return true;
  }

  static std::vector<RitzValue> values(const Ritz& ritz, const std::vector<std::size_t>& indices) {
    std::vector<RitzValue> result;
    for (std::size_t k : indices) result.push_back({ritz.values[k], ritz.residuals[k]});
    return result;
  }

  std::vector<Eigenpair> pairs(const Ritz& ritz, const std::vector<std::size_t>& indices) const {
    std::vector<Eigenpair> found;
    std::vector<std::vector<double>> weights;
    std::vector<Vector> vectors;
    for (std::size_t k : indices) {
      Eigenpair& pair = found.emplace_back();
      pair.value = ritz.values[k];
      pair.iterations = state_.products;
      pair.converged = state_.next.empty() || pair_converged(ritz, k);
      const double error = ritz.residuals[k] + epsilon_ * ritz.scale;
      const double magnitude = std::abs(pair.value);
      if (pair.converged && magnitude <= 64 * epsilon_ * ritz.scale) {
        pair.residual = 0;
      } else {
        pair.residual = magnitude > 0 ? error / magnitude : std::numeric_limits<double>::infinity();
      }
      pair.vector = zero_vector(a_.shapes(), a_.dtype());
      weights.push_back(ritz.vectors[k]);
      vectors.push_back(pair.vector);
    }
    if (found.empty()) return found;
    combine(state_.basis, weights, vectors);
    for (const Vector& v : vectors) rescale(v, 1 / norm(v));
    return found;
  }

  const LinearOperator& a_;
  const LanczosOptions& options_;
  LanczosState& state_;
  double epsilon_;
  std::size_t capacity_ = 0;
};

}  // namespace

LanczosResult lanczos(const LinearOperator& a, const LanczosOptions& options, LanczosState* state) {
  LanczosState fresh;
  return Lanczos(a, options, state != nullptr ? *state : fresh).run();
}

}  // namespace goshawk
