// Which Philox stream each random choice of this floor draws from, so that no two of them share numbers.
#pragma once

#include <cstdint>

#include "core/error.hpp"

namespace goshawk::stream {

// The purpose is the top byte of the stream number; quant/dnas_search.cpp has 0xE0 to 0xE2, and everything
// else uses streams with a top byte of zero.
inline constexpr std::uint64_t kShuffle = 0xD1;
inline constexpr std::uint64_t kAugment = 0xD2;
inline constexpr std::uint64_t kSynthetic = 0xD3;
inline constexpr std::uint64_t kSubset = 0xD4;

/// The stream of `purpose` for (major, minor), say (epoch, sample): major < 2^24, minor < 2^32.
inline std::uint64_t number(std::uint64_t purpose, std::int64_t major, std::int64_t minor) {
  check(
      major >= 0 && major < (std::int64_t{1} << 24) && minor >= 0 && minor < (std::int64_t{1} << 32),
      "[stream] ({}, {}) is outside the numbered random streams: use less than 2^24 epochs and 2^32 samples",
      major, minor);
  return purpose << 56 | static_cast<std::uint64_t>(major) << 32 | static_cast<std::uint64_t>(minor);
}

}  // namespace goshawk::stream
