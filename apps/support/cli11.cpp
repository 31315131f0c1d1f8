#include "apps/support/cli11.hpp"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <system_error>

namespace CLI::detail {
namespace {

template <class Integer>
bool read_integer(const std::string& text, Integer& value) {
  const char *begin = text.data(), *const end = begin + text.size();
  // std::from_chars knows no plus, and must not find a minus behind one.
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') ++begin;
  const auto [stopped, error] = std::from_chars(begin, end, value);
  return error == std::errc() && stopped == end;
}

template <class Real>
bool read_real(const std::string& text, Real& value) {
  char* stopped = nullptr;
  value = static_cast<Real>(std::strtold(text.c_str(), &stopped));
  return !text.empty() && stopped == text.c_str() + text.size() && std::isfinite(value);
}

}  // namespace

template <>
bool lexical_cast(const std::string& input, std::int32_t& output) {
  return read_integer(input, output);
}

template <>
bool lexical_cast(const std::string& input, std::int64_t& output) {
  return read_integer(input, output);
}

template <>
bool lexical_cast(const std::string& input, std::uint64_t& output) {
  return read_integer(input, output);
}

template <>
bool lexical_cast(const std::string& input, float& output) {
  return read_real(input, output);
}

template <>
bool lexical_cast(const std::string& input, double& output) {
  return read_real(input, output);
}

}  // namespace CLI::detail
