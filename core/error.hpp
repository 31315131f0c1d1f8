// The exception of the whole project and the two functions that throw it.
#pragma once

#include <fmt/format.h>
#include <stdexcept>
#include <string>

namespace goshawk {

/// Anything that went wrong at run time. The message reads
/// `[op] what was wrong, with the shapes and values, and what to do about it` and fits one line.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The user asked for something impossible (bad option, bad value): programs exit with status 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

namespace detail {

// Out of line: a throw that is expanded at every check is code and compile time for nothing.
[[noreturn]] void throw_error(fmt::string_view format, fmt::format_args args);

}  // namespace detail

/// Throws Error with a fmt-formatted message.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  detail::throw_error(format, fmt::make_format_args(args...));
}

/// Throws Error with a fmt-formatted message unless `ok`. The message is only formatted on failure.
template <class... Args>
void check(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) [[unlikely]] {
    detail::throw_error(format, fmt::make_format_args(args...));
  }
}

}  // namespace goshawk
