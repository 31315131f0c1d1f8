#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <map>
#include <tuple>
#include <vector>

#include "datasets/augment.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

constexpr ImageSize kSize{4, 5};
const Normalization kNormalization{{0.5f, 0.25f, 0.1f}, {0.2f, 0.5f, 2.0f}};

std::vector<std::uint8_t> test_picture() {
  std::vector<std::uint8_t> picture(static_cast<std::size_t>(kSize.bytes()));
  for (std::size_t i = 0; i < picture.size(); ++i) picture[i] = static_cast<std::uint8_t>(i * 4 + 1);
  return picture;
}

float normalised(int pixel, std::size_t channel) {
  return (static_cast<float>(pixel) / 255.0f - kNormalization.mean[channel]) / kNormalization.stddev[channel];
}

// The definition, literally: pad with black, cut out, mirror, normalise.
std::vector<float> expected(const std::vector<std::uint8_t>& picture, std::int64_t padding,
                            const AugmentationChoice& choice) {
  const std::int64_t height = kSize.height + 2 * padding;
  const std::int64_t width = kSize.width + 2 * padding;
  std::vector<int> padded(static_cast<std::size_t>(height * width * 3), 0);
  for (std::int64_t y = 0; y < kSize.height; ++y) {
    for (std::int64_t b = 0; b < kSize.width * 3; ++b) {
      padded[static_cast<std::size_t>((y + padding) * width * 3 + padding * 3 + b)] =
          picture[static_cast<std::size_t>(y * kSize.width * 3 + b)];
    }
  }
  std::vector<float> out;
  for (std::int64_t y = 0; y < kSize.height; ++y) {
    for (std::int64_t x = 0; x < kSize.width; ++x) {
      const std::int64_t column = choice.flip ? kSize.width - 1 - x : x;
      const std::int64_t at = (y + padding + choice.dy) * width + column + padding + choice.dx;
      for (std::size_t c = 0; c < 3; ++c) {
        out.push_back(normalised(padded[static_cast<std::size_t>(at) * 3 + c], c));
      }
    }
  }
  return out;
}

}  // namespace

TEST_CASE("a picture is cut out, mirrored and normalised as defined, for every choice") {
  const auto picture = test_picture();
  const InputWriter writer(kNormalization);
  std::vector<float> out(picture.size());
  for (const bool flip : {false, true}) {
    for (std::int64_t dy = -6; dy <= 6; ++dy) {
      for (std::int64_t dx = -6; dx <= 6; ++dx) {
        const AugmentationChoice choice{flip, dy, dx};
        writer.write(picture, kSize, choice, out);
        REQUIRE(out == expected(picture, 6, choice));
      }
    }
  }
  CHECK(contains(error_of([&] { writer.write(picture, {5, 5}, {}, out); }), "5x5"));
}

TEST_CASE("a normalisation that cannot work is an error") {
  Normalization bad = kNormalization;
  bad.stddev[1] = 0;
  CHECK(contains(error_of([&] { InputWriter{bad}; }), "channel 1"));
  bad.stddev[1] = std::numeric_limits<float>::quiet_NaN();
  CHECK(contains(error_of([&] { InputWriter{bad}; }), "channel 1"));
}

TEST_CASE("choices are uniform over flips and offsets") {
  const Augmentation augmentation{.horizontal_flip = true, .crop_padding = 2};
  std::map<std::tuple<bool, std::int64_t, std::int64_t>, int> counts;
  Random random(3);
  constexpr int kDraws = 50000;
  for (int i = 0; i < kDraws; ++i) {
    const AugmentationChoice c = choose_augmentation(augmentation, random);
    ++counts[{c.flip, c.dy, c.dx}];
  }
  REQUIRE(counts.size() == 2 * 5 * 5);
  double chi_squared = 0;
  for (const auto& [choice, count] : counts) chi_squared += (count - 1000.0) * (count - 1000.0) / 1000.0;
  // 49 degrees of freedom: 99.9 % of uniform draws stay below 85.4.
  CHECK(chi_squared < 85.4);
}

TEST_CASE("without augmentation nothing is drawn") {
  Random random(3);
  const AugmentationChoice choice = choose_augmentation({}, random);
  CHECK(!choice.flip);
  CHECK(choice.dy == 0);
  CHECK(choice.dx == 0);
  CHECK(random.position() == 0);
}

TEST_CASE("mean and standard deviation of a data set") {
  // Channel 0: 0 and 255 in equal parts; channel 1: 51 and 153; channel 2: 1, 2, 3, 4 in turn.
  Tensor images = Tensor::empty({100, 2, 2, 3}, DType::u8);
  for (std::int64_t p = 0; p < 400; ++p) {
    auto* pixel = images.data<std::uint8_t>() + p * 3;
    pixel[0] = p % 2 == 0 ? 0 : 255;
    pixel[1] = p % 2 == 0 ? 51 : 153;
    pixel[2] = static_cast<std::uint8_t>(1 + p % 4);
  }
  const ImageDataset dataset(images, Tensor::zeros({100}, DType::i64), {"only"}, "it");
  const Normalization measured = measure_normalization(dataset);
  CHECK(measured.mean[0] == doctest::Approx(0.5).epsilon(1e-6));
  CHECK(measured.mean[1] == doctest::Approx(0.4).epsilon(1e-6));
  CHECK(measured.mean[2] == doctest::Approx(2.5 / 255).epsilon(1e-6));
  CHECK(measured.stddev[0] == doctest::Approx(0.5).epsilon(1e-6));
  CHECK(measured.stddev[1] == doctest::Approx(0.2).epsilon(1e-6));
  CHECK(measured.stddev[2] == doctest::Approx(std::sqrt(1.25) / 255).epsilon(1e-6));

  const ImageDataset flat(Tensor::zeros({1, 2, 2, 3}, DType::u8), Tensor::zeros({1}, DType::i64), {"only"},
                          "flat");
  CHECK(contains(error_of([&] { measure_normalization(flat); }), "constant"));
}
