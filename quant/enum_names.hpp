// Names of enumerators, for command lines and files.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.hpp"

namespace goshawk {

/// The enumerator of that name. Throws UsageError naming `what` that lists the names there are.
template <class E, std::size_t N>
E parse_name(std::string_view name, const std::array<std::pair<E, std::string_view>, N>& names,
             const char* what) {
  std::string known;
  for (const auto& [value, text] : names) {
    if (text == name) return value;
    known += known.empty() ? "" : ", ";
    known += text;
  }
  throw UsageError(fmt::format("[{}] '{}' is unknown; use one of {}", what, name, known));
}

template <class E, std::size_t N>
std::string_view name_of(E value, const std::array<std::pair<E, std::string_view>, N>& names) {
  for (const auto& [known, text] : names) {
    if (known == value) return text;
  }
  return "?";
}

}  // namespace goshawk
