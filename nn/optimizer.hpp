// The optimisers: stochastic gradient descent and Adam.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "nn/module.hpp"

namespace goshawk {

/// Parameters that are treated alike.
struct ParameterGroup {
  std::vector<NamedParameter> parameters;
  double lr_multiplier = 1;  ///< times the optimiser's learning rate
  double weight_decay = 0;
};

struct SgdOptions {
  double lr = 0.1;
  double momentum = 0;
  bool nesterov = false;    ///< needs momentum > 0
  double weight_decay = 0;  ///< of the constructor without groups
};

/// SGD with PyTorch's semantics (Sutskever et al. 2013 for the momentum; no dampening). With g the gradient:
///   g ← g + weight_decay · p;  m ← momentum · m + g;  p ← p − lr · (nesterov ? g + momentum · m : m),
/// in one pass over all parameters, in place: whoever shares a parameter's elements sees the new ones.
class Sgd {
 public:
  /// Throws Error for options out of range, undefined parameters, and a name or a tensor that occurs twice:
  /// what layers share is given once.
  Sgd(std::vector<ParameterGroup> groups, const SgdOptions& options);
  Sgd(std::vector<NamedParameter> parameters, const SgdOptions& options);

  /// One step. `gradients` has one entry per parameter, in the order of parameters(), as grad() returns them.
  void step(std::span<const Variable> gradients);

  double lr() const { return options_.lr; }
  /// Schedules are functions of the step (nn/schedule.hpp); their value is set before each step.
  void set_lr(double lr);
  /// All parameters, group after group: what to differentiate with respect to.
  const std::vector<Variable>& parameters() const { return parameters_; }

  /// The momentum buffers as "momentum.<parameter name>", in memory layout (they go back into an optimiser,
  /// not to another framework). The tensors share their elements with the optimiser. Empty without momentum.
  std::vector<NamedBuffer> state() const;
  /// Copies what state() gave, so that training goes on with the same bits. `source` names the file in
  /// errors: a missing, extra or misshapen tensor, or another dtype.
  void load_state(std::span<const std::pair<std::string, Tensor>> state, const std::string& source);

 private:
  SgdOptions options_;
  std::vector<ParameterGroup> groups_;
  std::vector<Variable> parameters_;
  std::vector<Tensor> momentum_;  ///< one per parameter, or empty without momentum
};

struct AdamOptions {
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
};

/// Adam (Kingma & Ba, ICLR 2015, Algorithm 1) with PyTorch's semantics. At step t, with g the gradient:
///   g ← g + weight_decay · p;  m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;
///   p ← p − lr · m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + eps), in place.
class Adam {
 public:
  /// Throws Error for options out of range, undefined parameters, and a name or a tensor that occurs twice:
  /// what layers share is given once.
  Adam(std::vector<NamedParameter> parameters, const AdamOptions& options);

  /// One step. `gradients` has one entry per parameter, in the order of parameters(), as grad() returns them.
  void step(std::span<const Variable> gradients);

  double lr() const { return options_.lr; }
  void set_lr(double lr);
  const std::vector<Variable>& parameters() const { return variables_; }

  /// "adam.step" (i64 [1]), and "adam.m.<parameter name>" and "adam.v.<parameter name>" for every parameter.
  /// The tensors share their elements with the optimiser.
  std::vector<NamedBuffer> state() const;
  /// Copies what state() gave, so that training goes on with the same bits; errors as of Sgd::load_state.
  void load_state(std::span<const std::pair<std::string, Tensor>> state, const std::string& source);

 private:
  AdamOptions options_;
  std::vector<NamedParameter> parameters_;
  std::vector<Variable> variables_;
  std::vector<Tensor> first_, second_;  ///< m and v, one per parameter
  Tensor steps_;                        ///< steps taken, i64 [1]
};

}  // namespace goshawk
