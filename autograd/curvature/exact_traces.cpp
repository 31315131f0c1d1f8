#include "autograd/curvature/exact_traces.hpp"

#include <algorithm>
#include <cmath>

#include "autograd/curvature/microbatches.hpp"
#include "autograd/curvature/road.hpp"
#include "autograd/grad.hpp"
#include "core/kernels/grad_norms.hpp"

namespace goshawk {
namespace {

// Directions of one walk over the graph: more share more of what is read, and each needs memory.
constexpr std::int64_t kDirectionsAtOnce = 10;

using SiteSums = ExactTraceState::Site;
struct MicrobatchSums {
  std::vector<SiteSums> sites;
  double loss = 0;
  int directions = 0;
};

void add_norms(const Tensor& norms, const Tensor& weights, DirectionSums& sums) {
  const std::int64_t directions = norms.dim(0), images = norms.dim(1);
  sums.sum.resize(static_cast<std::size_t>(images));
  sums.squares.resize(static_cast<std::size_t>(images));
  for (std::int64_t d = 0; d < directions; ++d) {
    for (std::int64_t n = 0; n < images; ++n) {
      const double value = weights.data<double>()[d * images + n] * norms.data<double>()[d * images + n];
      sums.sum[static_cast<std::size_t>(n)] += value;
      sums.squares[static_cast<std::size_t>(n)] += value * value;
    }
  }
}

Tensor weight_norms(const LinearSite& site, std::span<const Tensor> gradients) {
  if (site.kind == LinearKind::linear) {
    return kernels::linear_weight_grad_norms(site.input.value(), gradients);
  }
  return kernels::conv2d_weight_grad_norms(site.input.value(), gradients, site.weight.shape(), site.params);
}

Tensor activation_norms(std::span<const Tensor> gradients, std::int64_t images) {
  Tensor norms = Tensor::zeros({static_cast<std::int64_t>(gradients.size()), images}, DType::f64);
  for (std::size_t d = 0; d < gradients.size(); ++d) {
    if (!gradients[d].defined()) continue;
    const Tensor row = kernels::sample_norms(gradients[d]);
    std::copy_n(row.data<double>(), images, norms.data<double>() + static_cast<std::int64_t>(d) * images);
  }
  return norms;
}

MicrobatchSums sums_of(const ClassifierGraph& graph, const ExactTraceOptions& options,
                       std::uint64_t first_image) {
  const SoftmaxOutput output(graph.logits.value());
  const std::int64_t images = output.samples();
  const DType dtype = graph.logits.dtype();
  MicrobatchSums result;
  result.loss = output.loss_sum(graph.labels);

  // The outputs of all sites, then their inputs.
  const std::size_t sites = graph.sites.size();
  std::vector<Variable> wanted;
  std::vector<std::size_t> slots;
  for (std::size_t s = 0; s < sites; ++s) {
    const LinearSite& site = graph.sites[s];
    SiteSums& sums = result.sites.emplace_back();
    sums.name = site.name;
    sums.weight_elements = site.weight.numel();
    sums.activation_elements = site.input.numel() / images;
    // A layer that the logits do not depend on gets no gradients, and zeros.
    const DirectionSums none{std::vector<double>(static_cast<std::size_t>(images)),
                             std::vector<double>(static_cast<std::size_t>(images))};
    sums.weight = sums.activation = none;
    if (options.weights) {
      wanted.push_back(site.output);
      slots.push_back(s);
    }
    if (options.activations) {
      wanted.push_back(site.input);
      slots.push_back(sites + s);
    }
  }

  const bool fisher = options.metric == OutputMetric::empirical_fisher;
  const std::int64_t total = options.samples > 0 ? options.samples : fisher ? 1 : output.classes() - 1;
  OutputDirections probes;
  if (options.samples > 0) {
    probes = output.probes(options.probe, options.samples, options.seed, options.stream + first_image, dtype);
  }
  result.directions = static_cast<int>(total);
  for (std::int64_t begin = 0; begin < total; begin += kDirectionsAtOnce) {
    const std::int64_t end = std::min(total, begin + kDirectionsAtOnce);
    OutputDirections some;
    if (options.samples > 0) {
      some.seeds.assign(probes.seeds.begin() + begin, probes.seeds.begin() + end);
      some.weights = rows(probes.weights, begin, end);
    } else if (fisher) {
      some = {.seeds = {output.residual(graph.labels).to(dtype)},
              .weights = Tensor::full({1, images}, DType::f64, 1)};
    } else {
      some = output.factor(begin, end, dtype);
    }
    std::vector<std::vector<Variable>> seeds;
    for (const Tensor& seed : some.seeds) seeds.push_back({seed});
    visit_gradients(
        std::span(&graph.logits, 1), wanted, seeds, [&](std::size_t i, std::span<const Variable> gradients) {
          std::vector<Tensor> values;
          for (const Variable& g : gradients) values.push_back(g.value());
          const std::size_t slot = slots[i];
          if (slot < sites) {
            add_norms(weight_norms(graph.sites[slot], values), some.weights, result.sites[slot].weight);
          } else {
            add_norms(activation_norms(values, images), some.weights, result.sites[slot - sites].activation);
          }
        });
  }
  return result;
}

/// The mean over images from sums over `directions` directions each; for random ones the mean over these too.
Estimate estimate(const DirectionSums& sums, int directions, bool random, bool complete,
                  std::vector<double>& per_image) {
  const auto images = static_cast<double>(sums.sum.size());
  const auto k = static_cast<double>(directions);
  per_image = sums.sum;
  double error = 0;
  if (random) {
    // Var(mean over images) = Σ_n Var_n / k / N², with Var_n from the spread of image n's directions.
    for (std::size_t n = 0; n < per_image.size(); ++n) {
      per_image[n] /= k;
      // Rounding may make it negative; what is not a number stays so.
      const double spread = sums.squares[n] - k * per_image[n] * per_image[n];
      error += (spread < 0 ? 0 : spread) / (k - 1) / k;
    }
    error = std::sqrt(error) / images;
  }
  const Estimate over_images = estimate_mean(per_image);
  Estimate result;
  result.value = over_images.value;
  result.standard_error = error;
  result.samples = directions;
  result.converged = complete;
  if (per_image.size() >= 2) result.subset_error = over_images.standard_error;
  return result;
}

void adopt_state(const ExactTraceOptions& options, const std::vector<std::int64_t>& sizes,
                 ExactTraceState& state) {
  if (state.sizes.empty()) {
    state = {};
    state.metric = options.metric;
    state.samples = options.samples;
    state.probe = options.probe;
    state.seed = options.seed;
    state.stream = options.stream;
    state.weights = options.weights;
    state.activations = options.activations;
    return;
  }
  check(
      state.metric == options.metric && state.samples == options.samples && state.probe == options.probe &&
          state.seed == options.seed && state.stream == options.stream && state.weights == options.weights &&
          state.activations == options.activations,
      "[exact_traces] the state was made with {} samples, seed {}, stream {} and the options say {} samples, "
      "seed {}, stream {}; these, the metric, the probe and what is asked for must be the same; resume with "
      "such options or start with an empty state",
      state.samples, state.seed, state.stream, options.samples, options.seed, options.stream);
  std::size_t images = 0;
  for (const std::int64_t size : state.sizes) images += static_cast<std::size_t>(size);
  bool fits =
      state.sizes.size() <= sizes.size() && std::equal(state.sizes.begin(), state.sizes.end(), sizes.begin());
  for (const SiteSums& site : state.sites) {
    for (const std::vector<double>* sums :
         {&site.weight.sum, &site.weight.squares, &site.activation.sum, &site.activation.squares}) {
      fits = fits && sums->size() == images;
    }
  }
  check(fits,
        "[exact_traces] the state was made from other microbatches, {} of them with {} images in all; "
        "resume with the same or start with an empty state",
        state.sizes.size(), images);
}

void append(DirectionSums& to, const DirectionSums& from) {
  to.sum.insert(to.sum.end(), from.sum.begin(), from.sum.end());
  to.squares.insert(to.squares.end(), from.squares.begin(), from.squares.end());
}

// Adds the next microbatch, which has number b.
void append(ExactTraceState& state, const MicrobatchSums& sums, std::size_t b, std::int64_t images) {
  if (b == 0) {
    state.sites = sums.sites;
  } else {
    check(state.sites.size() == sums.sites.size(),
          "[exact_traces] microbatch {} has {} layers and microbatch 0 has {}", b, sums.sites.size(),
          state.sites.size());
    for (std::size_t s = 0; s < state.sites.size(); ++s) {
      check(state.sites[s].name == sums.sites[s].name,
            "[exact_traces] layer {} of microbatch {} is {} but {} in microbatch 0; a forward pass must not "
            "depend on its data",
            s, b, sums.sites[s].name, state.sites[s].name);
      append(state.sites[s].weight, sums.sites[s].weight);
      append(state.sites[s].activation, sums.sites[s].activation);
    }
  }
  state.directions = sums.directions;
  state.loss += sums.loss;
  state.sizes.push_back(images);
}

// Ends the loop over the microbatches.
struct Stop {};

}  // namespace

ExactTraces exact_traces(const ClassifierPass& pass, const std::vector<std::int64_t>& microbatch_sizes,
                         const ExactTraceOptions& options, ExactTraceState* state) {
  const MicrobatchSizes sizes(microbatch_sizes, "exact_traces");
  check(pass != nullptr, "[exact_traces] the forward pass is empty");
  check(options.samples == 0 || options.samples >= 2,
        "[exact_traces] {} random directions per image have no spread to take an error from; give 2 or more, "
        "or "
        "0 for the exact sum",
        options.samples);
  check(options.samples == 0 || options.metric == OutputMetric::softmax_cross_entropy,
        "[exact_traces] {} random directions were asked for, but the empirical Fisher matrix has one per "
        "image; "
        "leave samples at 0",
        options.samples);
  check(options.weights || options.activations,
        "[exact_traces] neither weights nor activations were asked for; set one of them");
  std::vector<std::uint64_t> first_image(sizes.count());
  for (std::size_t b = 1; b < sizes.count(); ++b) {
    first_image[b] = first_image[b - 1] + static_cast<std::uint64_t>(sizes[b - 1]);
  }
  ExactTraceState fresh;
  ExactTraceState& current = state != nullptr ? *state : fresh;
  adopt_state(options, microbatch_sizes, current);
  const std::size_t first = current.sizes.size();
  const auto compute = [&](std::size_t i) {
    const std::size_t b = first + i;
    const RecordingGuard on(true);
    const MeasuringGuard measuring;
    const ClassifierGraph graph = pass(b);
    check(graph.logits.dim(0) == sizes[b], "[exact_traces] microbatch {} has {} images instead of {}", b,
          graph.logits.dim(0), sizes[b]);
    // The structure of the graph is the same for every microbatch; one of them answers for all.
    if (i == 0) choose_road(graph, Road::exact);
    refuse_batch_statistics(graph.logits, sizes.count(), "exact_traces");
    return sums_of(graph, options, first_image[b]);
  };
  try {
    for_each_in_order(sizes.count() - first, options.concurrency, compute,
                      [&](std::size_t i, const MicrobatchSums& sums) {
                        const std::size_t b = first + i;
                        append(current, sums, b, sizes[b]);
                        if (options.progress && !options.progress(b + 1, sizes.count())) throw Stop();
                      });
  } catch (const Stop&) {
  }
  ExactTraces result;
  result.directions = current.directions;
  for (const std::int64_t size : current.sizes) result.images += size;
  result.loss = current.loss / static_cast<double>(result.images);
  const bool random = options.samples > 0, complete = current.sizes.size() == sizes.count();
  for (const SiteSums& site : current.sites) {
    LayerTraces& layer = result.layers.emplace_back();
    layer.name = site.name;
    layer.weight_elements = site.weight_elements;
    layer.activation_elements = site.activation_elements;
    if (options.weights) {
      layer.weight = estimate(site.weight, result.directions, random, complete, layer.weight_per_image);
    }
    if (options.activations) {
      layer.activation =
          estimate(site.activation, result.directions, random, complete, layer.activation_per_image);
    }
  }
  return result;
}

}  // namespace goshawk
