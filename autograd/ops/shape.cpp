// Ops that move, repeat or sum elements. Adjoint pairs: broadcast_to / sum_to, slice / unslice.
#include <algorithm>
#include <array>
#include <cstring>

#include "autograd/ops.hpp"
#include "core/parallel.hpp"

namespace goshawk {
namespace {

const Op& kReshape = register_op("reshape", Linearity::linear);
const Op& kBroadcastTo = register_op("broadcast_to", Linearity::linear);
const Op& kSumTo = register_op("sum_to", Linearity::linear);
const Op& kSlice = register_op("slice", Linearity::linear);
const Op& kUnslice = register_op("unslice", Linearity::linear);

using Strides = std::array<std::int64_t, Shape::kMaxDims>;

// Calls f(i, offset) for the indices i in [begin, end) of `shape` in row-major order, with offset = base + Σ
// index[d] · stride[d].
template <class F>
void for_each_offset(const Shape& shape, const Strides& strides, std::int64_t base, std::int64_t begin,
                     std::int64_t end, F f) {
  if (begin == end) return;
  std::array<std::int64_t, Shape::kMaxDims> index{};
  std::int64_t offset = base;
  for (std::int64_t d = shape.size() - 1, rest = begin; d >= 0; --d) {
    const auto k = static_cast<std::size_t>(d);
    const std::int64_t extent = shape[static_cast<int>(d)];
    index[k] = rest % extent;
    offset += index[k] * strides[k];
    rest /= extent;
  }
  for (std::int64_t i = begin; i < end; ++i) {
    f(i, offset);
    for (int d = shape.size() - 1; d >= 0; --d) {
      const auto k = static_cast<std::size_t>(d);
      offset += strides[k];
      if (++index[k] < shape[d]) break;
      offset -= strides[k] * shape[d];
      index[k] = 0;
    }
  }
}

template <class F>
void for_each_offset(const Shape& shape, const Strides& strides, std::int64_t base, F f) {
  for_each_offset(shape, strides, base, 0, shape.numel(), f);
}

// Strides into a tensor of shape `small` seen as `large`: 0 where it is repeated.
Strides broadcast_strides(const Shape& small, const Shape& large, const char* op) {
  check(small.size() <= large.size(), "[{}] shape {} does not broadcast to {}", op, small, large);
  Strides strides{};
  std::int64_t running = 1;
  for (int i = 1; i <= small.size(); ++i) {
    const std::int64_t extent = small[small.size() - i];
    const int d = large.size() - i;
    check(extent == large[d] || extent == 1, "[{}] shape {} does not broadcast to {}: extent {} against {}",
          op, small, large, extent, large[d]);
    strides[static_cast<std::size_t>(d)] = extent == 1 ? 0 : running;
    running *= extent;
  }
  return strides;
}

struct LatticeWalk {
  Strides strides{};
  std::int64_t base = 0;
};

// Offsets of the lattice points of shape `extents` inside a tensor of shape `whole`.
LatticeWalk walk(const Lattice& lattice, const Shape& extents, const Shape& whole, const char* op) {
  const auto n = static_cast<std::size_t>(whole.size());
  check(lattice.start.size() == n && lattice.step.size() == n && extents.size() == whole.size(),
        "[{}] start, step and extents {} need one entry for each dimension of shape {}", op, extents, whole);
  LatticeWalk result;
  std::int64_t running = 1;
  for (std::size_t i = n; i-- > 0;) {
    const int d = static_cast<int>(i);
    const std::int64_t start = lattice.start[i], step = lattice.step[i], extent = extents[d];
    // Without products of what may be as large as it likes.
    const bool inside = step >= 1 && start >= 0 &&
                        (extent == 0 || (start < whole[d] && extent - 1 <= (whole[d] - 1 - start) / step));
    check(inside, "[{}] dimension {}: start {}, step {}, extent {} leave the shape {}", op, i, start, step,
          extent, whole);
    if (extent > 0) result.base += start * running;
    if (extent > 1) result.strides[i] = step * running;
    running *= whole[d];
  }
  return result;
}

// Calls f(place in a dense tensor, place in a tensor of which it is a lattice, length) for every row, a run
// along a contiguous last dimension; rows in any order and at the same time.
template <class F>
void for_each_row(const Shape& extents, const LatticeWalk& w, F f) {
  const int last = extents.size() - 1;
  const bool rows = last >= 0 && w.strides[static_cast<std::size_t>(last)] == 1;
  const std::int64_t length = rows ? extents[last] : 1;
  Shape outer = extents;
  if (rows) outer[last] = 1;
  parallel_for(outer.numel(), row_grain(length), [&](std::int64_t begin, std::int64_t end) {
    for_each_offset(outer, w.strides, w.base, begin, end,
                    [&](std::int64_t i, std::int64_t offset) { f(i * length, offset, length); });
  });
}

}  // namespace

Variable reshape(const Variable& x, std::span<const std::int64_t> dims) {
  const Tensor y = x.value().reshape(dims);
  return record(
      kReshape, {x}, y,
      [shape = x.shape()](const Backward& d) { return std::vector{reshape(d.grad(), shape)}; },
      [shape = y.shape()](const Forward& d) { return std::vector{reshape(d.tangent(), shape)}; });
}

Variable broadcast_to(const Variable& x, const Shape& shape) {
  const Strides strides = broadcast_strides(x.shape(), shape, "broadcast_to");
  Tensor out = Tensor::empty(shape, x.dtype());
  dispatch_floating(x.dtype(), "broadcast_to", [&]<class T>() {
    if (out.numel() == 0) return;
    const T* from = x.value().data<T>();
    T* to = out.data<T>();
    if (x.numel() == 1) {
      std::fill_n(to, out.numel(), *from);
    } else if (x.shape().size() == 1) {
      const std::int64_t n = x.numel();
      parallel_for(out.numel() / n, row_grain(n), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) std::copy_n(from, n, to + row * n);
      });
    } else {
      for_each_offset(shape, strides, 0, [&](std::int64_t i, std::int64_t offset) { to[i] = from[offset]; });
    }
  });
  return record(
      kBroadcastTo, {x}, std::move(out),
      [small = x.shape()](const Backward& d) { return std::vector{sum_to(d.grad(), small)}; },
      [shape](const Forward& d) { return std::vector{broadcast_to(d.tangent(), shape)}; });
}

