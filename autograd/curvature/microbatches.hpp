// Sums over microbatches: several at a time, always added in their order, with graphs that are kept between
// products as far as memory allows.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tbb/task_arena.h>
#include <utility>
#include <vector>

#include "autograd/curvature/operator.hpp"
#include "autograd/variable.hpp"
#include "core/memory.hpp"
#include "core/parallel.hpp"

namespace goshawk {

struct MicrobatchOptions {
  /// Memory for graphs that are kept between products: as many microbatches as fit, from the first on. The
  /// graphs of the others are rebuilt for every product. 0 keeps none.
  std::int64_t graph_bytes = std::int64_t{512} << 20;
  /// Microbatches at work at the same time; 0 for as many as threads. With 1 the caller's functions are never
  /// called from two threads at once. The result does not depend on it.
  int concurrency = 0;

  /// Graphs in up to a quarter of the machine's memory: for programs that do one thing at a time.
  static MicrobatchOptions for_this_machine() { return {.graph_bytes = physical_memory() / 4}; }
};

/// Calls compute(i) for i < n, on up to `concurrency` threads (0: all), and fold(i, result) for each, one at
/// a time and in the order of i. Loops inside compute run on its own thread alone as long as all threads have
/// an i of their own.
template <class Compute, class Fold>
void for_each_in_order(std::size_t n, int concurrency, const Compute& compute, const Fold& fold) {
  const std::size_t workers =
      std::min(n, static_cast<std::size_t>(concurrency > 0 ? concurrency : num_threads()));
  const bool busy = workers > 1 && workers >= static_cast<std::size_t>(num_threads());
  std::mutex folding;
  std::size_t folded = 0;
  bool broken = false;  // a fold threw: none may follow
  std::map<std::size_t, decltype(compute(std::size_t{}))> waiting;
  const auto hand_in = [&](std::size_t i, auto result) {
    const std::lock_guard lock(folding);
    waiting.emplace(i, std::move(result));
    for (auto first = waiting.begin(); !broken && first != waiting.end() && first->first == folded;
         ++folded) {
      broken = true;
      fold(folded, std::move(first->second));
      broken = false;
      first = waiting.erase(first);
    }
  };
  std::atomic<std::size_t> next{0};
  parallel_for(static_cast<std::int64_t>(workers), 1, [&](std::int64_t, std::int64_t) {
    // Isolated, so that a thread that waits inside one microbatch's op does not begin another microbatch on
    // top of it, with both graphs in memory and its working set pushed out of the cache.
    tbb::this_task_arena::isolate([&] {
      try {
        for (std::size_t i = next++; i < n; i = next++) {
          std::optional<SerialLoops> alone;
          if (busy && i + workers < n) alone.emplace();
          hand_in(i, compute(i));
        }
      } catch (...) {
        next = n;
        throw;
      }
    });
  });
}

/// The sizes of microbatches and their weights in a mean over all samples.
class MicrobatchSizes {
 public:
  /// Throws Error naming `user` unless there are microbatches and all have samples.
  MicrobatchSizes(std::vector<std::int64_t> sizes, std::string_view user) : sizes_(std::move(sizes)) {
    check(!sizes_.empty(), "[{}] no microbatches were given; give at least one", user);
    for (std::size_t b = 0; b < sizes_.size(); ++b) {
      check(sizes_[b] > 0, "[{}] microbatch {} has {} samples; leave empty microbatches out", user, b,
            sizes_[b]);
      samples_ += sizes_[b];
    }
  }

  std::size_t count() const { return sizes_.size(); }
  std::int64_t samples() const { return samples_; }
  std::int64_t operator[](std::size_t b) const { return sizes_[b]; }
  double weight(std::size_t b) const {
    return static_cast<double>(sizes_[b]) / static_cast<double>(samples_);
  }
  std::vector<double> weights() const {
    std::vector<double> all;
    for (std::size_t b = 0; b < sizes_.size(); ++b) all.push_back(weight(b));
    return all;
  }

