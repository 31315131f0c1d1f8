// Problems small enough for a dense Hessian, and the dense linear algebra to check curvature against.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "autograd/curvature/hessian_operator.hpp"
#include "autograd/ops.hpp"

namespace goshawk::testing {

/// A square matrix, row-major.
struct Matrix {
  std::size_t n = 0;
  std::vector<double> a;

  explicit Matrix(std::size_t size) : n(size), a(size * size) {}
  double& operator()(std::size_t i, std::size_t j) { return a[i * n + j]; }
  double operator()(std::size_t i, std::size_t j) const { return a[i * n + j]; }
};

inline std::vector<double> flatten(const Vector& v) {
  std::vector<double> flat;
  for (const Tensor& block : v) {
    const std::vector<double> values = block.to(DType::f64).to_vector<double>();
    flat.insert(flat.end(), values.begin(), values.end());
  }
  return flat;
}

/// All columns of an f64 operator.
inline Matrix dense(const LinearOperator& a) {
  Matrix m(static_cast<std::size_t>(a.size()));
  std::size_t column = 0;
  for (std::size_t l = 0; l < a.shapes().size(); ++l) {
    for (std::int64_t i = 0; i < a.shapes()[l].numel(); ++i, ++column) {
      const Vector unit = zero_vector(a.shapes(), DType::f64);
      unit[l].data<double>()[i] = 1;
      const std::vector<double> product = flatten(a.apply(unit));
      for (std::size_t row = 0; row < m.n; ++row) m(row, column) = product[row];
    }
  }
  return m;
}

inline double largest_difference(const Matrix& x, const Matrix& y) {
  double largest = 0;
  for (std::size_t i = 0; i < x.a.size(); ++i) largest = std::max(largest, std::abs(x.a[i] - y.a[i]));
  return largest;
}

inline double trace_of(const Matrix& m, std::size_t begin, std::size_t end) {
  double sum = 0;
  for (std::size_t i = begin; i < end; ++i) sum += m(i, i);
  return sum;
}

struct Eigen {
  std::vector<double> values;                ///< by falling magnitude
  std::vector<std::vector<double>> vectors;  ///< in the same order
};

/// The eigen-decomposition of a symmetric matrix by cyclic Jacobi rotations.
inline Eigen jacobi(Matrix m) {
  const std::size_t n = m.n;
  Matrix v(n);
  for (std::size_t i = 0; i < n; ++i) v(i, i) = 1;
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0;
    for (std::size_t p = 0; p < n; ++p) {
      for (std::size_t q = p + 1; q < n; ++q) {
        off = std::max(off, std::abs(m(p, q)));
        if (m(p, q) == 0) continue;
        const double theta = (m(q, q) - m(p, p)) / (2 * m(p, q));
        const double t = std::copysign(1.0, theta) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1);
        const double s = t * c;
        for (std::size_t k = 0; k < n; ++k) {
          const double kp = m(k, p), kq = m(k, q);
          m(k, p) = c * kp - s * kq;
          m(k, q) = s * kp + c * kq;
        }
        for (std::size_t k = 0; k < n; ++k) {
          const double pk = m(p, k), qk = m(q, k);
          m(p, k) = c * pk - s * qk;
          m(q, k) = s * pk + c * qk;
          const double vp = v(k, p), vq = v(k, q);
          v(k, p) = c * vp - s * vq;
          v(k, q) = s * vp + c * vq;
        }
      }
    }
    if (off < 1e-15) break;
  }
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t i, std::size_t j) { return std::abs(m(i, i)) > std::abs(m(j, j)); });
  Eigen eigen;
  for (std::size_t i : order) {
    eigen.values.push_back(m(i, i));
    std::vector<double>& vector = eigen.vectors.emplace_back();
    for (std::size_t k = 0; k < n; ++k) vector.push_back(v(k, i));
  }
  return eigen;
}

/// Independent N(0, 1) elements, with `shift` added to the diagonal.
inline Matrix random_symmetric(std::size_t n, std::uint64_t seed, double shift = 4) {
  Matrix m(n);
  Random random(seed);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) m(i, j) = m(j, i) = random.normal() + (i == j ? shift : 0);
  }
  return m;
}

