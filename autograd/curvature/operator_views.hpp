// Operators made from another one: damped, shifted, scaled, negated, and restricted to a complement.
#pragma once

#include <span>
#include <vector>

#include "autograd/curvature/operator.hpp"

namespace goshawk {

/// scale · A + shift · I. Refers to A, which must outlive it.
class AffineOperator final : public LinearOperator {
 public:
  /// Throws Error unless scale and shift are finite.
  AffineOperator(const LinearOperator& a, double scale, double shift);
  AffineOperator(const LinearOperator&& a, double scale, double shift) = delete;

  const std::vector<Shape>& shapes() const override { return a_->shapes(); }
  DType dtype() const override { return a_->dtype(); }
  Vector apply(const Vector& v) const override;
  std::vector<Vector> apply_many(std::span<const Vector> vectors) const override;
  /// With A's subsets b, as scale · A_b + shift · I.
  std::vector<QuadraticForms> quadratic_forms(std::span<const Vector> vectors) const override;
  std::vector<double> subset_weights() const override { return a_->subset_weights(); }

 private:
  const LinearOperator* a_;
  double scale_, shift_;
};

/// A + δ I with δ ≥ 0, as trust-region and natural-gradient methods invert it. Throws Error for a negative δ.
AffineOperator damped(const LinearOperator& a, double damping);
/// A − σ I: its eigenvalues are those of A seen from σ.
AffineOperator shifted(const LinearOperator& a, double sigma);
/// c A.
AffineOperator scaled(const LinearOperator& a, double factor);
/// −A: its largest eigenvalues are A's most negative ones.
AffineOperator negated(const LinearOperator& a);
AffineOperator damped(const LinearOperator&& a, double damping) = delete;
AffineOperator shifted(const LinearOperator&& a, double sigma) = delete;
AffineOperator scaled(const LinearOperator&& a, double factor) = delete;
AffineOperator negated(const LinearOperator&& a) = delete;

/// P A P with P = I − Q Qᵀ, Q an orthonormal basis of the given vectors: A restricted to their complement. If
/// they are eigenvectors of A, the other eigenpairs stay as they are and theirs become zero. Refers to A,
/// which must outlive it.
class DeflatedOperator final : public LinearOperator {
 public:
  /// Orthonormalises copies of `vectors`; those that depend on the ones before them are left out. Throws
  /// Error unless each has the operator's blocks.
  DeflatedOperator(const LinearOperator& a, std::span<const Vector> vectors);
  DeflatedOperator(const LinearOperator&& a, std::span<const Vector> vectors) = delete;

  const std::vector<Shape>& shapes() const override { return a_->shapes(); }
  DType dtype() const override { return a_->dtype(); }
  Vector apply(const Vector& v) const override;
  std::vector<Vector> apply_many(std::span<const Vector> vectors) const override;

  /// Q.
  const std::vector<Vector>& basis() const { return basis_; }

 private:
  const LinearOperator* a_;
  std::vector<Vector> basis_;
};

}  // namespace goshawk
