// Writes pictures as PNG and JPEG files, in memory.
#pragma once

#include <cstdint>
#include <string>

#include "datasets/picture.hpp"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include <stb/stb_image_write.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace goshawk {

inline void append_bytes(void* text, void* data, int size) {
  static_cast<std::string*>(text)->append(static_cast<const char*>(data), static_cast<std::size_t>(size));
}

inline std::string png_bytes(const std::uint8_t* pixels, int height, int width, int channels) {
  std::string bytes;
  stbi_write_png_to_func(append_bytes, &bytes, width, height, channels, pixels, width * channels);
  return bytes;
}

inline std::string png_bytes(const Picture& picture) {
  return png_bytes(picture.pixels.data(), static_cast<int>(picture.size.height),
                   static_cast<int>(picture.size.width), 3);
}

inline std::string jpeg_bytes(const Picture& picture, int quality = 95) {
  std::string bytes;
  stbi_write_jpg_to_func(append_bytes, &bytes, static_cast<int>(picture.size.width),
                         static_cast<int>(picture.size.height), 3, picture.pixels.data(), quality);
  return bytes;
}

/// A smooth picture whose pixels all differ from their neighbours.
inline Picture gradient_picture(std::int64_t height, std::int64_t width) {
  Picture picture{{height, width}, {}};
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      picture.pixels.push_back(static_cast<std::uint8_t>(255 * x / width));
      picture.pixels.push_back(static_cast<std::uint8_t>(255 * y / height));
      picture.pixels.push_back(static_cast<std::uint8_t>(100 + 50 * (x + y) / (height + width)));
    }
  }
  return picture;
}

}  // namespace goshawk
