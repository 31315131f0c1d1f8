// The extents of a tensor: a small vector of up to six dimensions, stored in place.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <fmt/format.h>
#include <initializer_list>
#include <span>

namespace goshawk {

class Shape {
 public:
  static constexpr int kMaxDims = 6;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  /// Throws Error when there are more than kMaxDims dimensions or one is negative.
  explicit Shape(std::span<const std::int64_t> dims);

  int size() const { return size_; }
  std::int64_t operator[](int i) const { return dims_[static_cast<std::size_t>(i)]; }
  std::int64_t& operator[](int i) { return dims_[static_cast<std::size_t>(i)]; }
  const std::int64_t* begin() const { return dims_.data(); }
  const std::int64_t* end() const { return dims_.data() + size_; }
  std::int64_t back() const { return dims_[static_cast<std::size_t>(size_ - 1)]; }

  /// Number of elements; 1 for a scalar (no dimensions).
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (std::int64_t d : *this) n *= d;
    return n;
  }

  bool operator==(const Shape& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }

 private:
  std::array<std::int64_t, kMaxDims> dims_{};
  int size_ = 0;
};

}  // namespace goshawk
/// @cond
// Defined in shape.cpp: instantiated in every file that reports a shape, formatting costs seconds of compile
// time each.
template <>
struct fmt::formatter<goshawk::Shape> {
  constexpr auto parse(format_parse_context& context) { return context.begin(); }
  fmt::appender format(const goshawk::Shape& shape, fmt::format_context& context) const;
};
/// @endcond
