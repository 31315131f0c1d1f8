#include "datasets/picture.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <memory>
#include <string>
#include <system_error>

#include "core/file.hpp"
#include "datasets/picture_damage.hpp"

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_FAILURE_USERMSG
#include <stb/stb_image.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace goshawk {
namespace {

constexpr int kPrecisionBits = 22;

// For each output position the source positions that contribute and their fixed-point weights.
struct Filter {
  struct Span {
    std::int64_t begin = 0;  ///< first source position
    std::int64_t count = 0;
    std::size_t weights = 0;  ///< where its weights begin
  };
  std::vector<Span> spans;
  std::vector<std::int32_t> weights;
};

// The triangle filter for output positions [first, first + count) when `source` pixels become `target`.
Filter make_filter(std::int64_t source, std::int64_t target, std::int64_t first, std::int64_t count) {
  const double scale = static_cast<double>(source) / static_cast<double>(target);
  const double support = std::max(scale, 1.0);
  Filter filter;
  std::vector<double> weights;
  for (std::int64_t i = first; i < first + count; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto begin = std::max<std::int64_t>(static_cast<std::int64_t>(centre - support + 0.5), 0);
    const auto end = std::min<std::int64_t>(static_cast<std::int64_t>(centre + support + 0.5), source);
    weights.clear();
    double sum = 0;
    for (std::int64_t s = begin; s < end; ++s) {
      const double distance = std::abs(static_cast<double>(s) + 0.5 - centre) / support;
      weights.push_back(std::max(0.0, 1 - distance));
      sum += weights.back();
    }
    filter.spans.push_back({begin, end - begin, filter.weights.size()});
    for (const double weight : weights) {
      filter.weights.push_back(static_cast<std::int32_t>(weight / sum * (1 << kPrecisionBits) + 0.5));
    }
  }
  return filter;
}

std::uint8_t to_pixel(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

constexpr std::int32_t kHalf = 1 << (kPrecisionBits - 1);

}  // namespace

bool has_picture_extension(const std::filesystem::path& file) {
  std::string extension = file.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

Picture read_picture(const std::filesystem::path& file) {
  const auto check_size = [&](std::uintmax_t size) {
    check(size > 0, "[read_picture] {} is empty; replace or delete it", file.string());
    check(size < (std::uintmax_t{1} << 31),
          "[read_picture] {} has {} bytes, too many for a picture; replace or delete it", file.string(),
          size);
  };
  // Before it is read, too: it may be larger than memory. (A pipe has no size yet.)
  std::error_code unknown;
  if (const std::uintmax_t size = std::filesystem::file_size(file, unknown); !unknown) check_size(size);
  const std::string bytes = read_file(file);
  check_size(bytes.size());
  const std::string damage = find_picture_damage(bytes);
  check(damage.empty(), "[read_picture] {} is {}; replace or delete it", file.string(), damage);
  int width = 0;
  int height = 0;
  int channels = 0;
  constexpr int kRgb = 3;
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      stbi_load_from_memory(reinterpret_cast<const stbi_uc*>(bytes.data()), static_cast<int>(bytes.size()),
                            &width, &height, &channels, kRgb),
      stbi_image_free);
  check(pixels != nullptr, "[read_picture] {} is not a JPEG or PNG picture ({}); replace or delete it",
        file.string(), stbi_failure_reason());
  Picture picture{{height, width}, {}};
  picture.pixels.assign(pixels.get(), pixels.get() + picture.size.bytes());
  return picture;
}

void resize_bilinear(const PictureView& source, ImageSize full, std::int64_t y, std::int64_t x,
                     ImageSize window, std::span<std::uint8_t> out) {
  check(source.size.height > 0 && source.size.width > 0 && y >= 0 && x >= 0 && window.height > 0 &&
            window.width > 0 && y + window.height <= full.height && x + window.width <= full.width,
        "[resize_bilinear] the {}x{} window at ({}, {}) is not inside a {}x{} picture made from {}x{}",
        window.height, window.width, y, x, full.height, full.width, source.size.height, source.size.width);
  check(static_cast<std::int64_t>(out.size()) == window.bytes(),
        "[resize_bilinear] the buffer has {} bytes instead of {}", out.size(), window.bytes());
  const Filter across = make_filter(source.size.width, full.width, x, window.width);
  const Filter down = make_filter(source.size.height, full.height, y, window.height);

  // Rows first: only those the second pass reads.
  const std::int64_t top = down.spans.front().begin;
  const std::int64_t bottom = down.spans.back().begin + down.spans.back().count;
  const std::int64_t row_bytes = window.width * 3;
  std::vector<std::uint8_t> rows(static_cast<std::size_t>((bottom - top) * row_bytes));
  for (std::int64_t r = top; r < bottom; ++r) {
    const std::uint8_t* in = source.pixels + r * source.row_bytes;
    std::uint8_t* to = rows.data() + (r - top) * row_bytes;
    for (const Filter::Span& span : across.spans) {
      std::int32_t sum[3] = {kHalf, kHalf, kHalf};
      const std::int32_t* weights = across.weights.data() + span.weights;
      const std::uint8_t* pixel = in + span.begin * 3;
      for (std::int64_t i = 0; i < span.count; ++i, pixel += 3) {
        for (int c = 0; c < 3; ++c) sum[c] += pixel[c] * weights[i];
      }
      for (int c = 0; c < 3; ++c) *to++ = to_pixel(sum[c]);
    }
  }

  std::vector<std::int32_t> sums(static_cast<std::size_t>(row_bytes));
  std::uint8_t* to = out.data();
  for (const Filter::Span& span : down.spans) {
    std::fill(sums.begin(), sums.end(), kHalf);
    for (std::int64_t i = 0; i < span.count; ++i) {
      const std::int32_t weight = down.weights[span.weights + static_cast<std::size_t>(i)];
      const std::uint8_t* row = rows.data() + (span.begin + i - top) * row_bytes;
      for (std::size_t b = 0; b < sums.size(); ++b) sums[b] += row[b] * weight;
    }
    for (const std::int32_t sum : sums) *to++ = to_pixel(sum);
  }
}

}  // namespace goshawk
