#include "datasets/picture_damage.hpp"

#include <cstddef>
#include <fmt/format.h>

namespace goshawk {
namespace {

// Where a JPEG file's first segment begins, behind the marker that begins the picture; npos for other files.
// That marker, like any other, may have more than one FF before it.
std::size_t jpeg_segments(std::string_view bytes) {
  const std::size_t start = bytes.find_first_not_of('\xFF');
  const bool jpeg = start != 0 && start != std::string_view::npos && bytes[start] == '\xD8';
  return jpeg ? start + 1 : std::string_view::npos;
}

// stb 2.27 has room for 256 codes in a Huffman table and does not count them; and it fills what a truncated
// file lacks with grey and reports success. So this goes over the whole file as stb does. A segment is
// skipped by its length, since it may hold a thumbnail with markers of its own; what follows the picture does
// not matter.
std::string jpeg_damage(std::string_view bytes, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return i < bytes.size() ? std::size_t{static_cast<unsigned char>(bytes[i])} : 0;
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
        table += 17 + codes;
      }
    }
    at = end;
  }
}

}  // namespace

std::string find_picture_damage(std::string_view bytes) {
  const std::size_t jpeg = jpeg_segments(bytes);
  return jpeg == std::string_view::npos ? "" : jpeg_damage(bytes, jpeg);
}

}  // namespace goshawk
