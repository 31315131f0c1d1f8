#include "autograd/curvature/hessian_operator.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>
#include <tbb/task_arena.h>
#include <utility>

#include "core/memory.hpp"
#include "core/parallel.hpp"

namespace goshawk {
namespace {

// Vectors that one walk over a graph multiplies with: more hardly share more, and each needs memory.
constexpr std::size_t kVectorsAtOnce = 8;

// sum ← sum + factor · x, with `sum` in f64.
void accumulate(double factor, const Tensor& x, const Tensor& sum) {
  dispatch_floating(x.dtype(), "HessianOperator", [&]<class T>() {
    const T* from = x.data<T>();
    double* to = sum.data<double>();
    parallel_for(x.numel(), kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) to[i] += factor * static_cast<double>(from[i]);
    });
  });
}

// The products with all vectors, some at a time; `use` sees the number of the first of some and their
// products.
template <class Use>
void multiply(const GradientGraph& graph, std::span<const Vector> vectors, const Use& use) {
  for (std::size_t first = 0; first < vectors.size(); first += kVectorsAtOnce) {
    use(first, graph.apply_many(vectors.subspan(first, std::min(kVectorsAtOnce, vectors.size() - first))));
  }
}

}  // namespace

HessianOperator::HessianOperator(std::vector<Variable> parameters, std::vector<std::int64_t> microbatch_sizes,
                                 Loss loss, HessianOptions options)
    : parameters_(std::move(parameters)),
      sizes_(std::move(microbatch_sizes)),
      loss_(std::move(loss)),
      options_(options),
      graphs_(sizes_.size()),
      losses_(sizes_.size()) {
  check(!parameters_.empty(), "[HessianOperator] no parameters were given; give at least one");
  check(!sizes_.empty(), "[HessianOperator] no microbatches were given; give at least one");
  check(loss_ != nullptr, "[HessianOperator] the loss function is empty");
  check(options_.graph_bytes >= 0 && options_.concurrency >= 0,
        "[HessianOperator] graph_bytes is {} and concurrency {}; neither may be negative",
        options_.graph_bytes, options_.concurrency);
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Variable& p = parameters_[i];
    check(p.requires_grad() && p.node()->op == nullptr,
          "[HessianOperator] parameter {} is not a leaf; make it with Variable::leaf", i);
    check(p.dtype() == parameters_.front().dtype(),
          "[HessianOperator] parameter {} is {} but parameter 0 is {}; convert them to one dtype", i,
          p.dtype(), parameters_.front().dtype());
    shapes_.push_back(p.shape());
  }
  for (std::size_t b = 0; b < sizes_.size(); ++b) {
    check(sizes_[b] > 0, "[HessianOperator] microbatch {} has {} samples; leave empty microbatches out", b,
          sizes_[b]);
    samples_ += sizes_[b];
  }
}

double HessianOperator::weight(std::size_t microbatch) const {
  return static_cast<double>(sizes_[microbatch]) / static_cast<double>(samples_);
}

std::vector<double> HessianOperator::subset_weights() const {
  std::vector<double> weights;
  for (std::size_t b = 0; b < sizes_.size(); ++b) weights.push_back(weight(b));
  return weights;
}

HvpRoad HessianOperator::road() const {
  if (options_.road != HvpRoad::automatic) return options_.road;
  if (!road_) road_ = build(0, HvpRoad::automatic).road();
  return *road_;
}

GradientGraph HessianOperator::build(std::size_t microbatch, HvpRoad road) const {
  // The caller, or a task that this thread was in the middle of, may have switched recording off.
  RecordingGuard on(true);
  GradientGraph graph(loss_(microbatch), parameters_, road);
  const double value = graph.loss();
  check(std::isfinite(value),
        "[HessianOperator] the loss of microbatch {} is {}; check the weights and the pictures", microbatch,
        value);
  std::optional<double>& known = losses_[microbatch];
  check(!known || std::bit_cast<std::uint64_t>(*known) == std::bit_cast<std::uint64_t>(value),
        "[HessianOperator] the loss of microbatch {} was {} and is now {}; put batch norm in eval mode, "
        "switch off "
        "dropout and augmentation, keep the order of the samples, and make a new operator when weights have "
        "changed",
        microbatch, known.value_or(0), value);
  known = value;
  return graph;
}

void HessianOperator::choose_kept() const {
  if (kept_) return;
  if (options_.graph_bytes == 0) {
    kept_ = 0;
    return;
  }
  // The first graph is built alone and measured; the others are taken to grow with their number of samples.
  const std::int64_t before = memory_stats().bytes_in_use;
  graphs_[0].emplace(build(0, road()));
  const auto bytes = static_cast<double>(memory_stats().bytes_in_use - before);
  double total = 0;
  std::size_t kept = 0;
  for (; kept < sizes_.size(); ++kept) {
    total += bytes * std::max(1.0, static_cast<double>(sizes_[kept]) / static_cast<double>(sizes_[0]));
    if (total > static_cast<double>(options_.graph_bytes)) break;
  }
  if (kept == 0) graphs_[0].reset();
  kept_ = kept;
}

