// DNAS (Wu et al., "Mixed Precision Quantization of ConvNets via Differentiable Neural Architecture Search",
// arXiv 1812.00090): a super-net whose layers mix candidate precisions, and the probabilities that are
// learned for them. The search itself is in quant/dnas_search.hpp, the formulas in docs/dnas.md.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/random.hpp"
#include "nn/layers.hpp"
#include "quant/bits.hpp"
#include "quant/quantizer.hpp"

namespace goshawk {

/// Independent standard Gumbel numbers −log(−log u), u uniform, drawn in row-major order.
Tensor gumbel_noise(const Shape& shape, DType dtype, Random& random);

/// softmax((θ + noise)/T) over the last dimension of [groups, candidates] (Jang et al. 2017, equation 2;
/// DNAS's m). With Gumbel noise and T → 0 a row becomes one-hot, each place as often as softmax(θ) says; with
/// T → ∞ it becomes uniform. Differentiable in θ. Throws Error unless T > 0.
Variable gumbel_softmax(const Variable& theta, const Tensor& noise, double temperature);

/// β (log size)^γ, the factor by which DNAS multiplies the cross-entropy. `size` is a scalar above 1, in
/// bits.
Variable size_penalty(const Variable& size, double beta, double gamma);
/// The β that makes the penalty of `size` 1.
double unit_beta(double size, double gamma);

struct SuperNetOptions {
  std::vector<int> candidates = {1, 2, 3, 4, 8};  ///< ascending; 32 is full precision
  /// Of every candidate but 32; `bits` is ignored. Learned steps are cheapest: one per candidate and layer.
  WeightSpec quantizer = {
      .scheme = WeightScheme::mid_rise, .granularity = Granularity::channel, .clip = ClipRule::learned};
  bool by_block = true;  ///< layers of one block (block_of) share their precision, as in the paper
  std::map<std::string, int> pinned = {};  ///< layers that are not searched, and their bits
};

/// Layers that have one precision together, and one row of θ.
struct SuperNetGroup {
  std::string name;  ///< of the block, or of the layer
  std::vector<std::string> layers;
  std::int64_t weights = 0;
};

/// Turns the weighted layers of a model into mixtures: each layer's weight becomes Σ_k m_k Q_k(W), with the
/// layer's one W for all candidates and the row m of its group. (A layer is linear in its weight, so this is
/// also the mixture of the candidates' outputs, for the price of one.) Takes the mixtures off again when it
/// is destroyed. The model must outlive it, hold the weights that the search starts from, and have no
/// transforms.
class SuperNet {
 public:
  /// Throws Error for candidates that are not ascending widths of 1 to 8 or 32, for a quantizer that cannot
  /// be, for a pinned layer that the model does not have, and when nothing is left to search.
  explicit SuperNet(Module& model, const SuperNetOptions& options = {});
  ~SuperNet();
  SuperNet(const SuperNet&) = delete;
  SuperNet& operator=(const SuperNet&) = delete;

  Module& model() const { return model_; }
  const SuperNetOptions& options() const { return options_; }
  /// In network order, without the pinned layers.
  const std::vector<SuperNetGroup>& groups() const { return groups_; }

  /// The leaf θ [groups, candidates], of the model's dtype, zero at first: all precisions equally likely.
  const Variable& theta() const { return theta_; }
  /// softmax(θ).
  Variable probabilities() const;
  /// A Gumbel-softmax sample from θ, not yet in use.
  Variable draw(Random& random, double temperature) const;
  /// From now on forward mixes with m [groups, candidates]; at first m = probabilities(). Gradients flow into
  /// m unless it is a constant.
  void mix(Variable m);

  /// Bits of all weights under m, Σ n_g Σ_k m_gk b_k and the pinned layers': a scalar, differentiable in m.
  Variable size_bits(const Variable& m) const;

  /// The learned steps, "conv1.weight_step.2" for candidate 2: leaves, trained with the model's weights.
  std::vector<NamedParameter> named_parameters() const;
  /// θ and the learned steps, by name. The tensors share their elements with this object.
  std::vector<std::pair<std::string, Tensor>> state() const;
  /// Copies what state() gave. `source` names the file in errors: a missing, extra or misshapen tensor.
  void load_state(std::span<const std::pair<std::string, Tensor>> state, const std::string& source);

  // Assignments; `activation_bits` is written to every layer. Their omega is −log of their probability.
  /// The most probable candidate of every group.
  BitAssignment most_probable(int activation_bits = kFullPrecision) const;
  /// The most probable assignment whose weights take at most this many bytes, and at least `at_least` of them
  /// when a network of a certain size is wanted from a search that ended at a smaller one: exact, by the
  /// knapsack solver. Throws Error when none fits, with the smallest size there is, or when none lies
  /// between.
  BitAssignment most_probable_within(double bytes, int activation_bits = kFullPrecision,
                                     double at_least = 0) const;
  /// Every group drawn from softmax(θ), as the paper draws the networks that it trains.
  BitAssignment sample(Random& random, int activation_bits = kFullPrecision) const;

 private:
  struct Layer;
  BitAssignment assignment(const std::vector<int>& choice, int activation_bits) const;
  Variable mixed_weight(const Layer& layer, const Variable& w) const;

  Module& model_;
  SuperNetOptions options_;
  std::vector<SuperNetGroup> groups_;
  std::vector<std::unique_ptr<Layer>> layers_;
  Variable theta_, mix_;
  Tensor candidate_bits_;   // [groups, candidates]: bits of the group's weights at each candidate
  double pinned_bits_ = 0;  // of the pinned layers' weights
};

}  // namespace goshawk
