// The interface between what curvature is (operators) and what is asked about it (algorithms).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "autograd/curvature/block_vector.hpp"

namespace goshawk {

/// The quadratic forms of one vector v under a symmetric operator A, block by block.
struct QuadraticForms {
  /// v_lᵀ (A v)_l for each block l; their sum is vᵀ A v.
  std::vector<double> blocks;
  /// Where A is a weighted mean over disjoint subsets b of the data: v_lᵀ (A_b v)_l as subsets[b][l], so that
  /// blocks[l] = Σ_b weights[b] · subsets[b][l]. Empty for an operator without such a structure.
  std::vector<std::vector<double>> subsets;
};

/// A symmetric linear operator on Vectors, known by its products only. Products are deterministic: the same
/// vector gives the same bits, for any number of threads.
class LinearOperator {
 public:
  virtual ~LinearOperator() = default;

  /// Shape of each block of the vectors it maps, and their dtype.
  virtual const std::vector<Shape>& shapes() const = 0;
  virtual DType dtype() const = 0;
  /// Number of rows (and columns): elements of all blocks together.
  std::int64_t size() const;

  /// A v. `v` has the operator's blocks and so has the product, in new storage.
  virtual Vector apply(const Vector& v) const = 0;
  /// A V: several products, each with the bits of apply(vectors[k]). An operator that must build something
  /// costly for a product overrides this, to build it once for all of them.
  virtual std::vector<Vector> apply_many(std::span<const Vector> vectors) const;

  /// The quadratic forms of several vectors, each as if it were alone; from apply_many unless overridden.
  virtual std::vector<QuadraticForms> quadratic_forms(std::span<const Vector> vectors) const;
  /// The weight of each subset of QuadraticForms::subsets, summing to 1; empty when there are none.
  virtual std::vector<double> subset_weights() const { return {}; }

 protected:
  LinearOperator() = default;
  LinearOperator(const LinearOperator&) = default;
  LinearOperator(LinearOperator&&) = default;
  LinearOperator& operator=(const LinearOperator&) = default;
  LinearOperator& operator=(LinearOperator&&) = default;
};

/// Throws Error, naming `op`, unless `v` has the operator's blocks and dtype and is finite.
void check_blocks(const LinearOperator& a, const Vector& v, std::string_view op);
/// Throws Error, naming `op`, unless a product with a finite vector is finite as well.
void check_product(const Vector& product, std::string_view op);

/// Applies `a` twice to the same random vector. Throws Error when the products differ in a single bit, which
/// makes every estimate from the operator meaningless (batch norm in train mode, dropout, augmentation, a
/// shuffled loader, changed weights).
void check_deterministic(const LinearOperator& a, std::uint64_t seed = 0);

}  // namespace goshawk
