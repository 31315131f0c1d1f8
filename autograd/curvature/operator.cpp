#include "autograd/curvature/operator.hpp"

#include <bit>
#include <cstring>

namespace goshawk {

std::int64_t LinearOperator::size() const {
  std::int64_t n = 0;
  for (const Shape& shape : shapes()) n += shape.numel();
  return n;
}

std::vector<Vector> LinearOperator::apply_many(std::span<const Vector> vectors) const {
  std::vector<Vector> products;
  products.reserve(vectors.size());
  for (const Vector& v : vectors) products.push_back(apply(v));
  return products;
}

std::vector<QuadraticForms> LinearOperator::quadratic_forms(std::span<const Vector> vectors) const {
  const std::vector<Vector> products = apply_many(vectors);
  std::vector<QuadraticForms> forms(vectors.size());
  for (std::size_t k = 0; k < vectors.size(); ++k) {
    const Vector& v = vectors[k];
    for (std::size_t l = 0; l < v.size(); ++l) {
      forms[k].blocks.push_back(v[l].defined() ? block_dot(v[l], products[k][l]) : 0.0);
    }
  }
  return forms;
}

void check_blocks(const LinearOperator& a, const Vector& v, std::string_view op) {
  const std::vector<Shape>& shapes = a.shapes();
  check(v.size() == shapes.size(),
        "[{}] the vector has {} blocks but the operator has {}; give one tensor a block", op, v.size(),
        shapes.size());
  for (std::size_t l = 0; l < v.size(); ++l) {
    check(!v[l].defined() || (v[l].shape() == shapes[l] && v[l].dtype() == a.dtype()),
          "[{}] block {} of the vector is {} {} but the operator's is {} {}; they must match", op, l,
          v[l].dtype(), v[l].shape(), a.dtype(), shapes[l]);
  }
  const std::optional<std::string> bad = find_non_finite(v);
  check(!bad, "[{}] the vector is not finite: {}; check where it comes from", op, bad.value_or(""));
}

void check_product(const Vector& product, std::string_view op) {
  const std::optional<std::string> bad = find_non_finite(product);
  check(!bad,
        "[{}] the product with a finite vector is not finite: {}; the loss or its derivatives overflow, so "
        "check the weights and the pictures",
        op, bad.value_or(""));
}

void check_deterministic(const LinearOperator& a, std::uint64_t seed) {
  Random random(seed);
  const Vector v = normal_vector(a.shapes(), a.dtype(), random);
  const Vector first = a.apply(v);
  const Vector second = a.apply(v);
  for (std::size_t l = 0; l < v.size(); ++l) {
    if (std::memcmp(first[l].raw(), second[l].raw(), static_cast<std::size_t>(first[l].bytes())) == 0)
      continue;
    const std::vector<double> x = first[l].to(DType::f64).to_vector<double>();
    const std::vector<double> y = second[l].to(DType::f64).to_vector<double>();
    std::size_t i = 0;
    while (std::bit_cast<std::uint64_t>(x[i]) == std::bit_cast<std::uint64_t>(y[i])) ++i;
    fail(
        "[check_deterministic] two products with the same vector differ: element {} of block {} is {} and "
        "then {}; "
        "put batch norm in eval mode, switch off dropout and augmentation, and give the same samples in the "
        "same "
        "order each time",
        i, l, x[i], y[i]);
  }
}

}  // namespace goshawk
