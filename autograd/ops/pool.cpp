// Pooling ops. Adjoint pairs: avg_pool2d / avg_unpool2d, global_avg_pool / global_avg_unpool.
#include "autograd/ops.hpp"

namespace goshawk {
namespace {

const Op& kAvgPool2d = register_op("avg_pool2d", Linearity::linear);
const Op& kAvgUnpool2d = register_op("avg_unpool2d", Linearity::linear);
const Op& kGlobalAvgPool = register_op("global_avg_pool", Linearity::linear);
const Op& kGlobalAvgUnpool = register_op("global_avg_unpool", Linearity::linear);

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
  return gather(x, kernels::max_pool2d_indices(x.value(), params));
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
