#include "datasets/augment.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/parallel.hpp"

namespace goshawk {

Normalization measure_normalization(const Dataset& dataset) {
  const ImageSize size = dataset.image_size();
  check(dataset.size() > 0, "[measure_normalization] {} has no pictures", dataset.name());
  struct Sums {
    std::array<std::int64_t, 3> sum{};
    std::array<std::int64_t, 3> squares{};
  };
  constexpr std::int64_t kGrain = 64;
  std::vector<Sums> partial(static_cast<std::size_t>((dataset.size() + kGrain - 1) / kGrain));
  parallel_for(dataset.size(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::uint8_t> picture(static_cast<std::size_t>(size.bytes()));
    Sums& sums = partial[static_cast<std::size_t>(begin / kGrain)];
    for (std::int64_t i = begin; i < end; ++i) {
      dataset.decode(i, picture);
      for (std::size_t p = 0; p < picture.size(); p += 3) {
        for (std::size_t c = 0; c < 3; ++c) {
          const std::int64_t value = picture[p + c];
          sums.sum[c] += value;
          sums.squares[c] += value * value;
        }
      }
    }
  });
  Normalization result;
  const double pixels = static_cast<double>(dataset.size()) * static_cast<double>(size.height * size.width);
  for (std::size_t c = 0; c < 3; ++c) {
    double sum = 0;
    double squares = 0;
    for (const Sums& sums : partial) {
      sum += static_cast<double>(sums.sum[c]);
      squares += static_cast<double>(sums.squares[c]);
    }
    const double mean = sum / pixels;
    const double variance = std::max(0.0, squares / pixels - mean * mean);
    check(variance > 0, "[measure_normalization] channel {} of {} is constant and cannot be normalised", c,
          dataset.name());
    result.mean[c] = static_cast<float>(mean / 255);
    result.stddev[c] = static_cast<float>(std::sqrt(variance) / 255);
  }
  return result;
}

AugmentationChoice choose_augmentation(const Augmentation& augmentation, Random& random) {
  AugmentationChoice choice;
  if (augmentation.crop_padding > 0) {
    const auto offsets = static_cast<std::uint64_t>(2 * augmentation.crop_padding + 1);
    choice.dy = static_cast<std::int64_t>(random.below(offsets)) - augmentation.crop_padding;
    choice.dx = static_cast<std::int64_t>(random.below(offsets)) - augmentation.crop_padding;
  }
  if (augmentation.horizontal_flip) choice.flip = (random.next_u32() & 1) != 0;
  return choice;
}

InputWriter::InputWriter(const Normalization& normalization) {
  for (std::size_t c = 0; c < 3; ++c) {
    const float mean = normalization.mean[c];
    const float stddev = normalization.stddev[c];
    check(std::isfinite(mean) && std::isfinite(stddev) && stddev > 0,
          "[normalize] channel {} has mean {} and standard deviation {}; the latter must be positive and "
          "both finite",
          c, mean, stddev);
    for (std::size_t pixel = 0; pixel < table_.size(); ++pixel) {
      table_[pixel][c] = (static_cast<float>(pixel) / 255.0f - mean) / stddev;
    }
  }
}

void InputWriter::write(std::span<const std::uint8_t> picture, ImageSize size,
                        const AugmentationChoice& choice, std::span<float> out) const {
  check(static_cast<std::int64_t>(picture.size()) == size.bytes() && out.size() == picture.size(),
        "[InputWriter] a {}x{} picture has {} values, but {} were given and there is room for {}",
        size.height, size.width, size.bytes(), picture.size(), out.size());
  const std::array<float, 3>& black = table_[0];
  // Column x of the output shows column x + dx of the picture, or (width − 1 − x) + dx when mirrored.
  const std::int64_t first = choice.flip ? size.width - 1 + choice.dx : choice.dx;
  const std::int64_t direction = choice.flip ? -1 : 1;
  float* to = out.data();
  for (std::int64_t y = 0; y < size.height; ++y) {
    const std::int64_t row = y + choice.dy;
    const bool row_inside = row >= 0 && row < size.height;
    const std::uint8_t* in = picture.data() + (row_inside ? row : 0) * size.width * 3;
    for (std::int64_t x = 0; x < size.width; ++x, to += 3) {
      const std::int64_t column = first + direction * x;
      if (row_inside && column >= 0 && column < size.width) {
        const std::uint8_t* pixel = in + column * 3;
        for (std::size_t c = 0; c < 3; ++c) to[c] = table_[pixel[c]][c];
      } else {
        for (std::size_t c = 0; c < 3; ++c) to[c] = black[c];
      }
    }
  }
}

}  // namespace goshawk
