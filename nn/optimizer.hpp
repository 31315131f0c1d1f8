// Stochastic gradient descent.
#pragma once

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
/// in one pass over each tensor, in place: whoever shares a parameter's elements sees the new ones.
class Sgd {
 public:
  /// Throws Error for options out of range and for a name that occurs twice.
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

}  // namespace goshawk
