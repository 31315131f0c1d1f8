#include "datasets/picture_damage.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <fmt/format.h>
#include <functional>

namespace goshawk {
namespace {

// Where a JPEG file's first segment begins, behind the marker that begins the picture; npos for other files.
// That marker, like any other, may have more than one FF before it.
std::size_t jpeg_segments(std::string_view bytes) {
  const std::size_t start = bytes.find_first_not_of('\xFF');
  const bool jpeg = start != 0 && start != std::string_view::npos && bytes[start] == '\xD8';
  return jpeg ? start + 1 : std::string_view::npos;
}

// stb 2.27 does not count the codes of a Huffman table, of which it has room for 256; it decodes with
// whatever memory holds where a scan names a table that is not there; and it fills what a truncated file
// lacks with grey and reports success. So this goes over the whole file as stb does. A segment is skipped by
// its length, since it may hold a thumbnail with markers of its own; what follows the picture does not
// matter.
std::string jpeg_damage(std::string_view bytes, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return i < bytes.size() ? std::size_t{static_cast<unsigned char>(bytes[i])} : 0;
  };
  // By the byte that names a table: 0x0N for a block's mean, 0x1N for its other coefficients.
  std::array<bool, 256> has_table{};
  bool progressive = false;
  const auto has_tables_of_scan = [&](std::size_t scan) {
    const std::size_t components = byte(scan + 2);
    const std::size_t range = scan + 3 + 2 * components;
    const bool means = byte(range) == 0;
    const bool refines = byte(range + 2) >> 4 != 0;
    // A progressive file has scans for either; further bits of means have no codes.
    const bool needs_mean = means && !refines;
    const bool needs_other = !means || !progressive;
    for (std::size_t i = scan + 4; i < range; i += 2) {
      if (needs_mean && !has_table[byte(i) >> 4]) return false;
      if (needs_other && !has_table[0x10 | (byte(i) & 0x0F)]) return false;
    }
    return true;
  };
  for (;;) {
    at = bytes.find_first_not_of('\xFF', bytes.find('\xFF', at));
    if (at == std::string_view::npos) return "a truncated JPEG file";
    const std::size_t marker = byte(at++);
    if (marker == 0xD9) return "";
    // Entropy-coded data have these, and restart markers; none has a length.
    if (marker <= 0x01 || (marker >= 0xD0 && marker <= 0xD8)) continue;
    const std::size_t end = at + (byte(at) << 8 | byte(at + 1));
    if (marker == 0xC4) {
      for (std::size_t table = at + 2; table < end;) {
        std::size_t codes = 0;
        for (std::size_t length = 1; length <= 16; ++length) codes += byte(table + length);
        if (codes > 256) {
          return fmt::format("a damaged JPEG file (a Huffman table has {} codes instead of at most 256)",
                             codes);
        }
        has_table[byte(table)] = true;
        table += 17 + codes;
      }
    }
    progressive |= marker == 0xC2;
    if (marker == 0xDA && !has_tables_of_scan(at)) return "a damaged JPEG file (it lacks a Huffman table)";
    at = end;
  }
}

constexpr std::string_view kPngSignature = "\x89PNG\r\n\x1A\n";

// CRC-32 of each byte, lowest bit first.
constexpr auto kChecksums = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < table.size(); ++byte) {
    std::uint32_t sum = byte;
    for (int bit = 0; bit < 8; ++bit) sum = sum >> 1 ^ ((sum & 1) != 0 ? 0xEDB88320U : 0U);
    table[byte] = sum;
  }
  return table;
}();

std::uint32_t checksum(std::string_view bytes) {
  std::uint32_t sum = ~0U;
  for (const char c : bytes) sum = sum >> 8 ^ kChecksums[(sum ^ static_cast<unsigned char>(c)) & 0xFF];
  return ~sum;
}

std::uint32_t big_endian(std::string_view four) {
  std::uint32_t value = 0;
  for (const char c : four.substr(0, 4)) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

// stb skips the checksums and would make other pixels of a damaged file. A file that ends within a chunk is
// left to the decoder.
std::string png_damage(std::string_view bytes) {
  constexpr std::size_t kAround = 12;  // bytes of a chunk beside its data: length, type and checksum
  bytes.remove_prefix(kPngSignature.size());
  while (bytes.size() >= kAround) {
    const std::size_t length = big_endian(bytes);
    if (length > bytes.size() - kAround) break;
    std::string type(bytes.substr(4, 4));
    if (checksum(bytes.substr(4, 4 + length)) != big_endian(bytes.substr(8 + length))) {
      const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
      std::replace_if(type.begin(), type.end(), std::not_fn(is_letter), '?');
      return fmt::format("a damaged PNG file (the checksum of its {} chunk is wrong)", type);
    }
    if (type == "IEND") break;
    bytes.remove_prefix(kAround + length);
  }
  return "";
}

}  // namespace

std::string find_picture_damage(std::string_view bytes) {
  if (bytes.starts_with(kPngSignature)) return png_damage(bytes);
  const std::size_t jpeg = jpeg_segments(bytes);
  return jpeg == std::string_view::npos ? "" : jpeg_damage(bytes, jpeg);
}

}  // namespace goshawk
