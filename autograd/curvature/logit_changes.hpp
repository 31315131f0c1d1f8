// What changes of layers' weights do to the logits, and what that costs in loss to second order: layer by
// layer exactly, and jointly for whole assignments.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "autograd/curvature/exact_traces.hpp"

namespace goshawk {

/// A change of one layer's weight, such as Q_b(w) − w.
struct WeightChange {
  std::string layer;  ///< name of its site
  Tensor change;      ///< of the weight's shape and dtype
};

/// How the Jacobian is applied. The numbers agree to rounding.
enum class JacobianWay : std::uint8_t {
  automatic,  ///< whichever takes fewer operations
  forward,    ///< one partial JVP a change
  backward,  ///< C − 1 gradients of the logits for all layers, then ⟨∂z_c/∂y, layer(x, Δw)⟩ for each change:
             ///< the change passes through its own layer only, so it is cheap to have many
};

struct LogitChangeOptions {
  JacobianWay way = JacobianWay::automatic;
  /// Microbatches at work at the same time; 0 for as many as threads. The result does not depend on it.
  int concurrency = 0;
};

/// The expansion of the mean loss, with standard errors from the choice of images.
struct QuadraticCost {
  double first_order = 0;   ///< (1/N) Σ_n (p_n − y_n)ᵀ u_n = ⟨gradient, Δw⟩
  double second_order = 0;  ///< (1/2N) Σ_n u_nᵀ S_n u_n: ½ Δwᵀ H Δw for one layer on the exact road
  double first_order_error = 0, second_order_error = 0;
  double total() const { return first_order + second_order; }
};

/// u_{k,n} = J_{l(k),n} Δw_k for changes k and images n: C numbers each, up to a constant that no cost
/// depends on (u is relative to the most probable class).
class LogitChanges {
 public:
  std::size_t size() const { return changes_.size(); }
  std::int64_t images() const { return probabilities_.dim(0); }
  /// [N, C] of the graph's dtype.
  const Tensor& change(std::size_t k) const { return changes_.at(k); }
  /// Mean cross-entropy without any change.
  double loss() const { return loss_; }

  /// The cost of change k alone.
  QuadraticCost cost(std::size_t k) const { return cost(std::span(&k, 1)); }
  /// The cost of several changes together: u_n = Σ_k u_{k,n}, so all cross-layer terms of the network's
  /// Gauss–Newton quadratic are in it. Those between two layers' second derivatives of the logits are not.
  QuadraticCost cost(std::span<const std::size_t> changes) const;
  /// (1/N) Σ_n u_{k,n}ᵀ S_n u_{k',n} for all k and k', f64 [size, size]: the Gauss–Newton form of every pair
  /// of changes, from which `cost` of any set follows by adding up. One matrix product.
  Tensor pairs() const;

 private:
  friend LogitChanges logit_changes(const ClassifierPass&, const std::vector<std::int64_t>&,
                                    const std::vector<WeightChange>&, const LogitChangeOptions&);
  std::vector<Tensor> changes_;
  Tensor probabilities_, residual_;  // f64 [N, C]
  double loss_ = 0;
};

/// Runs the forward pass of every microbatch once and applies the Jacobian to all changes. For any
/// classifier; `cost(k).second_order` is the Hessian's quadratic form where the exact road holds
/// (choose_road), otherwise the Gauss–Newton one. Throws Error for an unknown layer (naming those there are),
/// a layer whose weight is a constant or another layer's as well, and a change that does not fit its weight.
LogitChanges logit_changes(const ClassifierPass& pass, const std::vector<std::int64_t>& microbatch_sizes,
                           const std::vector<WeightChange>& changes, const LogitChangeOptions& options = {});

}  // namespace goshawk
