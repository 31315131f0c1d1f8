#include "autograd/curvature/operator.hpp"

#include <bit>
#include <cstring>

namespace goshawk {

std::int64_t LinearOperator::size() const {
  std::int64_t n = 0;
  for (const Shape& shape : shapes()) n += shape.numel();
  return n;
}

std::vector<QuadraticForms> LinearOperator::quadratic_forms(std::span<const Vector> vectors) const {
  std::vector<QuadraticForms> forms;
  forms.reserve(vectors.size());
  for (const Vector& v : vectors) {
    const Vector product = apply(v);
    QuadraticForms& f = forms.emplace_back();
    for (std::size_t l = 0; l < v.size(); ++l) {
      f.blocks.push_back(v[l].defined() ? block_dot(v[l], product[l]) : 0.0);
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
