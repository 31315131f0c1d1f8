// Tensor: a value-semantic handle on reference-counted, 64-byte-aligned, contiguous row-major storage.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/dtype.hpp"
#include "core/shape.hpp"

namespace goshawk {

/// Copying a Tensor copies the handle: both see the same elements. `clone` copies the elements. There are no
/// strides: elements are always contiguous and row-major. Images are NHWC, convolution weights HWIO.
class Tensor {
 public:
  /// An undefined tensor: `defined()` is false, and whatever needs its elements throws Error.
  Tensor() = default;

  /// Elements are not initialised.
  static Tensor empty(const Shape& shape, DType dtype);
  static Tensor zeros(const Shape& shape, DType dtype);
  static Tensor full(const Shape& shape, DType dtype, double value);
  static Tensor scalar(double value, DType dtype) { return full({}, dtype, value); }
  /// Copies `values`, whose number must equal shape.numel().
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape) {
    Tensor t = empty(shape, dtype_of<T>);
    check(static_cast<std::int64_t>(values.size()) == shape.numel(),
          "[Tensor::from] {} values do not fill shape {}", values.size(), shape);
    std::copy(values.begin(), values.end(), t.data<T>());
    return t;
  }
  static Tensor zeros_like(const Tensor& other);
  static Tensor empty_like(const Tensor& other);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int ndim() const { return shape_.size(); }
  /// Extent of dimension i; a negative i counts from the end.
  std::int64_t dim(int i) const;
  std::int64_t numel() const { return numel_; }
  DType dtype() const { return dtype_; }
  std::int64_t bytes() const { return numel_ * dtype_size(dtype_); }
  /// True when no other handle shares the storage, so that it may be overwritten unseen.
  bool unique() const { return storage_.use_count() == 1; }

  /// First element; T must be the C++ type of dtype(). Writing through it is seen by every handle.
  template <class T>
  T* data() const {
    if (dtype_of<T> != dtype_ || !defined()) [[unlikely]] {
      no_data(dtype_of<T>);
    }
    return reinterpret_cast<T*>(storage_.get());
  }
  /// The first byte; null for an undefined tensor.
  std::byte* raw() const { return storage_.get(); }
  template <class T>
  std::span<T> span() const {
    return {data<T>(), static_cast<std::size_t>(numel_)};
  }
  template <class T>
  std::vector<T> to_vector() const {
    return {data<T>(), data<T>() + numel_};
  }

  /// The same storage under another shape with equally many elements; one extent may be -1.
  Tensor reshape(std::span<const std::int64_t> dims) const;
  Tensor reshape(std::initializer_list<std::int64_t> dims) const {
    return reshape(std::span(dims.begin(), dims.size()));
  }
  Tensor reshape(const Shape& shape) const { return reshape(std::span(shape.begin(), shape.end())); }
  Tensor clone() const;
  /// Converted elements (a copy), or this handle when the type is already right. Conversion to an integer
  /// type truncates, and throws Error naming the first element that the type cannot hold.
  Tensor to(DType dtype) const;
  /// The only element, as double; an error when there are several.
  double item() const;
  /// Overwrites all elements with those of `source` (same shape and dtype).
  void copy_from(const Tensor& source) const;
  /// Throws Error when an integer type cannot hold the value, truncated.
  void fill(double value) const;

 private:
  // Out of line: data() is called for every tensor of every op.
  [[noreturn]] void no_data(DType asked) const;

  std::shared_ptr<std::byte[]> storage_;
  Shape shape_;
  std::int64_t numel_ = 0;
  DType dtype_ = DType::f32;
};

/// Axes permuted: out.shape[i] = t.shape[axes[i]]. `axes` names each axis of t once.
Tensor permute(const Tensor& t, std::initializer_list<int> axes);

/// A copy of t[begin:end] along the first dimension. Throws Error unless 0 <= begin <= end <= t.dim(0).
Tensor rows(const Tensor& t, std::int64_t begin, std::int64_t end);

/// Throws Error naming `op` unless both tensors are defined and have the same shape and dtype.
void check_same(const Tensor& a, const Tensor& b, std::string_view op);

}  // namespace goshawk
