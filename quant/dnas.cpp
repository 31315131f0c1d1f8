#include "quant/dnas.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "autograd/ops.hpp"
#include "nn/named_tensors.hpp"
#include "quant/fake_quantize.hpp"
#include "quant/knapsack.hpp"
#include "quant/order.hpp"

namespace goshawk {
namespace {

// Number k of row g in the flattened [groups, candidates], repeated for every output channel.
Tensor repeated_index(std::size_t g, std::size_t k, std::size_t candidates, std::int64_t channels) {
  Tensor index = Tensor::empty({channels}, DType::i64);
  std::fill_n(index.data<std::int64_t>(), channels, static_cast<std::int64_t>(g * candidates + k));
  return index;
}

void check_candidates(const std::vector<int>& candidates) {
  check(!candidates.empty(), "[SuperNet] there are no candidate precisions");
  for (std::size_t k = 0; k < candidates.size(); ++k) {
    check_bits(candidates[k], "SuperNet");
    check(k == 0 || candidates[k - 1] < candidates[k],
          "[SuperNet] the candidates must be ascending, but {} comes before {}",
          candidates[k > 0 ? k - 1 : 0], candidates[k]);
  }
}

}  // namespace

Tensor gumbel_noise(const Shape& shape, DType dtype, Random& random) {
  Tensor noise = Tensor::empty(shape, dtype);
  dispatch_floating(dtype, "gumbel_noise", [&]<class T>() {
    for (T& g : noise.span<T>()) {
      // uniform() is a multiple of 2^-53 below 1; half of that more keeps it off both ends.
      const double u = random.uniform() + 0x1p-54;
      g = static_cast<T>(-std::log(-std::log(u)));
    }
  });
  return noise;
}

Variable gumbel_softmax(const Variable& theta, const Tensor& noise, double temperature) {
  check(temperature > 0 && std::isfinite(temperature), "[gumbel_softmax] the temperature {} must be positive",
        temperature);
  check_same(theta.value(), noise, "gumbel_softmax");
  return softmax(scale(theta + noise, 1 / temperature));
}

Variable size_penalty(const Variable& size, double beta, double gamma) {
  check(size.numel() == 1 && size.item() > 1, "[size_penalty] the size must be one number above 1");
  return scale(exp(scale(log(log(size)), gamma)), beta);
}

double unit_beta(double size, double gamma) {
  check(size > 1, "[unit_beta] the size {} must be above 1", size);
  return std::pow(std::log(size), -gamma);
}

struct SuperNet::Layer {
  // One way to quantize the weights.
  struct Candidate {
    WeightSpec spec;
    Variable step;  // learned; undefined otherwise
    Tensor index;   // of its m in the flattened mixture, once per output channel; undefined when pinned
  };
  std::string name;
  WeightedLayer* layer = nullptr;
  bool pinned = false;
  std::size_t group = 0;
  std::vector<Candidate> candidates;

