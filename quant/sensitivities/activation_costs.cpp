#include "quant/sensitivities/activation_costs.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

#include "autograd/curvature/microbatches.hpp"
#include "autograd/curvature/road.hpp"
#include "autograd/curvature/softmax_output.hpp"
#include "autograd/grad.hpp"
#include "core/kernels/grad_norms.hpp"
#include "quant/fake_quantize.hpp"

namespace goshawk {
namespace {

constexpr std::int64_t kMostClassesSummed = 128;
constexpr int kRandomDirections = 32;
constexpr std::int64_t kDirectionsAtOnce = 10;

/// The quantizer of one layer's input at one width.
struct InputQuantizer {
  int bits = kFullPrecision;
  bool is_signed = false;
  double clip = 1;  // of the fixed scheme
  WeightGrid grid;  // of the asymmetric one

  Tensor error(const Tensor& x) const {
    if (bits == kFullPrecision) return Tensor::zeros(x.shape(), x.dtype());
    const NoGrad no_grad;
    const Variable q =
        grid.scale.defined()
            ? fake_quantize(x, {.bits = bits, .scheme = WeightScheme::asymmetric, .clip = ClipRule::min_max},
                            grid)
            : pact(x, Tensor::full({1}, x.dtype(), clip), bits, is_signed);
    return sub(q, x).value();
  }
};

struct SiteQuantizers {
  std::string name;
  bool is_signed = false;
  std::vector<InputQuantizer> widths;
};

/// Per picture, for one width of one site.
struct WidthSums {
  std::vector<double> perturbation, slope, form;
};
struct SiteSums {
  std::vector<double> trace;
  std::vector<WidthSums> widths;
};

std::vector<SiteQuantizers> calibrate(const SensitivityData& data, const std::vector<int>& bits,
                                      const ActivationCostOptions& options) {
  std::vector<SiteQuantizers> sites;
  std::vector<ActivationObserver> observers;
  for (std::size_t b = 0; b < data.sizes().size(); ++b) {
    const ClassifierGraph graph = data.pass()(b);
    if (b == 0) {
      choose_road(graph, Road::exact);
      for (const LinearSite& site : graph.sites) sites.push_back({.name = site.name, .widths = {}});
      observers.resize(sites.size());
    }
    for (std::size_t s = 0; s < sites.size(); ++s) {
      observers[s].observe(graph.sites[s].input.value(), sites[s].name);
    }
  }
  for (std::size_t s = 0; s < sites.size(); ++s) {
    sites[s].is_signed = observers[s].minimum() < 0;
    for (int width : bits) {
      InputQuantizer& quantizer = sites[s].widths.emplace_back();
      quantizer.bits = width;
      quantizer.is_signed = sites[s].is_signed;
      if (width == kFullPrecision) continue;
      if (options.scheme == ActivationScheme::asymmetric) {
        quantizer.grid = calibrated_grid(observers[s], width, data.dtype(), options.calibration);
        continue;
      }
      check(!sites[s].is_signed || width >= 2,
            "[activation_costs] the input of layer '{}' has negative values, which 1 bit cannot hold; leave "
            "that width out",
            sites[s].name);
      quantizer.clip = calibrated_clip(observers[s], width, sites[s].is_signed, options.calibration);
    }
  }
  return sites;
}

/// Directions of S and, as the last one, p − y for the first order.
struct Seeds {
  std::vector<Tensor> seeds;
  Tensor weights;
};

Seeds directions(const SoftmaxOutput& output, std::int64_t begin, std::int64_t end,
                 const OutputDirections& probes, DType dtype) {
  if (!probes.seeds.empty()) {
    return {{probes.seeds.begin() + begin, probes.seeds.begin() + end}, rows(probes.weights, begin, end)};
  }
  OutputDirections some = output.factor(begin, end, dtype);
  return {std::move(some.seeds), std::move(some.weights)};
}

class MicrobatchCosts {
 public:
  MicrobatchCosts(const ClassifierGraph& graph, const std::vector<SiteQuantizers>& quantizers)
      : graph_(graph), images_(graph.logits.dim(0)) {
    const std::vector<double> zeros(static_cast<std::size_t>(images_));
    for (std::size_t s = 0; s < graph.sites.size(); ++s) {
      SiteSums& site = sums.emplace_back(SiteSums{.trace = zeros, .widths = {}});
      inputs_.push_back(graph.sites[s].input);
      auto& errors = errors_.emplace_back();
      for (const InputQuantizer& quantizer : quantizers[s].widths) {
        errors.push_back(quantizer.error(graph.sites[s].input.value()));
        const Tensor norms = kernels::sample_norms(errors.back());
        site.widths.push_back({norms.to_vector<double>(), zeros, zeros});
      }
    }
  }

