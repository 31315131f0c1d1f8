// The derivatives of what normalisation does to a tensor [..., C], first and second order, backward and
// forward, each in as few passes over memory as its sums allow. f32 and f64; the same bits for any number of
// threads.
//
// Two maps, with g = gy where the ReLU passed (all of it without one):
//   affine     y = relu?(x · s + t + residual?)
//   batch norm y = relu?(gamma · x̂ + beta + residual?), x̂ = (x − mean(x)) · inv_std(x), over the batch itself
//
// Every function throws Error naming itself unless all operands have x's dtype, those of x's shape have it,
// and those per channel, mean and inv_std among them, are [C].
#pragma once

#include <span>
#include <vector>

#include "core/tensor.hpp"

namespace goshawk::kernels {

/// Gradients with respect to the map's inputs, or cotangents of such gradients, or tangents of the inputs or
/// of the gradients, where an undefined tensor is zero.
struct NormGradients {
  Tensor x;         ///< of x's shape
  Tensor scale;     ///< [C]: of s or gamma
  Tensor shift;     ///< [C]: of t or beta
  Tensor residual;  ///< of x's shape
};

/// Which of the large gradients are wanted; the others stay undefined. One that is wanted is added to its sum
/// in place, where that is defined, and the sum is returned.
struct NormWants {
  bool x = true;
  bool residual = false;
  Tensor x_sum = {}, residual_sum = {};  ///< of x's shape
};

/// The gradient of the affine map: s · g, Σ g x, Σ g and g. `y`: the map's output where it has a ReLU, else
/// undefined.
NormGradients affine_backward(const Tensor& gy, const Tensor& x, const Tensor& s, const Tensor& y,
                              const NormWants& wants);

/// The forward pass of batch norm with its statistics: x · s + t per channel. Only a batch norm with a ReLU
/// and without a residual may give it to the functions below: they form the ReLU's mask from x again, so that
/// y need not be read.
struct NormMap {
  Tensor s, t;  ///< [C], or undefined
};

/// The gradient of batch norm with the batch's own mean and inv_std [C].
NormGradients batch_norm_backward(const Tensor& gy, const Tensor& x, const Tensor& gamma, const Tensor& mean,
                                  const Tensor& inv_std, const Tensor& y, const NormWants& wants,
                                  const NormMap& map = {});

/// Gradients of ⟨cotangents, backward(gy, x, scale)⟩.
struct NormSecondGradients {
  Tensor gy;     ///< of gy's shape
  Tensor x;      ///< of x's shape
  Tensor scale;  ///< [C]
};

/// Second order of the affine map.
NormSecondGradients affine_double_backward(const NormGradients& cotangents, const Tensor& gy, const Tensor& x,
                                           const Tensor& s, const Tensor& y);

/// Second order of batch norm, through the batch's mean and variance. `first`: what batch_norm_backward
/// returned for the same gy (its scale and shift are used).
NormSecondGradients batch_norm_double_backward(const NormGradients& cotangents, const NormGradients& first,
                                               const Tensor& gy, const Tensor& x, const Tensor& gamma,
                                               const Tensor& mean, const Tensor& inv_std, const Tensor& y,
                                               const NormMap& map = {});

// Tangents, along several directions in one pass over what the directions share; each has the bits that it
// would have alone.

/// How the output of the affine map moves with its inputs: s · dx + ds · x + dt + dr where the ReLU passed.
std::vector<Tensor> affine_tangents(std::span<const NormGradients> tangents, const Tensor& x, const Tensor& s,
                                    const Tensor& y);

/// How the output of batch norm moves with its inputs, through the batch's mean and variance.
std::vector<Tensor> batch_norm_tangents(std::span<const NormGradients> tangents, const Tensor& x,
                                        const Tensor& gamma, const Tensor& mean, const Tensor& inv_std,
                                        const Tensor& y, const NormMap& map = {});

/// A direction in which the arguments of a gradient move: dgy, dx and ds or dgamma, undefined ones not at
/// all.
struct NormMoves {
  Tensor gy, x, scale;
};

/// How the gradient of the affine map moves; x and residual as far as they are wanted, `x_sum` and
/// `residual_sum` unused.
std::vector<NormGradients> affine_backward_tangents(std::span<const NormMoves> moves, const Tensor& gy,
                                                    const Tensor& x, const Tensor& s, const Tensor& y,
                                                    const NormWants& wants);

/// The same for batch norm; `first` as for batch_norm_double_backward.
std::vector<NormGradients> batch_norm_backward_tangents(std::span<const NormMoves> moves,
                                                        const NormGradients& first, const Tensor& gy,
                                                        const Tensor& x, const Tensor& gamma,
                                                        const Tensor& mean, const Tensor& inv_std,
                                                        const Tensor& y, const NormWants& wants,
                                                        const NormMap& map = {});

}  // namespace goshawk::kernels
