// An operator with its blocks laid end to end in groups.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "autograd/curvature/operator.hpp"

namespace goshawk {

/// A as an operator on longer blocks: block g is the blocks groups[g] of A, laid end to end in that order. So
/// what works block by block (layer_traces) works for groups of parameters. Shares A.
class JoinedOperator final : public LinearOperator {
 public:
  /// Throws Error unless every block of A is in exactly one group and no group is empty.
  JoinedOperator(std::shared_ptr<const LinearOperator> a, std::vector<std::vector<std::size_t>> groups);

  /// Each [n] with n elements in all blocks of the group.
  const std::vector<Shape>& shapes() const override { return shapes_; }
  DType dtype() const override { return a_->dtype(); }
  Vector apply(const Vector& v) const override { return join(a_->apply(split(v))); }
  std::vector<Vector> apply_many(std::span<const Vector> vectors) const override;
  /// With A's subsets.
  std::vector<QuadraticForms> quadratic_forms(std::span<const Vector> vectors) const override;
  std::vector<double> subset_weights() const override { return a_->subset_weights(); }

  /// A vector of A from one of this operator, and the reverse. An undefined block stays undefined in split
  /// and counts as zeros in join.
  Vector split(const Vector& v) const;
  Vector join(const Vector& v) const;

 private:
  std::vector<double> sums(const std::vector<double>& blocks) const;

  std::shared_ptr<const LinearOperator> a_;
  std::vector<std::vector<std::size_t>> groups_;
  std::vector<Shape> shapes_;
};

}  // namespace goshawk