  void add_first_order(const Tensor& residual) {
    visit({residual}, [&](std::size_t s, std::span<const Variable> gradients) {
      for (std::size_t w = 0; w < errors_[s].size(); ++w) {
        const Tensor dots = kernels::sample_dots(gradients[0].value(), errors_[s][w]);
        sums[s].widths[w].slope = dots.to_vector<double>();
      }
    });
  }

  /// Adds weights[d][n] · ⟨gradient, ·⟩² of every direction, times `scale`.
  void add_second_order(const Seeds& some, double scale) {
    visit(some.seeds, [&](std::size_t s, std::span<const Variable> gradients) {
      for (std::size_t d = 0; d < gradients.size(); ++d) {
        if (!gradients[d].defined()) continue;
        const double* const weights = some.weights.data<double>() + static_cast<std::int64_t>(d) * images_;
        const Tensor norms = kernels::sample_norms(gradients[d].value());
        for (std::size_t n = 0; n < sums[s].trace.size(); ++n) {
          sums[s].trace[n] += scale * weights[n] * norms.data<double>()[n];
        }
        for (std::size_t w = 0; w < errors_[s].size(); ++w) {
          const Tensor dots = kernels::sample_dots(gradients[d].value(), errors_[s][w]);
          std::vector<double>& form = sums[s].widths[w].form;
          for (std::size_t n = 0; n < form.size(); ++n) {
            const double dot = dots.data<double>()[n];
            form[n] += scale * weights[n] * dot * dot / 2;
          }
        }
      }
    });
  }

  std::vector<SiteSums> sums;

 private:
  template <class Use>
  void visit(const std::vector<Tensor>& seeds, const Use& use) const {
    std::vector<std::vector<Variable>> all;
    for (const Tensor& seed : seeds) all.push_back({seed});
    visit_gradients(std::span(&graph_.logits, 1), inputs_, all, use);
  }

