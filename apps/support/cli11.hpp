// CLI11, with numbers read as people write them. Include this instead of <CLI/CLI.hpp>.
#pragma once

#include <CLI/TypeTools.hpp>
#include <cstdint>
#include <string>

namespace CLI::detail {

// CLI11 2.1 takes an integer with a leading zero for an octal one and cuts what is too large for 64 bits, and
// a NaN is within any CLI::Range. These replace it for every option and validator, so they must be declared
// before the rest of CLI11 uses them.

/// Integers: decimal digits behind an optional sign. False for anything else and for what does not fit.
template <>
bool lexical_cast(const std::string& input, std::int32_t& output);
template <>
bool lexical_cast(const std::string& input, std::int64_t& output);
template <>
bool lexical_cast(const std::string& input, std::uint64_t& output);
/// Real numbers: false for anything but a finite one.
template <>
bool lexical_cast(const std::string& input, float& output);
template <>
bool lexical_cast(const std::string& input, double& output);

}  // namespace CLI::detail

#include <CLI/CLI.hpp>