  Candidate make_candidate(int bits, const WeightSpec& quantizer) const {
    Candidate c{.spec = quantizer, .step = {}, .index = {}};
    c.spec.bits = bits;
    if (bits != kFullPrecision && has_learned_step(c.spec))
      c.step = Variable::leaf(choose_grid(layer->weight.value(), c.spec).scale.clone());
    return c;
  }
  static Variable quantize(const Candidate& c, const Variable& w) {
    if (c.spec.bits == kFullPrecision) return w;
    return c.step.defined() ? learned_step_quantize(w, c.step, c.spec)
                            : fake_quantize(w, c.spec, choose_grid(w.value(), c.spec));
  }
};

SuperNet::SuperNet(Module& model, const SuperNetOptions& options) : model_(model), options_(options) {
  check_candidates(options.candidates);
  check_spec(options.quantizer, "SuperNet");
  const std::size_t candidates = options.candidates.size();
  const auto weighted = weighted_layers(model);
  for (const auto& [pinned, bits] : options.pinned) {
    check_bits(bits, "SuperNet");
    check(
        std::any_of(weighted.begin(), weighted.end(), [&n = pinned](const auto& l) { return l.first == n; }),
        "[SuperNet] the model has no layer '{}' to pin", pinned);
  }
  for (const auto& [name, layer] : weighted) {
    check(!layer->weight_transform,
          "[SuperNet] layer '{}' has a weight transform already; detach its quantizer first", name);
    auto entry = std::make_unique<Layer>();
    entry->name = name;
    entry->layer = layer;
    if (const auto pin = options.pinned.find(name); pin != options.pinned.end()) {
      entry->pinned = true;
      entry->candidates.push_back(entry->make_candidate(pin->second, options.quantizer));
      pinned_bits_ += static_cast<double>(pin->second) * static_cast<double>(layer->weight_count());
      layers_.push_back(std::move(entry));
      continue;
    }
    const std::string group(options.by_block ? block_of(name) : std::string_view(name));
    auto it = std::find_if(groups_.begin(), groups_.end(), [&](const auto& g) { return g.name == group; });
    if (it == groups_.end()) it = groups_.insert(it, {.name = group, .layers = {}, .weights = 0});
    it->layers.push_back(name);
    it->weights += layer->weight_count();
    entry->group = static_cast<std::size_t>(it - groups_.begin());
    for (std::size_t k = 0; k < candidates; ++k) {
      entry->candidates.push_back(entry->make_candidate(options.candidates[k], options.quantizer));
      entry->candidates.back().index = repeated_index(entry->group, k, candidates, layer->out_channels());
    }
    layers_.push_back(std::move(entry));
  }
  check(!groups_.empty(), "[SuperNet] there is no layer to search; pin fewer");

  const DType dtype = layers_.front()->layer->weight.dtype();
  const Shape shape{static_cast<std::int64_t>(groups_.size()), static_cast<std::int64_t>(candidates)};
  candidate_bits_ = Tensor::empty(shape, dtype);
  dispatch_floating(dtype, "SuperNet", [&]<class T>() {
    T* bits = candidate_bits_.data<T>();
    for (const SuperNetGroup& group : groups_) {
      for (int candidate : options.candidates)
        *bits++ = static_cast<T>(static_cast<double>(group.weights) * candidate);
    }
  });
  theta_ = Variable::leaf(Tensor::zeros(shape, dtype));
  mix_ = probabilities().detach();
  for (const auto& entry : layers_) {
    if (entry->pinned && entry->candidates[0].spec.bits == kFullPrecision) continue;
    entry->layer->weight_transform = [this, of = entry.get()](const Variable& w) {
      return mixed_weight(*of, w);
    };
  }
}

SuperNet::~SuperNet() {
  for (const auto& entry : layers_) entry->layer->weight_transform = nullptr;
}

Variable SuperNet::mixed_weight(const Layer& layer, const Variable& w) const {
  if (layer.pinned) return Layer::quantize(layer.candidates[0], w);
  Variable sum;
  for (const Layer::Candidate& c : layer.candidates) {
    const Variable share = channel_scale(Layer::quantize(c, w), gather(mix_, c.index));
    sum = sum.defined() ? sum + share : share;
  }
  return sum;
}

Variable SuperNet::probabilities() const {
  return softmax(theta_);
}

Variable SuperNet::draw(Random& random, double temperature) const {
  return gumbel_softmax(theta_, gumbel_noise(theta_.shape(), theta_.dtype(), random), temperature);
}

void SuperNet::mix(Variable m) {
  check_same(m.value(), theta_.value(), "SuperNet::mix");
  mix_ = std::move(m);
}

Variable SuperNet::size_bits(const Variable& m) const {
  return add_scalar(dot(m, candidate_bits_), pinned_bits_);
}

std::vector<NamedParameter> SuperNet::named_parameters() const {
  std::vector<NamedParameter> parameters;
  for (const auto& entry : layers_) {
    for (const Layer::Candidate& c : entry->candidates) {
      if (!c.step.defined()) continue;
      parameters.push_back({fmt::format("{}.weight_step.{}", entry->name, c.spec.bits), c.step});
    }
  }
  return parameters;
}

std::vector<std::pair<std::string, Tensor>> SuperNet::state() const {
  std::vector<std::pair<std::string, Tensor>> state{{"theta", theta_.value()}};
  for (const NamedParameter& p : named_parameters()) state.emplace_back(p.name, p.variable.value());
  return state;
}

void SuperNet::load_state(std::span<const std::pair<std::string, Tensor>> state, const std::string& source) {
  std::vector<NamedBuffer> own;
  for (const auto& [name, tensor] : this->state()) own.push_back({name, tensor});
  copy_named_tensors(own, state, source, "SuperNet");
}

BitAssignment SuperNet::assignment(const std::vector<int>& choice, int activation_bits) const {
  check_bits(activation_bits, "SuperNet");
  const Tensor log_p = log_softmax(theta_.detach()).value().to(DType::f64);
  const std::size_t candidates = options_.candidates.size();
  BitAssignment bits{.method = "dnas"};
  for (std::size_t g = 0; g < groups_.size(); ++g)
    bits.omega -= log_p.data<double>()[g * candidates + static_cast<std::size_t>(choice[g])];
  for (const auto& entry : layers_) {
    const int width = entry->pinned ? entry->candidates[0].spec.bits
                                    : options_.candidates[static_cast<std::size_t>(choice[entry->group])];
    bits.layers.push_back({.name = entry->name,
                           .parameters = entry->layer->weight_count(),
                           .input_elements = entry->layer->last_input_elements(),
                           .weight = width,
                           .activation = activation_bits,
                           .pinned = entry->pinned});
  }
  return bits;
}

BitAssignment SuperNet::most_probable(int activation_bits) const {
  return most_probable_within(kNoBudget, activation_bits);
}

BitAssignment SuperNet::most_probable_within(double bytes, int activation_bits, double at_least) const {
  const Tensor log_p = log_softmax(theta_.detach()).value().to(DType::f64);
  const double* cost = log_p.data<double>();
  std::vector<std::vector<KnapsackOption>> items;
  double smallest = pinned_bits_ / 8, largest = smallest;
  for (const SuperNetGroup& group : groups_) {
    items.emplace_back();
    const double widest = static_cast<double>(group.weights) * options_.candidates.back() / 8;
    for (int candidate : options_.candidates) {
      check(std::isfinite(*cost),
            "[most_probable_within] a probability of '{}' is not a number; the search diverged: lower its "
            "learning rates",
            group.name);
      const double size = static_cast<double>(group.weights) * candidate / 8;
      // What is saved from the largest network is the second resource: a limit on it is a least size.
      items.back().push_back({.size = {size, at_least > 0 ? widest - size : 0}, .cost = -*cost++});
    }
    smallest += items.back().front().size[0];
    largest += widest;
  }
  check(at_least <= bytes, "[most_probable_within] at least {} bytes are more than the {} allowed", at_least,
        bytes);
  check(fits({smallest, 0}, {bytes, kNoBudget}),
        "[most_probable_within] the smallest network takes {} bytes, more than the {} allowed; raise the "
        "budget "
        "or offer fewer bits",
        smallest, bytes);
  check(at_least <= largest,
        "[most_probable_within] the largest network takes {} bytes, less than the {} asked for; offer more "
        "bits",
        largest, at_least);
  const Sizes budget{bytes - pinned_bits_ / 8, at_least > 0 ? largest - at_least : kNoBudget};
  KnapsackSolution best;
  try {
    best = solve_knapsack(items, budget);
  } catch (const TooManyPartialSolutions& e) {
    fail("[most_probable_within] for {} to {} bytes: {}", at_least, bytes, e.what());
  } catch (const Error&) {
    fail(
        "[most_probable_within] for {} to {} bytes: no assignment lies between; allow a wider range, "
        "or offer more bits",
        at_least, bytes);
  }
  BitAssignment bits = assignment(best.choice, activation_bits);
  if (std::isfinite(bytes)) bits.budget_bytes = bytes;
  return bits;
}

BitAssignment SuperNet::sample(Random& random, int activation_bits) const {
  const Tensor p = softmax(theta_.detach()).value().to(DType::f64);
  const std::size_t candidates = options_.candidates.size();
  std::vector<int> choice;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    double u = random.uniform();
    std::size_t k = 0;
    while (k + 1 < candidates && u >= p.data<double>()[g * candidates + k])
      u -= p.data<double>()[g * candidates + k++];
    choice.push_back(static_cast<int>(k));
  }
  return assignment(choice, activation_bits);
}

}  // namespace goshawk