 private:
  std::vector<std::int64_t> sizes_;
  std::int64_t samples_ = 0;
};

/// The graphs of an operator's microbatches, of which some are kept. Each microbatch only touches its own
/// slot.
template <class Graph>
class MicrobatchGraphs {
 public:
  /// Throws Error naming `user` when an option is negative.
  MicrobatchGraphs(MicrobatchSizes sizes, MicrobatchOptions options, std::string_view user)
      : sizes_(std::move(sizes)), options_(options), graphs_(sizes_.count()) {
    check(options_.graph_bytes >= 0 && options_.concurrency >= 0,
          "[{}] graph_bytes is {} and concurrency {}; neither may be negative", user, options_.graph_bytes,
          options_.concurrency);
  }

  const MicrobatchSizes& sizes() const { return sizes_; }
  const MicrobatchOptions& options() const { return options_; }

  /// for_each_in_order over compute(b, graph of microbatch b), with build(b) for graphs that are not there.
  template <class Build, class Compute, class Fold>
  void for_each(const Build& build, const Compute& compute, const Fold& fold) {
    choose_kept(build);
    const auto run = [&](std::size_t b) {
      if (b >= *kept_) return compute(b, build(b));
      if (!graphs_[b]) graphs_[b].emplace(build(b));
      return compute(b, *graphs_[b]);
    };
    for_each_in_order(sizes_.count(), options_.concurrency, run, fold);
  }
  void release() {
    for (std::optional<Graph>& graph : graphs_) graph.reset();
  }
  std::size_t kept() const {
    return static_cast<std::size_t>(
        std::count_if(graphs_.begin(), graphs_.end(), [](const auto& graph) { return graph.has_value(); }));
  }

 private:
  template <class Build>
  void choose_kept(const Build& build) {
    if (kept_) return;
    if (options_.graph_bytes == 0) {
      kept_ = 0;
      return;
    }
    // The first graph is built alone and measured; the others are taken to grow with their number of samples.
    const std::int64_t before = memory_stats().bytes_in_use;
    graphs_[0].emplace(build(0));
    const auto bytes = static_cast<double>(memory_stats().bytes_in_use - before);
    double total = 0;
    std::size_t kept = 0;
    for (; kept < sizes_.count(); ++kept) {
      total += bytes * std::max(1.0, static_cast<double>(sizes_[kept]) / static_cast<double>(sizes_[0]));
      if (total > static_cast<double>(options_.graph_bytes)) break;
    }
    if (kept == 0) graphs_[0].reset();
    kept_ = kept;
  }

  MicrobatchSizes sizes_;
  MicrobatchOptions options_;
  std::optional<std::size_t> kept_;
  std::vector<std::optional<Graph>> graphs_;
};

/// Remembers a number per microbatch and refuses another one later.
class FixedNumbers {
 public:
  explicit FixedNumbers(std::size_t count) : known_(count) {}

  /// Throws Error naming `user` unless `value` is finite and has the bits of what was given for microbatch b
  /// before.
  void confirm(std::size_t b, double value, std::string_view user, std::string_view what = "loss") {
    check(std::isfinite(value), "[{}] the {} of microbatch {} is {}; check the weights and the pictures",
          user, what, b, value);
    std::optional<double>& known = known_[b];
    check(
        !known || std::bit_cast<std::uint64_t>(*known) == std::bit_cast<std::uint64_t>(value),
        "[{}] the {} of microbatch {} was {} and is now {}; put batch norm in eval mode, switch off "
        "dropout "
        "and augmentation, keep the order of the samples, and make a new operator when weights have changed",
        user, what, b, known.value_or(0), value);
    known = value;
  }
  const std::optional<double>& operator[](std::size_t b) const { return known_[b]; }

 private:
  std::vector<std::optional<double>> known_;
};

/// Refuses weights that are no longer what they were: kept graphs would mix their new numbers with the
/// activations of the old ones. It sees the tensors that it was given; a graph does not tell which leaves it
/// reaches, so others (a bias that is not among an operator's parameters) go unnoticed until a graph is built
/// again and FixedNumbers sees another loss.
class FixedParameters {
 public:
  explicit FixedParameters(std::vector<Tensor> watched = {}) : watched_(std::move(watched)) {}
  explicit FixedParameters(std::span<const Variable> watched) {
    for (const Variable& p : watched) watched_.push_back(p.value());
  }

  /// Throws Error naming `user` unless every tensor has the bits that it had at first, as told by a hash of
  /// 64 bits that depends on each element and its place. One read of the weights.
  void confirm(std::string_view user);

