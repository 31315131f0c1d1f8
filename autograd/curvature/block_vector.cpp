#include "autograd/curvature/block_vector.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/kernels/product_sum.hpp"
#include "core/parallel.hpp"

namespace goshawk {
namespace {

template <class Draw>
Vector draw_vector(std::span<const Shape> shapes, const Draw& draw) {
  Vector v;
  v.reserve(shapes.size());
  for (const Shape& shape : shapes) v.push_back(draw(shape));
  return v;
}

}  // namespace

double epsilon(DType dtype) {
  return dispatch_floating(dtype, "epsilon",
                           []<class T>() { return static_cast<double>(std::numeric_limits<T>::epsilon()); });
}

double block_dot(const Tensor& a, const Tensor& b) {
  check_same(a, b, "dot");
  return dispatch_floating(a.dtype(), "dot", [&]<class T>() {
    const std::int64_t n = a.numel();
    const T* left = a.data<T>();
    const T* right = b.data<T>();
    std::vector<double> partial(static_cast<std::size_t>((n + kElementwiseGrain - 1) / kElementwiseGrain));
    parallel_for(n, kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
      partial[static_cast<std::size_t>(begin / kElementwiseGrain)] =
          kernels::product_sum(left + begin, right + begin, end - begin);
    });
    double sum = 0;
    for (double p : partial) sum += p;
    return sum;
  });
}

double dot(const Vector& a, const Vector& b) {
  check(a.size() == b.size(), "[dot] the vectors have {} and {} blocks; they must match", a.size(), b.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += block_dot(a[i], b[i]);
  return sum;
}

double norm(const Vector& a) {
  return std::sqrt(dot(a, a));
}

void axpy(double factor, const Vector& x, const Vector& y) {
  check(x.size() == y.size(), "[axpy] the vectors have {} and {} blocks; they must match", x.size(),
        y.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    check_same(x[i], y[i], "axpy");
    dispatch_floating(x[i].dtype(), "axpy", [&]<class T>() {
      const T* from = x[i].data<T>();
      T* to = y[i].data<T>();
      parallel_for(x[i].numel(), kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k)
          to[k] += static_cast<T>(factor * static_cast<double>(from[k]));
      });
    });
  }
}

void rescale(const Vector& x, double factor) {
  for (const Tensor& block : x) {
    dispatch_floating(block.dtype(), "rescale", [&]<class T>() {
      T* data = block.data<T>();
      parallel_for(block.numel(), kElementwiseGrain, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k)
          data[k] = static_cast<T>(factor * static_cast<double>(data[k]));
      });
    });
  }
}

std::vector<double> project_out(const Vector& v, std::span<const Vector> basis) {
  std::vector<double> coefficients(basis.size(), 0.0);
  for (int pass = 0; pass < 2; ++pass) {
    for (std::size_t k = 0; k < basis.size(); ++k) {
      const double part = dot(basis[k], v);
      axpy(-part, basis[k], v);
      coefficients[k] += part;
    }
  }
  return coefficients;
}

double orthonormalise(const Vector& v, std::span<const Vector> basis) {
  if (v.empty()) return 0;
  const double before = norm(v);
  project_out(v, basis);
  const double length = norm(v);
  if (!(length > 64 * epsilon(v.front().dtype()) * before)) return 0;
  rescale(v, 1 / length);
  // What is left may be a small part of v, with v's rounding errors: cleaned again at full length.
  project_out(v, basis);
  rescale(v, 1 / norm(v));
  return length;
}

Vector clone(const Vector& x) {
  Vector copy;
  for (const Tensor& block : x) copy.push_back(block.clone());
  return copy;
}

std::optional<std::string> find_non_finite(const Vector& x) {
  for (std::size_t l = 0; l < x.size(); ++l) {
    if (!x[l].defined()) continue;
    const std::optional<std::string> found =
        dispatch_floating(x[l].dtype(), "find_non_finite", [&]<class T>() -> std::optional<std::string> {
          const std::span<const T> data = x[l].span<T>();
          const std::int64_t n = x[l].numel();
          std::vector<char> bad(static_cast<std::size_t>((n + kElementwiseGrain - 1) / kElementwiseGrain), 0);
          parallel_for(n, kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
            // 0 · x is NaN unless x is finite; summed up without a branch.
            T sum = 0;
            for (std::int64_t i = begin; i < end; ++i) {
              sum += 0 * data[static_cast<std::size_t>(i)];
            }
            bad[static_cast<std::size_t>(begin / kElementwiseGrain)] = sum == 0 ? 0 : 1;
          });
          if (std::find(bad.begin(), bad.end(), 1) == bad.end()) return std::nullopt;
          const auto first =
              std::find_if(data.begin(), data.end(), [](T value) { return !std::isfinite(value); });
          return fmt::format("element {} of block {} is {}", first - data.begin(), l, *first);
        });
    if (found) return found;
  }
  return std::nullopt;
}

Vector zero_vector(std::span<const Shape> shapes, DType dtype) {
  return draw_vector(shapes, [&](const Shape& shape) { return Tensor::zeros(shape, dtype); });
}

Vector normal_vector(std::span<const Shape> shapes, DType dtype, Random& random) {
  return draw_vector(shapes, [&](const Shape& shape) { return random_normal(shape, dtype, random); });
}

Vector rademacher_vector(std::span<const Shape> shapes, DType dtype, Random& random) {
  return draw_vector(shapes, [&](const Shape& shape) { return random_rademacher(shape, dtype, random); });
}

}  // namespace goshawk
