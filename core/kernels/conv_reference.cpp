#include <vector>

#include "core/kernels/conv_checks.hpp"

namespace goshawk::kernels::reference {
namespace {

struct Extents {
  std::int64_t n, h, w, ci, kh, kw, co, oh, ow;
  std::int64_t group_ci, group_co;  // channels of a group
};

Extents extents(const Shape& x, const Shape& w, const Shape& y, const ConvParams& p) {
  return {x[0], x[1], x[2], x[3], w[0], w[1], w[3], y[1], y[2], w[2], w[3] / p.groups};
}

/// Calls f(x index, w index, y index) of the first channel of a group for every product of a pixel inside the
/// image with a kernel element.
template <class F>
void for_each_product(const Extents& e, const ConvParams& p, const F& f) {
  for (std::int64_t n = 0; n < e.n; ++n) {
    for (std::int64_t oy = 0; oy < e.oh; ++oy) {
      for (std::int64_t ox = 0; ox < e.ow; ++ox) {
        for (std::int64_t ky = 0; ky < e.kh; ++ky) {
          for (std::int64_t kx = 0; kx < e.kw; ++kx) {
            const std::int64_t y = oy * p.stride_h + ky - p.pad_h;
            const std::int64_t x = ox * p.stride_w + kx - p.pad_w;
            if (y < 0 || y >= e.h || x < 0 || x >= e.w) continue;
            for (std::int64_t group = 0; group < p.groups; ++group) {
              f(((n * e.h + y) * e.w + x) * e.ci + group * e.group_ci,
                (ky * e.kw + kx) * e.group_ci * e.co + group * e.group_co,
                ((n * e.oh + oy) * e.ow + ox) * e.co + group * e.group_co);
            }
          }
        }
      }
    }
  }
}

template <class T>
Tensor rounded(const std::vector<double>& sums, const Shape& shape) {
  Tensor out = Tensor::empty(shape, dtype_of<T>);
  T* data = out.data<T>();
  for (std::size_t i = 0; i < sums.size(); ++i) data[i] = static_cast<T>(sums[i]);
  return out;
}

std::vector<double> zero_sums(const Shape& shape) {
  return std::vector<double>(static_cast<std::size_t>(shape.numel()), 0.0);
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& w, const ConvParams& params) {
  check_dtypes(x, w, "reference::conv2d");
  const Shape y_shape = checked_output_shape(x.shape(), w.shape(), params, "reference::conv2d");
  const Extents e = extents(x.shape(), w.shape(), y_shape, params);
  return dispatch_floating(x.dtype(), "reference::conv2d", [&]<class T>() {
    std::vector<double> sums = zero_sums(y_shape);
    for_each_product(e, params, [&](std::int64_t xi, std::int64_t wi, std::int64_t yi) {
      for (std::int64_t ci = 0; ci < e.group_ci; ++ci) {
        const double value = x.data<T>()[xi + ci];
        const T* row = w.data<T>() + wi + ci * e.co;
        double* sum = sums.data() + yi;
        for (std::int64_t co = 0; co < e.group_co; ++co) sum[co] += value * static_cast<double>(row[co]);
      }
    });
    return rounded<T>(sums, y_shape);
  });
}

Tensor conv2d_input_grad(const Tensor& gy, const Tensor& w, const Shape& x_shape, const ConvParams& params) {
  check_dtypes(gy, w, "reference::conv2d_input_grad");
  const Shape y_shape = checked_output_shape(x_shape, w.shape(), params, "reference::conv2d_input_grad");
  check_output_grad(gy, y_shape, "reference::conv2d_input_grad");
  const Extents e = extents(x_shape, w.shape(), y_shape, params);
  return dispatch_floating(gy.dtype(), "reference::conv2d_input_grad", [&]<class T>() {
    std::vector<double> sums = zero_sums(x_shape);
    for_each_product(e, params, [&](std::int64_t xi, std::int64_t wi, std::int64_t yi) {
      for (std::int64_t ci = 0; ci < e.group_ci; ++ci) {
        const T* row = w.data<T>() + wi + ci * e.co;
        const T* g = gy.data<T>() + yi;
        double sum = 0;
        for (std::int64_t co = 0; co < e.group_co; ++co) {
          sum += static_cast<double>(g[co]) * static_cast<double>(row[co]);
        }
        sums[static_cast<std::size_t>(xi + ci)] += sum;
      }
    });
    return rounded<T>(sums, x_shape);
  });
}

Tensor conv2d_weight_grad(const Tensor& x, const Tensor& gy, const Shape& w_shape, const ConvParams& params) {
  check_dtypes(x, gy, "reference::conv2d_weight_grad");
  const Shape y_shape = checked_output_shape(x.shape(), w_shape, params, "reference::conv2d_weight_grad");
  check_output_grad(gy, y_shape, "reference::conv2d_weight_grad");
  const Extents e = extents(x.shape(), w_shape, y_shape, params);
  return dispatch_floating(x.dtype(), "reference::conv2d_weight_grad", [&]<class T>() {
    std::vector<double> sums = zero_sums(w_shape);
    for_each_product(e, params, [&](std::int64_t xi, std::int64_t wi, std::int64_t yi) {
      for (std::int64_t ci = 0; ci < e.group_ci; ++ci) {
        const double value = x.data<T>()[xi + ci];
        const T* g = gy.data<T>() + yi;
        double* sum = sums.data() + wi + ci * e.co;
        for (std::int64_t co = 0; co < e.group_co; ++co) sum[co] += value * static_cast<double>(g[co]);
      }
    });
    return rounded<T>(sums, w_shape);
  });
}

}  // namespace goshawk::kernels::reference