 private:
  std::vector<Tensor> watched_;
  std::vector<std::uint64_t> known_;
};

/// Whether the graph behind `output` normalises by the statistics of its batch, which makes one image's
/// output depend on the others.
bool uses_batch_statistics(const Variable& output);

/// Throws Error naming `user` if there are several microbatches and the graph behind `output` normalises by
/// the statistics of its batch: what the sum over microbatches would be depends on how the data were cut.
void refuse_batch_statistics(const Variable& output, std::size_t microbatches, std::string_view user);

/// sum ← sum + factor · x in f64; x is f32 or f64 of sum's shape.
void accumulate_f64(double factor, const Tensor& x, const Tensor& sum);

/// What operators that are means over microbatches have in common. `compute(b, graph, some)` gives the
/// products of microbatch b's operator with some of the vectors, at most kVectorsAtOnce.
template <class Graph>
class MicrobatchMean {
 public:
  // Vectors that one walk over a graph multiplies with: more hardly share more, and each needs memory.
  static constexpr std::size_t kVectorsAtOnce = 8;

  template <class Build, class Compute>
  static std::vector<Vector> products(MicrobatchGraphs<Graph>& graphs, const Build& build,
                                      const Compute& compute, const LinearOperator& a,
                                      std::span<const Vector> vectors) {
    if (vectors.empty()) return {};  // and build no graphs for them
    std::vector<Vector> sums;
    for (std::size_t k = 0; k < vectors.size(); ++k) sums.push_back(zero_vector(a.shapes(), DType::f64));
    const auto all_products = [&](std::size_t b, const Graph& graph) {
      std::vector<Vector> all;
      for_some(vectors, [&](std::size_t, std::span<const Vector> some) {
        std::vector<Vector> products = compute(b, graph, some);
        std::move(products.begin(), products.end(), std::back_inserter(all));
      });
      return all;
    };
    graphs.for_each(build, all_products, [&](std::size_t b, const std::vector<Vector>& products) {
      for (std::size_t k = 0; k < sums.size(); ++k) {
        for (std::size_t l = 0; l < sums[k].size(); ++l) {
          accumulate_f64(graphs.sizes().weight(b), products[k][l], sums[k][l]);
        }
      }
    });
    for (Vector& sum : sums) {
      for (Tensor& block : sum) block = block.to(a.dtype());
    }
    return sums;
  }

  /// With the microbatches as subsets.
  template <class Build, class Compute>
  static std::vector<QuadraticForms> forms(MicrobatchGraphs<Graph>& graphs, const Build& build,
                                           const Compute& compute, const LinearOperator& a,
                                           std::span<const Vector> vectors) {
    if (vectors.empty()) return {};
    const auto all_forms = [&](std::size_t b, const Graph& graph) {
      std::vector<std::vector<double>> forms;
      for_some(vectors, [&](std::size_t first, std::span<const Vector> some) {
        const std::vector<Vector> products = compute(b, graph, some);
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
    for (QuadraticForms& f : result) f.blocks.assign(a.shapes().size(), 0.0);
    graphs.for_each(build, all_forms, [&](std::size_t b, std::vector<std::vector<double>> forms) {
      for (std::size_t k = 0; k < forms.size(); ++k) {
        for (std::size_t l = 0; l < forms[k].size(); ++l) {
          result[k].blocks[l] += graphs.sizes().weight(b) * forms[k][l];
        }
        result[k].subsets.push_back(std::move(forms[k]));
      }
    });
    return result;
  }

 private:
  template <class Use>
  static void for_some(std::span<const Vector> vectors, const Use& use) {
    for (std::size_t first = 0; first < vectors.size(); first += kVectorsAtOnce) {
      use(first, vectors.subspan(first, std::min(kVectorsAtOnce, vectors.size() - first)));
    }
  }
};

/// The parameters with these indices, in this order. Throws Error naming `user` for one that is not there or
/// is named twice.
std::vector<Variable> select_parameters(const std::vector<Variable>& parameters,
                                        std::span<const std::size_t> indices, std::string_view user);
/// The parameters' shapes. Throws Error naming `user` unless there are some, all leaves of one dtype.
std::vector<Shape> leaf_shapes(const std::vector<Variable>& parameters, std::string_view user);

}  // namespace goshawk
