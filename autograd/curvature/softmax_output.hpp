// The curvature of softmax cross-entropy in the logits: S = diag(p) − p pᵀ per sample, its factors, products
// and random probes, all without cancellation on samples that the network is certain of.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.hpp"

namespace goshawk {

/// Directions in logit space with weights: for every sample n, Σ_d weights[d][n] · seed_d,n seed_d,nᵀ is S_n,
/// or has it for its mean. Seeds are of order 1 however small S_n is, so what is made from them in f32
/// neither underflows nor loses digits.
struct OutputDirections {
  std::vector<Tensor> seeds;  ///< each [N, C] of the asked type
  Tensor weights;             ///< f64 [directions, N]
};

enum class OutputProbe : std::uint8_t {
  rademacher,  ///< L z with S = L Lᵀ and random signs z
  classes,     ///< e_c − p with c drawn from p: the gradients of the true Fisher matrix
};

/// The C × C matrix M_n between the Jacobians J_n of the logits in a matrix (1/N) Σ_n J_nᵀ M_n J_n.
enum class OutputMetric : std::uint8_t {
  softmax_cross_entropy,  ///< S_n = diag(p_n) − p_n p_nᵀ, the Hessian of the loss in the logits: the
                          ///< generalised Gauss–Newton matrix, which is the true Fisher matrix as well
  empirical_fisher,  ///< (p_n − y_n)(p_n − y_n)ᵀ: the mean of g_n g_nᵀ over per-sample gradients g_n
};

/// p = softmax(z) of a batch of logits in f64, and what follows from it.
class SoftmaxOutput {
 public:
  /// logits [N, C], f32 or f64, finite, C ≥ 2. Throws Error otherwise.
  explicit SoftmaxOutput(const Tensor& logits);

  std::int64_t samples() const { return p_.dim(0); }
  std::int64_t classes() const { return p_.dim(1); }
  /// f64 [N, C], each to full relative precision.
  const Tensor& probabilities() const { return p_; }
  /// The most probable class of sample n (the first of equals).
  std::int64_t top(std::int64_t n) const { return top_[static_cast<std::size_t>(n)]; }

  /// Directions [begin, end) of the C − 1 of the factorisation S = Σ_d D_d v_d v_dᵀ: with the classes in an
  /// order that ends with the most probable one and r_d = Σ_{j>d} p_j,
  ///   v_d = e_d − Σ_{j>d} (p_j / r_d) e_j,   D_d = p_d r_d / r_{d−1}
  /// (the Cholesky factor of the multinomial covariance: Tanabe and Sagae, J. R. Stat. Soc. B 54(1), 1992).
  /// Sums of positive numbers only.
  OutputDirections factor(std::int64_t begin, std::int64_t end, DType dtype) const;
  /// `count` random directions per sample with S as the mean of weights · seed seedᵀ. Sample n draws from the
  /// random stream (seed, first_stream + n), so how the data are cut does not matter.
  OutputDirections probes(OutputProbe probe, int count, std::uint64_t seed, std::uint64_t first_stream,
                          DType dtype) const;

  /// S_n u_n for every sample: [N, C] of u's type.
  Tensor product(const Tensor& u) const;
  /// u_nᵀ S_n u_n = Σ_c p_c (u_c − pᵀu)²: f64 [N].
  Tensor forms(const Tensor& u) const;
  /// p − y for one-hot y: f64 [N, C]. Throws Error unless labels are i64 [N], each in [0, C).
  Tensor residual(const Tensor& labels) const;
  /// −log p_label summed over the samples. Throws Error as residual does.
  double loss_sum(const Tensor& labels) const;

 private:
  void check_labels(const Tensor& labels) const;

  Tensor p_;
  Tensor log_p_;
  std::vector<std::int64_t> top_;
};

}  // namespace goshawk
