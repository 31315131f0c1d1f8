#include "core/kernels/pool.hpp"

#include <algorithm>
#include <vector>

#include "core/parallel.hpp"

namespace goshawk::kernels {
namespace {

// Calls f(image, window, position) for every (output window, input position inside it that is not padding),
// both as pixel indices; windows of one image in order.
template <class F>
void for_each_tap(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t oh, std::int64_t ow,
                  const PoolParams& p, const F& f) {
  for (std::int64_t oy = 0; oy < oh; ++oy) {
    for (std::int64_t ox = 0; ox < ow; ++ox) {
      for (std::int64_t ky = 0; ky < p.kernel_h; ++ky) {
        const std::int64_t y = oy * p.stride_h + ky - p.pad_h;
        if (y < 0 || y >= h) continue;
        for (std::int64_t kx = 0; kx < p.kernel_w; ++kx) {
          const std::int64_t x = ox * p.stride_w + kx - p.pad_w;
          if (x >= 0 && x < w) f((n * oh + oy) * ow + ox, (n * h + y) * w + x);
        }
      }
    }
  }
}

// Number of windows along one axis; 0 when the first does not fit.
std::int64_t window_count(std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t pad,
                          bool ceil) {
  const std::int64_t room = in + 2 * pad - kernel + (ceil ? stride - 1 : 0);
  if (in == 0 || room < 0) return 0;
  // A window that `ceil` added may start past the image, where the padding behind it is all there is.
  const std::int64_t last = room / stride;
  return last * stride < in + pad ? last + 1 : last;
}

// 1 / divisor of every window of an image, in order.
template <class T>
std::vector<T> window_shares(const Shape& x, const Shape& out, const PoolParams& p) {
  std::vector<T> shares;
  for (std::int64_t oy = 0; oy < out[1]; ++oy) {
    const std::int64_t rows = std::min(p.kernel_h, x[1] + 2 * p.pad_h - oy * p.stride_h);
    for (std::int64_t ox = 0; ox < out[2]; ++ox) {
      const std::int64_t columns = std::min(p.kernel_w, x[2] + 2 * p.pad_w - ox * p.stride_w);
      shares.push_back(T{1} / static_cast<T>(rows * columns));
    }
  }
  return shares;
}

}  // namespace

Shape pool_output_shape(const Shape& x, const PoolParams& p, std::string_view op) {
  check(x.size() == 4, "[{}] needs images [N,H,W,C] but was given shape {}", op, x);
  check(p.kernel_h > 0 && p.kernel_w > 0 && p.stride_h > 0 && p.stride_w > 0 && p.pad_h >= 0 &&
            p.pad_w >= 0 && p.pad_h < p.kernel_h && p.pad_w < p.kernel_w,
        "[{}] kernel {}x{}, stride {}x{}, padding {}x{}: kernel and stride must be positive and the padding "
        "smaller "
        "than the kernel",
        op, p.kernel_h, p.kernel_w, p.stride_h, p.stride_w, p.pad_h, p.pad_w);
  const std::int64_t oh = window_count(x[1], p.kernel_h, p.stride_h, p.pad_h, p.ceil);
  const std::int64_t ow = window_count(x[2], p.kernel_w, p.stride_w, p.pad_w, p.ceil);
  check(oh > 0 && ow > 0, "[{}] a {}x{} window does not fit into images of shape {} with padding {}x{}", op,
        p.kernel_h, p.kernel_w, x, p.pad_h, p.pad_w);
  return {x[0], oh, ow, x[3]};
}

Tensor avg_pool2d(const Tensor& x, const PoolParams& p) {
  const Shape shape = pool_output_shape(x.shape(), p, "avg_pool2d");
  const Tensor out = Tensor::zeros(shape, x.dtype());
  const std::int64_t c = shape[3];
  dispatch_floating(x.dtype(), "avg_pool2d", [&]<class T>() {
    const std::vector<T> shares = window_shares<T>(x.shape(), shape, p);
    const std::int64_t windows = shape[1] * shape[2];
    parallel_for(shape[0], 1, [&](std::int64_t n, std::int64_t) {
      for_each_tap(n, x.dim(1), x.dim(2), shape[1], shape[2], p,
                   [&](std::int64_t window, std::int64_t position) {
                     const T* from = x.data<T>() + position * c;
                     T* to = out.data<T>() + window * c;
                     const T share = shares[static_cast<std::size_t>(window - n * windows)];
                     for (std::int64_t i = 0; i < c; ++i) to[i] += share * from[i];
                   });
    });
  });
  return out;
}

Tensor avg_unpool2d(const Tensor& gy, const Shape& x_shape, const PoolParams& p) {
  const Shape expected = pool_output_shape(x_shape, p, "avg_unpool2d");
  check(gy.shape() == expected, "[avg_unpool2d] images of shape {} pool to {}, not to the given {}", x_shape,
        expected, gy.shape());
  const Tensor out = Tensor::zeros(x_shape, gy.dtype());
  const std::int64_t c = x_shape[3];
  dispatch_floating(gy.dtype(), "avg_unpool2d", [&]<class T>() {
    const std::vector<T> shares = window_shares<T>(x_shape, expected, p);
    const std::int64_t windows = expected[1] * expected[2];
    parallel_for(x_shape[0], 1, [&](std::int64_t n, std::int64_t) {
      for_each_tap(n, x_shape[1], x_shape[2], expected[1], expected[2], p,
                   [&](std::int64_t window, std::int64_t position) {
                     const T* from = gy.data<T>() + window * c;
                     T* to = out.data<T>() + position * c;
                     const T share = shares[static_cast<std::size_t>(window - n * windows)];
                     for (std::int64_t i = 0; i < c; ++i) to[i] += share * from[i];
                   });
    });
  });
  return out;
}

Tensor global_avg_pool(const Tensor& x) {
  check(x.ndim() == 4 && x.dim(1) * x.dim(2) > 0,
        "[global_avg_pool] needs non-empty images [N,H,W,C] but was given shape {}", x.shape());
  const std::int64_t pixels = x.dim(1) * x.dim(2), c = x.dim(3);
  const Tensor out = Tensor::zeros({x.dim(0), c}, x.dtype());
  dispatch_floating(x.dtype(), "global_avg_pool", [&]<class T>() {
    parallel_for(x.dim(0), 1, [&](std::int64_t n, std::int64_t) {
      const T* from = x.data<T>() + n * pixels * c;
      T* to = out.data<T>() + n * c;
      for (std::int64_t i = 0; i < pixels; ++i) {
        for (std::int64_t k = 0; k < c; ++k) to[k] += from[i * c + k];
      }
      for (std::int64_t k = 0; k < c; ++k) to[k] /= static_cast<T>(pixels);
    });
  });
  return out;
}

Tensor global_avg_unpool(const Tensor& gy, const Shape& x_shape) {
  check(x_shape.size() == 4 && gy.shape() == Shape{x_shape[0], x_shape[3]},
        "[global_avg_unpool] a gradient of shape {} does not belong to images of shape {}", gy.shape(),
        x_shape);
  const std::int64_t pixels = x_shape[1] * x_shape[2], c = x_shape[3];
  check(pixels > 0, "[global_avg_unpool] needs non-empty images [N,H,W,C] but was given shape {}", x_shape);
  const Tensor out = Tensor::empty(x_shape, gy.dtype());
  dispatch_floating(gy.dtype(), "global_avg_unpool", [&]<class T>() {
    parallel_for(x_shape[0], 1, [&](std::int64_t n, std::int64_t) {
      const T* from = gy.data<T>() + n * c;
      T* to = out.data<T>() + n * pixels * c;
      for (std::int64_t k = 0; k < c; ++k) to[k] = from[k] / static_cast<T>(pixels);
      for (std::int64_t i = 1; i < pixels; ++i) std::copy_n(to, c, to + i * c);
    });
  });
  return out;
}

}  // namespace goshawk::kernels
