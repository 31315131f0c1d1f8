// Indexing by constant flat indices: the adjoint pair gather / scatter_add.
#include "autograd/ops.hpp"

namespace goshawk {
namespace {

const Op& kGather = register_op("gather", Linearity::linear);
const Op& kScatterAdd = register_op("scatter_add", Linearity::linear);

void check_index(const Tensor& index, std::int64_t size, const char* op) {
  const std::int64_t* at = index.data<std::int64_t>();
  for (std::int64_t i = 0; i < index.numel(); ++i) {
    check(at[i] >= 0 && at[i] < size, "[{}] index {} at position {} is outside 0 … {}", op, at[i], i,
          size - 1);
  }
}

}  // namespace

Variable gather(const Variable& x, const Tensor& index) {
  check_index(index, x.numel(), "gather");
  Tensor out = Tensor::empty(index.shape(), x.dtype());
  dispatch_floating(x.dtype(), "gather", [&]<class T>() {
    const std::int64_t* at = index.data<std::int64_t>();
    for (std::int64_t i = 0; i < index.numel(); ++i) out.data<T>()[i] = x.value().data<T>()[at[i]];
  });
  return record(
      kGather, {x}, std::move(out),
      [index, shape = x.shape()](const Backward& d) {
        return std::vector{scatter_add(d.grad(), index, shape)};
      },
      [index](const Forward& d) { return std::vector{gather(d.tangent(), index)}; });
}

Variable scatter_add(const Variable& x, const Tensor& index, const Shape& shape) {
  check(x.shape() == index.shape(),
        "[scatter_add] values of shape {} need an index of the same shape, not {}", x.shape(), index.shape());
  check_index(index, shape.numel(), "scatter_add");
  Tensor out = Tensor::zeros(shape, x.dtype());
  dispatch_floating(x.dtype(), "scatter_add", [&]<class T>() {
    const std::int64_t* at = index.data<std::int64_t>();
    for (std::int64_t i = 0; i < index.numel(); ++i) out.data<T>()[at[i]] += x.value().data<T>()[i];
  });
  return record(
      kScatterAdd, {x}, std::move(out),
      [index](const Backward& d) { return std::vector{gather(d.grad(), index)}; },
      [index, shape](const Forward& d) { return std::vector{scatter_add(d.tangent(), index, shape)}; });
}

}  // namespace goshawk
