// Element types of tensors. f32 and f64 can be differentiated, the integer types hold labels and codes.
#pragma once

#include <cstdint>
#include <fmt/format.h>
#include <string_view>

#include "core/error.hpp"

namespace goshawk {

enum class DType : std::uint8_t { f32, f64, i64, i32, u8, i8 };

/// Size of one element in bytes.
constexpr std::int64_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::u8:
    case DType::i8:
      return 1;
  }
  return 0;
}

constexpr std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f64:
      return "f64";
    case DType::i64:
      return "i64";
    case DType::i32:
      return "i32";
    case DType::u8:
      return "u8";
    case DType::i8:
      return "i8";
  }
  return "?";
}

constexpr bool is_floating(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f64;
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::u8;
};
template <>
struct DTypeOf<std::int8_t> {
  static constexpr DType value = DType::i8;
};
template <class T>
constexpr DType dtype_of = DTypeOf<T>::value;

/// Calls `f.template operator()<T>()` with T = float or double. Integer types raise an error that names `op`.
template <class F>
decltype(auto) dispatch_floating(DType dtype, std::string_view op, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::f64:
      return f.template operator()<double>();
    default:
      fail("[{}] needs an f32 or f64 tensor but was given {}; convert it with Tensor::to", op,
           dtype_name(dtype));
  }
}

/// Calls `f.template operator()<T>()` with the C++ type of any dtype.
template <class F>
decltype(auto) dispatch_all(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::f64:
      return f.template operator()<double>();
    case DType::i64:
      return f.template operator()<std::int64_t>();
    case DType::i32:
      return f.template operator()<std::int32_t>();
    case DType::u8:
      return f.template operator()<std::uint8_t>();
    case DType::i8:
      return f.template operator()<std::int8_t>();
  }
  fail("[dtype] unknown element type {}", static_cast<int>(dtype));
}

}  // namespace goshawk
/// @cond
template <>
struct fmt::formatter<goshawk::DType> : fmt::formatter<std::string_view> {
  fmt::appender format(goshawk::DType dtype,
                       fmt::format_context& context) const;  // in dtype.cpp, as for shapes
};
/// @endcond