/// Q diag(values) Qᵀ with a random orthogonal Q.
inline Matrix symmetric_with(const std::vector<double>& values, std::uint64_t seed = 1) {
  const std::vector<std::vector<double>> q = jacobi(random_symmetric(values.size(), seed, 0)).vectors;
  Matrix m(values.size());
  for (std::size_t i = 0; i < m.n; ++i) {
    for (std::size_t j = 0; j < m.n; ++j) {
      for (std::size_t k = 0; k < m.n; ++k) m(i, j) += values[k] * q[k][i] * q[k][j];
    }
  }
  return m;
}

/// A matrix given element by element, in blocks of the given numbers of rows. Counts its products.
class MatrixOperator final : public LinearOperator {
 public:
  MatrixOperator(const Matrix& m, const std::vector<std::int64_t>& rows) : columns_(m.n) {
    for (std::size_t i = 0; i < m.n; ++i) {
      for (std::size_t j = 0; j < m.n; ++j) columns_(j, i) = m(i, j);
    }
    for (std::int64_t r : rows) shapes_.push_back(Shape{r});
  }
  const std::vector<Shape>& shapes() const override { return shapes_; }
  DType dtype() const override { return DType::f64; }
  Vector apply(const Vector& v) const override {
    ++products;
    const std::vector<double> x = flatten(v);
    // Column by column, which the compiler vectorises.
    std::vector<double> y(columns_.n, 0.0);
    for (std::size_t j = 0; j < columns_.n; ++j) {
      const double* column = &columns_.a[j * columns_.n];
      for (std::size_t i = 0; i < columns_.n; ++i) y[i] += column[i] * x[j];
    }
    Vector product = zero_vector(shapes_, DType::f64);
    auto from = y.begin();
    for (const Tensor& block : product) {
      std::copy_n(from, block.numel(), block.data<double>());
      from += block.numel();
    }
    return product;
  }

  mutable int products = 0;

 private:
  Matrix columns_;
  std::vector<Shape> shapes_;
};

enum class Activation : std::uint8_t { tanh, relu };

/// conv 3×3 → activation → conv 3×3 / 2 → activation → global average pool → linear → softmax cross-entropy
/// on random pictures and labels, cut into microbatches.
struct ConvNet {
  std::vector<Variable> parameters;
  std::vector<Tensor> images, labels;
  std::vector<std::int64_t> sizes;
  Activation activation = Activation::tanh;

  ConvNet(Activation act, const std::vector<std::int64_t>& microbatches, DType dtype = DType::f64,
          std::uint64_t seed = 5)
      : sizes(microbatches), activation(act) {
    Random weights(seed, 0);
    for (const Shape& shape : {Shape{3, 3, 2, 3}, Shape{3, 3, 3, 3}, Shape{3, 4}}) {
      const Tensor w = random_normal(shape, DType::f64, weights);
      rescale({w}, 0.6);
      parameters.push_back(Variable::leaf(w.to(dtype)));
    }
    // Drawn sample by sample, so that the data set does not depend on how it is cut.
    Random pictures(seed, 1), classes(seed, 2);
    for (std::int64_t n : sizes) {
      images.push_back(random_normal({n, 6, 6, 2}, DType::f64, pictures).to(dtype));
      std::vector<std::int64_t> y;
      for (std::int64_t i = 0; i < n; ++i) y.push_back(static_cast<std::int64_t>(classes.below(4)));
      labels.push_back(Tensor::from(y, {n}));
    }
  }

  Variable loss(std::size_t b) const { return loss(b, parameters); }
  Variable loss(std::size_t b, const std::vector<Variable>& p) const {
    const auto activate = [&](const Variable& x) {
      return activation == Activation::tanh ? goshawk::tanh(x) : relu(x);
    };
    Variable h = activate(conv2d(images[b], p[0], {.stride_h = 1, .stride_w = 1, .pad_h = 1, .pad_w = 1}));
    h = activate(conv2d(h, p[1], {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1}));
    return softmax_cross_entropy(matmul(global_avg_pool(h), p[2]), labels[b]);
  }
  HessianOperator hessian(MicrobatchOptions options = {},
                          HvpRoad road = HvpRoad::reverse_over_reverse) const {
    return {parameters, sizes, [this](std::size_t b) { return loss(b); }, options, road};
  }
};

inline bool same_bits(const Vector& x, const Vector& y) {
  if (x.size() != y.size()) return false;
  for (std::size_t l = 0; l < x.size(); ++l) {
    if (x[l].bytes() != y[l].bytes() ||
        std::memcmp(x[l].raw(), y[l].raw(), static_cast<std::size_t>(x[l].bytes())) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace goshawk::testing