  const ClassifierGraph& graph_;
  std::int64_t images_;
  std::vector<Variable> inputs_;
  std::vector<std::vector<Tensor>> errors_;  // [site][width]
};

void append(std::vector<double>& to, const std::vector<double>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

double error_of(const Estimate& e) {
  return e.samples < 2 ? 0 : e.standard_error;
}

}  // namespace

std::vector<ActivationLayerCosts> activation_costs(const SensitivityData& data,
                                                   const ActivationCostOptions& options) {
  std::vector<int> bits = options.bits;
  check(!bits.empty(), "[activation_costs] there are no widths; give at least one");
  std::sort(bits.begin(), bits.end());
  bits.erase(std::unique(bits.begin(), bits.end()), bits.end());
  for (int b : bits) check_bits(b, "activation_costs");
  check(options.scheme == ActivationScheme::fixed || options.scheme == ActivationScheme::pact ||
            options.scheme == ActivationScheme::asymmetric,
        "[activation_costs] scheme '{}' has no range before training; use fixed or asymmetric",
        activation_scheme_name(options.scheme));
  check(options.directions >= 0, "[activation_costs] {} directions make no sense", options.directions);
  const std::vector<SiteQuantizers> quantizers = calibrate(data, bits, options);
  std::vector<std::uint64_t> first_image(data.sizes().size());
  for (std::size_t b = 1; b < first_image.size(); ++b) {
    first_image[b] = first_image[b - 1] + static_cast<std::uint64_t>(data.sizes()[b - 1]);
  }
  std::vector<ActivationLayerCosts> layers(quantizers.size());
  const auto compute = [&](std::size_t b) {
    const RecordingGuard on(true);
    const ClassifierGraph graph = data.pass()(b);
    refuse_batch_statistics(graph.logits, 2, "activation_costs");
    const SoftmaxOutput output(graph.logits.value());
    const DType dtype = data.dtype();
    const int random = options.directions > 0                  ? options.directions
                       : output.classes() > kMostClassesSummed ? kRandomDirections
                                                               : 0;
    OutputDirections probes;
    if (random > 0) {
      probes = output.probes(OutputProbe::rademacher, random, options.seed, first_image[b], dtype);
    }
    const std::int64_t total = random > 0 ? random : output.classes() - 1;
    MicrobatchCosts costs(graph, quantizers);
    costs.add_first_order(output.residual(graph.labels).to(dtype));
    for (std::int64_t begin = 0; begin < total; begin += kDirectionsAtOnce) {
      const std::int64_t end = std::min(total, begin + kDirectionsAtOnce);
      costs.add_second_order(directions(output, begin, end, probes, dtype), random > 0 ? 1.0 / random : 1.0);
    }
    if (b == 0) {
      for (std::size_t s = 0; s < layers.size(); ++s) {
        layers[s].elements = graph.sites[s].input.numel() / output.samples();
        layers[s].is_picture = graph.sites[s].input.value().raw() == data.images(0).raw();
      }
    }
    return std::move(costs.sums);
  };
  std::vector<SiteSums> all;
  for_each_in_order(data.sizes().size(), options.concurrency, compute,
                    [&](std::size_t, std::vector<SiteSums> sums) {
                      if (all.empty()) {
                        all = std::move(sums);
                        return;
                      }
                      for (std::size_t s = 0; s < all.size(); ++s) {
                        append(all[s].trace, sums[s].trace);
                        for (std::size_t w = 0; w < bits.size(); ++w) {
                          append(all[s].widths[w].perturbation, sums[s].widths[w].perturbation);
                          append(all[s].widths[w].slope, sums[s].widths[w].slope);
                          append(all[s].widths[w].form, sums[s].widths[w].form);
                        }
                      }
                    });
  for (std::size_t s = 0; s < layers.size(); ++s) {
    ActivationLayerCosts& layer = layers[s];
    layer.name = quantizers[s].name;
    layer.is_signed = quantizers[s].is_signed;
    const Estimate trace = estimate_mean(all[s].trace);
    layer.trace = {.value = trace.value, .samples = trace.samples, .converged = true, .subset_error = {}};
    if (trace.samples >= 2) layer.trace.subset_error = trace.standard_error;
    for (std::size_t w = 0; w < bits.size(); ++w) {
      const WidthSums& sums = all[s].widths[w];
      ActivationCost& cost = layer.widths.emplace_back();
      cost.bits = bits[w];
      cost.perturbation = estimate_mean(sums.perturbation).value;
      cost.hawq_v2 = std::max(layer.mean_trace(), 0.0) * cost.perturbation;
      const Estimate slope = estimate_mean(sums.slope), form = estimate_mean(sums.form);
      cost.first_order = slope.value;
      cost.first_order_error = error_of(slope);
      std::vector<double> sizes = sums.slope;
      for (double& v : sizes) v = std::abs(v);
      cost.first_order_size = estimate_mean(sizes).value;
      cost.second_order = form.value;
      cost.second_order_error = error_of(form);
    }
  }
  return layers;
}

Costs to_costs(const std::vector<ActivationLayerCosts>& layers, ActivationCount count, bool exact) {
  Costs costs{.source = exact ? "activation expansion" : "hawq-v2 of activations"};
  for (const ActivationLayerCosts& from : layers) {
    if (from.is_picture) continue;
    LayerCosts& layer = costs.layers.emplace_back();
    layer.name = from.name;
    layer.parameters = count == ActivationCount::layers ? 1 : from.elements;
    if (!exact) layer.score = from.mean_trace();
    for (const ActivationCost& cost : from.widths) {
      layer.choices.push_back({.bits = cost.bits,
                               .bytes = static_cast<double>(layer.parameters) * cost.bits / 8,
                               .cost = exact ? cost.first_order + cost.second_order : cost.hawq_v2});
    }
  }
  return costs;
}

}  // namespace goshawk
