#include "core/tensor.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "core/memory.hpp"
#include "core/parallel.hpp"

namespace goshawk {
namespace {

/// Whether `value`, truncated, is a value of the type To; a floating one has them all.
template <class To, class From>
bool holds(From value) {
  if constexpr (std::is_floating_point_v<To>) {
    return true;
  } else if constexpr (std::is_floating_point_v<From>) {
    // Powers of two, which every From has. NaN is in no range.
    const From end = std::ldexp(From{1}, std::numeric_limits<To>::digits);
    const From whole = std::trunc(value);
    return whole >= static_cast<From>(std::numeric_limits<To>::min()) && whole < end;
  } else {
    return std::in_range<To>(value);
  }
}

}  // namespace

Tensor Tensor::empty(const Shape& shape, DType dtype) {
  std::int64_t bytes = dtype_size(dtype);
  for (std::int64_t d : shape) {
    check(!__builtin_mul_overflow(bytes, d, &bytes),
          "[Tensor::empty] a tensor of shape {} and type {} has more bytes than 64 bits can count", shape,
          dtype);
  }
  Tensor t;
  t.shape_ = shape;
  t.numel_ = shape.numel();
  t.dtype_ = dtype;
  t.storage_ = allocate(std::max<std::int64_t>(1, t.bytes()));
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype) {
  Tensor t = empty(shape, dtype);
  std::memset(t.raw(), 0, static_cast<std::size_t>(t.bytes()));
  return t;
}

Tensor Tensor::full(const Shape& shape, DType dtype, double value) {
  Tensor t = empty(shape, dtype);
  t.fill(value);
  return t;
}

Tensor Tensor::zeros_like(const Tensor& other) {
  check(other.defined(), "[Tensor::zeros_like] the tensor is undefined; give it elements first");
  return zeros(other.shape(), other.dtype());
}

Tensor Tensor::empty_like(const Tensor& other) {
  check(other.defined(), "[Tensor::empty_like] the tensor is undefined; give it elements first");
  return empty(other.shape(), other.dtype());
}

void Tensor::no_data(DType asked) const {
  check(defined(), "[Tensor::data] the tensor is undefined; give it elements first");
  fail("[Tensor::data] the elements are {}, not {}", dtype_, asked);
}

std::int64_t Tensor::dim(int i) const {
  const int index = i < 0 ? i + ndim() : i;
  check(index >= 0 && index < ndim(), "[Tensor::dim] dimension {} of a tensor of shape {} does not exist", i,
        shape_);
  return shape_[index];
}

Tensor Tensor::reshape(std::span<const std::int64_t> dims) const {
  std::vector<std::int64_t> extents(dims.begin(), dims.end());
  std::int64_t known = 1;
  std::int64_t* unknown = nullptr;
  bool overflow = false;
  for (std::int64_t& d : extents) {
    if (d == -1) {
      check(unknown == nullptr, "[reshape] more than one extent of [{}] is -1", fmt::join(dims, ", "));
      unknown = &d;
    } else {
      overflow |= __builtin_mul_overflow(known, d, &known);
    }
  }
  check(unknown == nullptr || known != 0,
        "[reshape] the -1 of [{}] could be anything, since the other extents make 0; give it",
        fmt::join(dims, ", "));
  std::int64_t total = known;
  if (unknown != nullptr && known > 0) {
    *unknown = numel_ / known;
    total = known * *unknown;
  }
  check(defined() && !overflow && total == numel_,
        "[reshape] a tensor of shape {} with {} elements cannot take the shape [{}]", shape_, numel_,
        fmt::join(dims, ", "));
  Tensor t = *this;
  t.shape_ = Shape(extents);
  return t;
}

Tensor Tensor::clone() const {
  check(defined(), "[Tensor::clone] the tensor is undefined");
  Tensor t = empty(shape_, dtype_);
  std::memcpy(t.raw(), raw(), static_cast<std::size_t>(bytes()));
  return t;
}

Tensor Tensor::to(DType dtype) const {
  check(defined(), "[Tensor::to] the tensor is undefined");
  if (dtype == dtype_) return *this;
  Tensor t = empty(shape_, dtype);
  dispatch_all(dtype_, [&]<class From>() {
    dispatch_all(dtype, [&]<class To>() {
      const From* from = data<From>();
      To* to = t.data<To>();
      std::atomic<bool> all_held = true;
      parallel_for(numel_, kElementwiseGrain, [&](std::int64_t begin, std::int64_t end) {
        if constexpr (!std::is_floating_point_v<To>) {
          if (!std::all_of(from + begin, from + end, holds<To, From>)) {
            all_held = false;
            return;
          }
        }
        for (std::int64_t i = begin; i < end; ++i) to[i] = static_cast<To>(from[i]);
      });
      if (all_held) return;
      // Which chunk found out first is chance.
      const From* const first = std::find_if_not(from, from + numel_, holds<To, From>);
      fail("[Tensor::to] element {} is {}, which {} cannot hold; clip the elements or choose a wider type",
           first - from, *first, dtype);
    });
  });
  return t;
}

double Tensor::item() const {
  check(defined() && numel_ == 1, "[Tensor::item] a tensor of shape {} has {} elements, not one", shape_,
        numel_);
  return dispatch_all(dtype_, [&]<class T>() { return static_cast<double>(*data<T>()); });
}

void Tensor::copy_from(const Tensor& source) const {
  check_same(*this, source, "Tensor::copy_from");
  std::memcpy(raw(), source.raw(), static_cast<std::size_t>(bytes()));
}

void Tensor::fill(double value) const {
  check(defined(), "[Tensor::fill] the tensor is undefined; give it elements first");
  dispatch_all(dtype_, [&]<class T>() {
    T* to = data<T>();
    check(holds<T>(value), "[Tensor::fill] {} cannot hold {}; choose another value or a wider type", dtype_,
          value);
    const T element = static_cast<T>(value);
    parallel_for(numel_, kElementwiseGrain,
                 [&](std::int64_t begin, std::int64_t end) { std::fill(to + begin, to + end, element); });
  });
}

Tensor permute(const Tensor& t, std::initializer_list<int> axes) {
  const int n = t.ndim();
  check(t.defined(), "[permute] the tensor is undefined");
  check(static_cast<int>(axes.size()) == n, "[permute] {} axes were given for a tensor of shape {}",
        axes.size(), t.shape());
  std::array<std::int64_t, Shape::kMaxDims> stride{};
  std::int64_t running = 1;
  for (int i = n - 1; i >= 0; --i) {
    stride[static_cast<std::size_t>(i)] = running;
    running *= t.shape()[i];
  }
  std::vector<std::int64_t> dims;
  std::array<std::int64_t, Shape::kMaxDims> step{};
  std::array<bool, Shape::kMaxDims> used{};
  for (int axis : axes) {
    check(axis >= 0 && axis < n && !used[static_cast<std::size_t>(axis)],
          "[permute] the axes ({}) do not name each axis of shape {} once", fmt::join(axes, ", "), t.shape());
    used[static_cast<std::size_t>(axis)] = true;
    step[dims.size()] = stride[static_cast<std::size_t>(axis)];
    dims.push_back(t.shape()[axis]);
  }
  Tensor out = Tensor::empty(Shape(dims), t.dtype());
  if (out.numel() == 0) return out;
  dispatch_all(t.dtype(), [&]<class T>() {
    const T* from = t.data<T>();
    T* to = out.data<T>();
    std::array<std::int64_t, Shape::kMaxDims> index{};
    std::int64_t offset = 0;
    for (std::int64_t i = 0; i < out.numel(); ++i) {
      to[i] = from[offset];
      for (int d = n - 1; d >= 0; --d) {
        const auto k = static_cast<std::size_t>(d);
        offset += step[k];
        if (++index[k] < dims[k]) break;
        offset -= step[k] * dims[k];
        index[k] = 0;
      }
    }
  });
  return out;
}

Tensor rows(const Tensor& t, std::int64_t begin, std::int64_t end) {
  const std::int64_t count = t.dim(0);
  check(0 <= begin && begin <= end && end <= count,
        "[rows] rows {} to {} of a tensor of shape {} do not exist", begin, end, t.shape());
  std::vector<std::int64_t> extents(t.shape().begin(), t.shape().end());
  extents.front() = end - begin;
  Tensor part = Tensor::empty(Shape(extents), t.dtype());
  if (part.numel() > 0) {
    const std::int64_t row_bytes = t.bytes() / count;
    std::memcpy(part.raw(), t.raw() + begin * row_bytes, static_cast<std::size_t>(part.bytes()));
  }
  return part;
}

void check_same(const Tensor& a, const Tensor& b, std::string_view op) {
  check(a.defined() && b.defined(), "[{}] an operand is an undefined tensor; give it elements first", op);
  check(a.shape() == b.shape() && a.dtype() == b.dtype(),
        "[{}] the operands must have the same shape and type but are {} {} and {} {}", op, a.dtype(),
        a.shape(), b.dtype(), b.shape());
}

}  // namespace goshawk
