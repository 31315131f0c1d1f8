// One decoded picture: reading JPEG and PNG files, and resizing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "datasets/dataset.hpp"

namespace goshawk {

/// A rectangle of u8 RGB pixels inside a larger picture that is kept alive elsewhere.
struct PictureView {
  const std::uint8_t* pixels = nullptr;  ///< top left, [height, width, 3] with row_bytes between rows
  ImageSize size;
  std::int64_t row_bytes = 0;

  /// The rectangle with its top left corner at (y, x), which must lie inside.
  PictureView crop(std::int64_t y, std::int64_t x, ImageSize rectangle) const {
    return {pixels + y * row_bytes + x * 3, rectangle, row_bytes};
  }
};

/// u8 RGB pixels, [height, width, 3].
struct Picture {
  ImageSize size;
  std::vector<std::uint8_t> pixels;

  PictureView view() const { return {pixels.data(), size, size.width * 3}; }
};

/// True for .jpg, .jpeg and .png in any case.
bool has_picture_extension(const std::filesystem::path& file);

/// Decodes a JPEG or PNG file to RGB (grey is repeated, transparency dropped, 16 bits cut to 8). Throws Error
/// that names the file when it cannot be read, is no picture, is truncated or damaged.
Picture read_picture(const std::filesystem::path& file);

/// Resizes `source` to `full` and writes the part of the result that starts at (y, x) and has the size
/// `window` to `out` (window.bytes() bytes). Bilinear; when shrinking, the triangle filter widens with the
/// scale so that every source pixel counts (antialiasing). Same filter, 8-bit intermediate and rounding as
/// Pillow's BILINEAR, which torchvision's Resize uses on files.
void resize_bilinear(const PictureView& source, ImageSize full, std::int64_t y, std::int64_t x,
                     ImageSize window, std::span<std::uint8_t> out);

}  // namespace goshawk
