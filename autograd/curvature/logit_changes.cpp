#include "autograd/curvature/logit_changes.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "autograd/curvature/microbatches.hpp"
#include "autograd/grad.hpp"
#include "autograd/jvp.hpp"
#include "core/kernels/gemm.hpp"
#include "core/kernels/grad_norms.hpp"

namespace goshawk {
namespace {

using Index = std::int64_t;
// Directions of one walk over the graph.
constexpr std::size_t kDirectionsAtOnce = 10;
// Images of one matrix product: it should stay near the caches.
constexpr Index kImagesOfPairs = 128;

struct MicrobatchChanges {
  std::vector<Tensor> u;  // [change]: [N, C]
  Tensor probabilities, residual;
  double loss = 0;
};

/// The changes of each site, by its place in the graph. Throws Error for one that fits nowhere.
std::vector<std::vector<std::size_t>> changes_of_sites(const ClassifierGraph& graph,
                                                       const std::vector<WeightChange>& changes) {
  std::map<std::string, std::size_t> places;
  std::map<std::pair<const Node*, int>, std::string> layer_of_weight;
  std::vector<std::string> names;
  for (std::size_t s = 0; s < graph.sites.size(); ++s) {
    names.push_back(graph.sites[s].name);
    check(places.emplace(names.back(), s).second,
          "[logit_changes] layer '{}' is used more than once; its uses cannot be told apart", names.back());
    const Variable& weight = graph.sites[s].weight;
    if (!weight.requires_grad()) continue;
    const auto [first, own] =
        layer_of_weight.emplace(std::pair(weight.node().get(), weight.output_index()), names.back());
    check(
        own,
        "[logit_changes] layers '{}' and '{}' share their weight, so neither can change alone; give each its "
        "own",
        first->second, names.back());
  }
  std::vector<std::vector<std::size_t>> of_site(graph.sites.size());
  for (std::size_t k = 0; k < changes.size(); ++k) {
    const auto place = places.find(changes[k].layer);
    check(place != places.end(), "[logit_changes] there is no layer '{}'; there are {}", changes[k].layer,
          fmt::join(names, ", "));
    const Variable& weight = graph.sites[place->second].weight;
    const Tensor& change = changes[k].change;
    check(weight.requires_grad(),
          "[logit_changes] the weight of layer '{}' is a constant; make it a leaf to change it",
          changes[k].layer);
    check(change.defined() && change.shape() == weight.shape() && change.dtype() == weight.dtype(),
          "[logit_changes] change {} is {} {} but the weight of layer '{}' is {} {}", k,
          change.defined() ? dtype_name(change.dtype()) : "undefined",
          change.defined() ? change.shape() : Shape{}, changes[k].layer, weight.dtype(), weight.shape());
    of_site[place->second].push_back(k);
  }
  return of_site;
}

void forward_changes(const ClassifierGraph& graph, const std::vector<WeightChange>& changes,
                     const std::vector<std::vector<std::size_t>>& of_site, std::vector<Tensor>& u) {
  for (std::size_t s = 0; s < of_site.size(); ++s) {
    for (std::size_t begin = 0; begin < of_site[s].size(); begin += kDirectionsAtOnce) {
      const std::size_t end = std::min(of_site[s].size(), begin + kDirectionsAtOnce);
      std::vector<std::vector<Variable>> directions;
      for (std::size_t i = begin; i < end; ++i) directions.push_back({changes[of_site[s][i]].change});
      const auto tangents = jvp_many(std::span(&graph.logits, 1), std::span(&graph.sites[s].weight, 1),
                                     directions, {.allow_unused = true});
      for (std::size_t i = begin; i < end; ++i) u[of_site[s][i]] = tangents[i - begin][0].value();
    }
  }
}

/// Subtracts from every row its entry at the sample's most probable class.
void make_relative(const SoftmaxOutput& output, const Tensor& u) {
  dispatch_floating(u.dtype(), "logit_changes", [&]<class T>() {
    const Index classes = u.dim(1);
    for (Index n = 0; n < u.dim(0); ++n) {
      T* const row = u.data<T>() + n * classes;
      const T reference = row[output.top(n)];
      for (Index c = 0; c < classes; ++c) row[c] -= reference;
    }
  });
}

/// Seeds e_c − e_top for the d-th class c other than the most probable one.
Tensor difference_seed(const SoftmaxOutput& output, Index d, DType dtype) {
  Tensor seed = Tensor::zeros(output.probabilities().shape(), dtype);
  dispatch_floating(dtype, "logit_changes", [&]<class T>() {
    for (Index n = 0; n < output.samples(); ++n) {
      T* const row = seed.data<T>() + n * output.classes();
      row[output.top(n)] = T{-1};
      row[d < output.top(n) ? d : d + 1] = T{1};
    }
  });
  return seed;
}

void backward_changes(const ClassifierGraph& graph, const SoftmaxOutput& output,
                      const std::vector<WeightChange>& changes,
                      const std::vector<std::vector<std::size_t>>& of_site, std::vector<Tensor>& u) {
  const DType dtype = graph.logits.dtype();
  for (Tensor& t : u) t = Tensor::zeros(graph.logits.shape(), dtype);
  std::vector<Variable> outputs;
  std::vector<std::size_t> places;
  for (std::size_t s = 0; s < of_site.size(); ++s) {
    if (of_site[s].empty()) continue;
    outputs.push_back(graph.sites[s].output);
    places.push_back(s);
  }
  const Index directions = output.classes() - 1;
  for (Index begin = 0; begin < directions; begin += static_cast<Index>(kDirectionsAtOnce)) {
    const Index end = std::min(directions, begin + static_cast<Index>(kDirectionsAtOnce));
    std::vector<std::vector<Variable>> seeds;
    for (Index d = begin; d < end; ++d) seeds.push_back({difference_seed(output, d, dtype)});
    visit_gradients(
        std::span(&graph.logits, 1), outputs, seeds, [&](std::size_t i, std::span<const Variable> gradients) {
          const LinearSite& site = graph.sites[places[i]];
          for (std::size_t k : of_site[places[i]]) {
            const Tensor y = linear_output(site, changes[k].change);
            for (Index d = begin; d < end; ++d) {
              const Variable& g = gradients[static_cast<std::size_t>(d - begin)];
              if (!g.defined()) continue;
              const Tensor dots = kernels::sample_dots(g.value(), y);
              dispatch_floating(dtype, "logit_changes", [&]<class T>() {
                for (Index n = 0; n < output.samples(); ++n) {
                  const Index c = d < output.top(n) ? d : d + 1;
                  u[k].data<T>()[n * output.classes() + c] = static_cast<T>(dots.data<double>()[n]);
                }
              });
            }
          }
        });
  }
}

/// A JVP passes through what follows its layer: half the network on average, at a forward pass's price. C − 1
/// gradients pass through all of it once, and each change through its own layer.
bool backward_is_cheaper(std::size_t changes, std::size_t layers, Index classes) {
  const auto k = static_cast<double>(changes);
  return static_cast<double>(classes - 1) + k / static_cast<double>(layers) < k / 2;
}

Tensor concatenate(const std::vector<Tensor>& parts) {
  std::int64_t total = 0;
  for (const Tensor& part : parts) total += part.dim(0);
  Tensor whole = Tensor::empty({total, parts.front().dim(1)}, parts.front().dtype());
  std::byte* to = whole.raw();
  for (const Tensor& part : parts) to = std::copy_n(part.raw(), part.bytes(), to);
  return whole;
}

}  // namespace

LogitChanges logit_changes(const ClassifierPass& pass, const std::vector<std::int64_t>& microbatch_sizes,
                           const std::vector<WeightChange>& changes, const LogitChangeOptions& options) {
  const MicrobatchSizes sizes(microbatch_sizes, "logit_changes");
  check(pass != nullptr, "[logit_changes] the forward pass is empty");
  const auto compute = [&](std::size_t b) {
    const RecordingGuard on(true);
    const MeasuringGuard measuring;
    const ClassifierGraph graph = pass(b);
    check(graph.logits.dim(0) == sizes[b], "[logit_changes] microbatch {} has {} images instead of {}", b,
          graph.logits.dim(0), sizes[b]);
    refuse_batch_statistics(graph.logits, sizes.count(), "logit_changes");
    const auto of_site = changes_of_sites(graph, changes);
    const SoftmaxOutput output(graph.logits.value());
    MicrobatchChanges result;
    result.probabilities = output.probabilities();
    result.residual = output.residual(graph.labels);
    result.loss = output.loss_sum(graph.labels);
    result.u.resize(changes.size());
    // One gradient for the sum over all images is each image's own only where images do not depend on each
    // other.
    const bool coupled = uses_batch_statistics(graph.logits);
    check(!coupled || options.way != JacobianWay::backward,
          "[logit_changes] batch normalisation is in train mode, where an image's logits depend on the "
          "others'; "
          "set eval mode, or use JacobianWay::forward");
    const bool backward = options.way == JacobianWay::backward ||
                          (options.way == JacobianWay::automatic && !coupled &&
                           backward_is_cheaper(changes.size(), graph.sites.size(), output.classes()));
    if (backward) {
      backward_changes(graph, output, changes, of_site, result.u);
    } else {
      forward_changes(graph, changes, of_site, result.u);
      for (const Tensor& u : result.u) make_relative(output, u);
    }
    return result;
  };
  std::vector<std::vector<Tensor>> u(changes.size());
  std::vector<Tensor> probabilities, residual;
  LogitChanges result;
  for_each_in_order(sizes.count(), options.concurrency, compute,
                    [&](std::size_t, const MicrobatchChanges& part) {
                      for (std::size_t k = 0; k < u.size(); ++k) u[k].push_back(part.u[k]);
                      probabilities.push_back(part.probabilities);
                      residual.push_back(part.residual);
                      result.loss_ += part.loss / static_cast<double>(sizes.samples());
                    });
  for (const std::vector<Tensor>& parts : u) result.changes_.push_back(concatenate(parts));
  result.probabilities_ = concatenate(probabilities);
  result.residual_ = concatenate(residual);
  return result;
}

Tensor LogitChanges::pairs() const {
  const auto count = static_cast<Index>(changes_.size());
  const Index n = images(), classes = probabilities_.dim(1);
  Tensor sum = Tensor::zeros({count, count}, DType::f64);
  if (count == 0) return sum;
  // Rows √p_c (u_c − pᵀu), whose products are uᵀ S u' without cancellation; some images at a time.
  for (Index begin = 0; begin < n; begin += kImagesOfPairs) {
    const Index end = std::min(n, begin + kImagesOfPairs), width = (end - begin) * classes;
    const Tensor rows = Tensor::empty({count, width}, DType::f64);
    dispatch_floating(changes_.front().dtype(), "LogitChanges", [&]<class T>() {
      parallel_for(count, 1, [&](Index first, Index last) {
        for (Index k = first; k < last; ++k) {
          double* to = rows.data<double>() + k * width;
          for (Index i = begin; i < end; ++i, to += classes) {
            const double* const p = probabilities_.data<double>() + i * classes;
            const T* const u = changes_[static_cast<std::size_t>(k)].data<T>() + i * classes;
            double mean = 0;
            for (Index c = 0; c < classes; ++c) mean += p[c] * static_cast<double>(u[c]);
            for (Index c = 0; c < classes; ++c) {
              to[c] = std::sqrt(p[c]) * (static_cast<double>(u[c]) - mean);
            }
          }
        }
      });
    });
    accumulate_f64(1 / static_cast<double>(n), kernels::matmul(rows, rows, false, true), sum);
  }
  return sum;
}

QuadraticCost LogitChanges::cost(std::span<const std::size_t> changes) const {
  for (std::size_t k : changes) {
    check(k < changes_.size(), "[LogitChanges] there is no change {}; there are {}", k, changes_.size());
  }
  const Index n = images(), classes = probabilities_.dim(1);
  std::vector<double> first(static_cast<std::size_t>(n)), second(static_cast<std::size_t>(n));
  const auto run = [&]<class T>() {
    std::vector<const T*> rows_of;
    for (std::size_t k : changes) rows_of.push_back(changes_[k].data<T>());
    parallel_for(n, 64, [&](Index begin, Index end) {
      std::vector<double> u(static_cast<std::size_t>(classes));
      for (Index i = begin; i < end; ++i) {
        const double* const p = probabilities_.data<double>() + i * classes;
        const double* const r = residual_.data<double>() + i * classes;
        std::fill(u.begin(), u.end(), 0.0);
        for (const T* row : rows_of) {
          for (Index c = 0; c < classes; ++c)
            u[static_cast<std::size_t>(c)] += static_cast<double>(row[i * classes + c]);
        }
        double slope = 0, mean = 0, form = 0;
        for (Index c = 0; c < classes; ++c) {
          slope += r[c] * u[static_cast<std::size_t>(c)];
          mean += p[c] * u[static_cast<std::size_t>(c)];
        }
        for (Index c = 0; c < classes; ++c) {
          const double difference = u[static_cast<std::size_t>(c)] - mean;
          form += p[c] * difference * difference;
        }
        first[static_cast<std::size_t>(i)] = slope;
        second[static_cast<std::size_t>(i)] = form / 2;
      }
    });
  };
  if (!changes.empty()) dispatch_floating(changes_[changes.front()].dtype(), "LogitChanges", run);
  const Estimate slope = estimate_mean(first), form = estimate_mean(second);
  return {.first_order = slope.value,
          .second_order = form.value,
          .first_order_error = slope.standard_error,
          .second_order_error = form.standard_error};
}

}  // namespace goshawk