Variable sum_to(const Variable& x, const Shape& shape) {
  const Strides strides = broadcast_strides(shape, x.shape(), "sum_to");
  Tensor out = Tensor::empty(shape, x.dtype());
  dispatch_floating(x.dtype(), "sum_to", [&]<class T>() {
    const T* from = x.value().data<T>();
    std::vector<double> sums(static_cast<std::size_t>(shape.numel()));
    for_each_offset(x.shape(), strides, 0, [&](std::int64_t i, std::int64_t offset) {
      sums[static_cast<std::size_t>(offset)] += from[i];
    });
    std::transform(sums.begin(), sums.end(), out.data<T>(), [](double s) { return static_cast<T>(s); });
  });
  return record(
      kSumTo, {x}, std::move(out),
      [large = x.shape()](const Backward& d) { return std::vector{broadcast_to(d.grad(), large)}; },
      [shape](const Forward& d) { return std::vector{sum_to(d.tangent(), shape)}; });
}

Variable sum(const Variable& x) {
  return sum_to(x, {});
}

Variable mean(const Variable& x) {
  check(x.numel() > 0, "[mean] a tensor of shape {} has no elements to average; give at least one",
        x.shape());
  return scale(sum(x), 1.0 / static_cast<double>(x.numel()));
}

Variable dot(const Variable& a, const Variable& b) {
  return sum(mul(a, b));
}

Variable slice(const Variable& x, const Lattice& lattice, const Shape& extents) {
  const LatticeWalk w = walk(lattice, extents, x.shape(), "slice");
  Tensor out = Tensor::empty(extents, x.dtype());
  dispatch_floating(x.dtype(), "slice", [&]<class T>() {
    const T* from = x.value().data<T>();
    T* to = out.data<T>();
    for_each_row(extents, w, [&](std::int64_t dense, std::int64_t offset, std::int64_t length) {
      std::memcpy(to + dense, from + offset, static_cast<std::size_t>(length) * sizeof(T));
    });
  });
  return record(
      kSlice, {x}, std::move(out),
      [lattice, shape = x.shape()](const Backward& d) {
        return std::vector{unslice(d.grad(), lattice, shape)};
      },
      [lattice, extents](const Forward& d) { return std::vector{slice(d.tangent(), lattice, extents)}; });
}

Variable unslice(const Variable& x, const Lattice& lattice, const Shape& shape) {
  const LatticeWalk w = walk(lattice, x.shape(), shape, "unslice");
  Tensor out = Tensor::empty(shape, x.dtype());
  dispatch_floating(x.dtype(), "unslice", [&]<class T>() {
    const T* from = x.value().data<T>();
    T* to = out.data<T>();
    parallel_for(out.numel(), kElementwiseGrain,
                 [&](std::int64_t begin, std::int64_t end) { std::fill(to + begin, to + end, T{0}); });
    for_each_row(x.shape(), w, [&](std::int64_t dense, std::int64_t offset, std::int64_t length) {
      std::memcpy(to + offset, from + dense, static_cast<std::size_t>(length) * sizeof(T));
    });
  });
  return record(
      kUnslice, {x}, std::move(out),
      [lattice, extents = x.shape()](const Backward& d) {
        return std::vector{slice(d.grad(), lattice, extents)};
      },
      [lattice, shape](const Forward& d) { return std::vector{unslice(d.tangent(), lattice, shape)}; });
}

}  // namespace goshawk