template <class Compute, class Fold>
void HessianOperator::for_each_microbatch(const Compute& compute, const Fold& fold) const {
  choose_kept();
  using Result = decltype(compute(std::declval<const GradientGraph&>()));
  const std::size_t n = sizes_.size();
  const HvpRoad chosen = road();
  const auto wave = static_cast<std::size_t>(options_.concurrency > 0 ? options_.concurrency : num_threads());
  for (std::size_t first = 0; first < n; first += wave) {
    const std::size_t count = std::min(wave, n - first);
    std::vector<Result> results(count);
    const auto run = [&](std::size_t i) {
      const std::size_t b = first + i;
      if (b >= *kept_) {
        results[i] = compute(build(b, chosen));
        return;
      }
      if (!graphs_[b]) graphs_[b].emplace(build(b, chosen));
      results[i] = compute(*graphs_[b]);
    };
    parallel_for(static_cast<std::int64_t>(count), 1, [&](std::int64_t begin, std::int64_t end) {
      // Isolated, so that a thread that waits inside one microbatch's op does not begin another microbatch on
      // top of it, with both graphs in memory and its working set pushed out of the cache.
      for (std::int64_t i = begin; i < end; ++i) {
        tbb::this_task_arena::isolate([&] { run(static_cast<std::size_t>(i)); });
      }
    });
    for (std::size_t i = 0; i < count; ++i) fold(first + i, std::move(results[i]));
  }
}

Vector HessianOperator::apply(const Vector& v) const {
  return std::move(apply_many(std::span(&v, 1)).front());
}

std::vector<Vector> HessianOperator::apply_many(std::span<const Vector> vectors) const {
  for (const Vector& v : vectors) check_blocks(*this, v, "HessianOperator");
  std::vector<Vector> sums;
  for (std::size_t k = 0; k < vectors.size(); ++k) sums.push_back(zero_vector(shapes_, DType::f64));
  const auto compute = [&](const GradientGraph& graph) {
    std::vector<Vector> all;
    multiply(graph, vectors, [&](std::size_t, std::vector<Vector> products) {
      std::move(products.begin(), products.end(), std::back_inserter(all));
    });
    return all;
  };
  for_each_microbatch(compute, [&](std::size_t b, const std::vector<Vector>& products) {
    for (std::size_t k = 0; k < sums.size(); ++k) {
      for (std::size_t l = 0; l < shapes_.size(); ++l) accumulate(weight(b), products[k][l], sums[k][l]);
    }
  });
  for (Vector& sum : sums) {
    for (Tensor& block : sum) block = block.to(dtype());
  }
  return sums;
}

std::vector<QuadraticForms> HessianOperator::quadratic_forms(std::span<const Vector> vectors) const {
  for (const Vector& v : vectors) check_blocks(*this, v, "HessianOperator");
  const auto compute = [&](const GradientGraph& graph) {
    std::vector<std::vector<double>> forms;
    multiply(graph, vectors, [&](std::size_t first, const std::vector<Vector>& products) {
      for (std::size_t k = 0; k < products.size(); ++k) {
        const Vector& v = vectors[first + k];
        std::vector<double>& blocks = forms.emplace_back();
        for (std::size_t l = 0; l < v.size(); ++l) {
          blocks.push_back(v[l].defined() ? block_dot(v[l], products[k][l]) : 0.0);
        }
      }
    });
    return forms;
  };
  std::vector<QuadraticForms> result(vectors.size());
  for (QuadraticForms& f : result) f.blocks.assign(shapes_.size(), 0.0);
  for_each_microbatch(compute, [&](std::size_t b, std::vector<std::vector<double>> forms) {
    for (std::size_t k = 0; k < forms.size(); ++k) {
      for (std::size_t l = 0; l < shapes_.size(); ++l) result[k].blocks[l] += weight(b) * forms[k][l];
      result[k].subsets.push_back(std::move(forms[k]));
    }
  });
  return result;
}

HessianOperator HessianOperator::block(std::span<const std::size_t> indices) const {
  std::vector<Variable> parameters;
  std::vector<char> taken(parameters_.size(), 0);
  for (std::size_t i : indices) {
    check(i < parameters_.size(), "[HessianOperator::block] there is no parameter {}; the operator has {}", i,
          parameters_.size());
    check(taken[i] == 0, "[HessianOperator::block] parameter {} was named twice; name each once", i);
    taken[i] = 1;
    parameters.push_back(parameters_[i]);
  }
  HessianOperator part(std::move(parameters), sizes_, loss_, options_);
  part.losses_ = losses_;
  return part;
}

double HessianOperator::loss() const {
  double sum = 0;
  for (std::size_t b = 0; b < sizes_.size(); ++b) {
    NoGrad no_grad;
    sum += weight(b) * (losses_[b] ? *losses_[b] : loss_(b).item());
  }
  return sum;
}

void HessianOperator::release_graphs() const {
  for (std::optional<GradientGraph>& graph : graphs_) graph.reset();
}

std::size_t HessianOperator::kept_graphs() const {
  return static_cast<std::size_t>(
      std::count_if(graphs_.begin(), graphs_.end(), [](const auto& graph) { return graph.has_value(); }));
}

}  // namespace goshawk
