#include "autograd/curvature/operator_views.hpp"

#include <cmath>
#include <utility>

namespace goshawk {
namespace {

// A copy in which zeros stand for undefined blocks.
Vector full_copy(const LinearOperator& a, const Vector& v) {
  Vector copy;
  for (std::size_t l = 0; l < v.size(); ++l) {
    copy.push_back(v[l].defined() ? v[l].clone() : Tensor::zeros(a.shapes()[l], a.dtype()));
  }
  return copy;
}

}  // namespace

AffineOperator::AffineOperator(const LinearOperator& a, double scale, double shift)
    : a_(&a), scale_(scale), shift_(shift) {
  check(std::isfinite(scale) && std::isfinite(shift),
        "[AffineOperator] scale is {} and shift {}; both must be finite", scale, shift);
}

Vector AffineOperator::apply(const Vector& v) const {
  return std::move(apply_many(std::span(&v, 1)).front());
}

std::vector<Vector> AffineOperator::apply_many(std::span<const Vector> vectors) const {
  std::vector<Vector> products = a_->apply_many(vectors);
  for (std::size_t k = 0; k < products.size(); ++k) {
    const Vector& v = vectors[k];
    if (scale_ != 1) rescale(products[k], scale_);
    if (shift_ == 0) continue;
    for (std::size_t l = 0; l < v.size(); ++l) {
      if (v[l].defined()) axpy(shift_, {v[l]}, {products[k][l]});
    }
  }
  return products;
}

std::vector<QuadraticForms> AffineOperator::quadratic_forms(std::span<const Vector> vectors) const {
  std::vector<QuadraticForms> forms = a_->quadratic_forms(vectors);
  for (std::size_t k = 0; k < forms.size(); ++k) {
    for (std::size_t l = 0; l < vectors[k].size(); ++l) {
      const Tensor& block = vectors[k][l];
      const double identity = shift_ == 0 || !block.defined() ? 0.0 : shift_ * block_dot(block, block);
      forms[k].blocks[l] = scale_ * forms[k].blocks[l] + identity;
      for (std::vector<double>& subset : forms[k].subsets) subset[l] = scale_ * subset[l] + identity;
    }
  }
  return forms;
}

AffineOperator damped(const LinearOperator& a, double damping) {
  check(damping >= 0, "[damped] the damping is {}; give a number ≥ 0, or use shifted", damping);
  return {a, 1, damping};
}

AffineOperator shifted(const LinearOperator& a, double sigma) {
  return {a, 1, -sigma};
}

AffineOperator scaled(const LinearOperator& a, double factor) {
  return {a, factor, 0};
}

AffineOperator negated(const LinearOperator& a) {
  return {a, -1, 0};
}

DeflatedOperator::DeflatedOperator(const LinearOperator& a, std::span<const Vector> vectors) : a_(&a) {
  for (const Vector& v : vectors) {
    check_blocks(a, v, "DeflatedOperator");
    Vector q = full_copy(a, v);
    if (orthonormalise(q, basis_) > 0) basis_.push_back(std::move(q));
  }
}

Vector DeflatedOperator::apply(const Vector& v) const {
  return std::move(apply_many(std::span(&v, 1)).front());
}

std::vector<Vector> DeflatedOperator::apply_many(std::span<const Vector> vectors) const {
  std::vector<Vector> projected;
  for (const Vector& v : vectors) {
    check_blocks(*a_, v, "DeflatedOperator");
    project_out(projected.emplace_back(full_copy(*a_, v)), basis_);
  }
  std::vector<Vector> products = a_->apply_many(projected);
  for (const Vector& product : products) project_out(product, basis_);
  return products;
}

}  // namespace goshawk
