// Pooling ops. Adjoint pairs: avg_pool2d / avg_unpool2d, window_pick / window_place, global_avg_pool /
// global_avg_unpool.
#include "autograd/ops.hpp"
#include "core/kernels/max_pool.hpp"

namespace goshawk {
namespace {

const Op& kAvgPool2d = register_op("avg_pool2d", Linearity::linear);
const Op& kAvgUnpool2d = register_op("avg_unpool2d", Linearity::linear);
const Op& kWindowPick = register_op("window_pick", Linearity::linear);
const Op& kWindowPlace = register_op("window_place", Linearity::linear);
const Op& kGlobalAvgPool = register_op("global_avg_pool", Linearity::linear);
const Op& kGlobalAvgUnpool = register_op("global_avg_unpool", Linearity::linear);

/// `y`: what `taps` pick of x.
Variable record_pick(const Variable& x, const Tensor& y, const Tensor& taps, const PoolParams& params) {
  return record(
      kWindowPick, {x}, y,
      [taps, shape = x.shape(), params](const Backward& d) {
        return std::vector{window_place(d.grad(), taps, shape, params)};
      },
      [taps, params](const Forward& d) { return std::vector{window_pick(d.tangent(), taps, params)}; });
}

}  // namespace

Variable avg_pool2d(const Variable& x, const PoolParams& params) {
  return record(
      kAvgPool2d, {x}, kernels::avg_pool2d(x.value(), params),
      [shape = x.shape(), params](const Backward& d) {
        return std::vector{avg_unpool2d(d.grad(), shape, params)};
      },
      [params](const Forward& d) { return std::vector{avg_pool2d(d.tangent(), params)}; });
}

Variable avg_unpool2d(const Variable& gy, const Shape& x_shape, const PoolParams& params) {
  return record(
      kAvgUnpool2d, {gy}, kernels::avg_unpool2d(gy.value(), x_shape, params),
      [params](const Backward& d) { return std::vector{avg_pool2d(d.grad(), params)}; },
      [x_shape, params](const Forward& d) {
        return std::vector{avg_unpool2d(d.tangent(), x_shape, params)};
      });
}

Variable max_pool2d(const Variable& x, const PoolParams& params) {
  const kernels::MaxPool pool = kernels::max_pool2d(x.value(), params);
  return record_pick(x, pool.y, pool.taps, params);
}

Variable window_pick(const Variable& x, const Tensor& taps, const PoolParams& params) {
  return record_pick(x, kernels::window_pick(x.value(), taps, params), taps, params);
}

Variable window_place(const Variable& gy, const Tensor& taps, const Shape& x_shape,
                      const PoolParams& params) {
  return record(
      kWindowPlace, {gy}, kernels::window_place(gy.value(), taps, x_shape, params),
      [taps, params](const Backward& d) { return std::vector{window_pick(d.grad(), taps, params)}; },
      [taps, x_shape, params](const Forward& d) {
        return std::vector{window_place(d.tangent(), taps, x_shape, params)};
      });
}

Variable global_avg_pool(const Variable& x) {
  return record(
      kGlobalAvgPool, {x}, kernels::global_avg_pool(x.value()),
      [shape = x.shape()](const Backward& d) { return std::vector{global_avg_unpool(d.grad(), shape)}; },
      [](const Forward& d) { return std::vector{global_avg_pool(d.tangent())}; });
}

Variable global_avg_unpool(const Variable& gy, const Shape& x_shape) {
  return record(
      kGlobalAvgUnpool, {gy}, kernels::global_avg_unpool(gy.value(), x_shape),
      [](const Backward& d) { return std::vector{global_avg_pool(d.grad())}; },
      [x_shape](const Forward& d) { return std::vector{global_avg_unpool(d.tangent(), x_shape)}; });
}

}  // namespace goshawk
