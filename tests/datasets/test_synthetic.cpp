#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/parallel.hpp"
#include "datasets/synthetic.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

std::vector<std::uint8_t> pixels(const ImageDataset& dataset, std::int64_t count) {
  const auto* data = dataset.images().data<std::uint8_t>();
  return {data, data + count * dataset.image_size().bytes()};
}

// FNV-1a.
std::uint64_t fingerprint(const std::vector<std::uint8_t>& bytes) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const std::uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3;
  return hash;
}

}  // namespace

TEST_CASE("the synthetic set is balanced and named") {
  const auto dataset = make_synthetic(Split::train, 200);
  CHECK(dataset->images().shape() == Shape{200, 32, 32, 3});
  CHECK(dataset->num_classes() == 10);
  const auto& names = dataset->class_names();
  CHECK(std::set<std::string>(names.begin(), names.end()).size() == 10);
  std::vector<int> counts(10);
  for (std::int64_t i = 0; i < 200; ++i) ++counts[static_cast<std::size_t>(dataset->label(i))];
  CHECK(counts == std::vector<int>(10, 20));
}

TEST_CASE("a synthetic picture depends on seed, split and its number alone") {
  const auto dataset = make_synthetic(Split::train, 150);
  const auto reference = pixels(*dataset, 150);
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    CHECK(pixels(*make_synthetic(Split::train, 150), 150) == reference);
  }
  set_num_threads(0);
  const auto fewer = make_synthetic(Split::train, 7);
  CHECK(std::equal(reference.begin(), reference.begin() + 7 * 3072, pixels(*fewer, 7).begin()));
  CHECK(pixels(*make_synthetic(Split::test, 150), 150) != reference);
  CHECK(pixels(*make_synthetic(Split::train, 150, {.seed = 1}), 150) != reference);
  // No two pictures are alike.
  std::set<std::string> different;
  for (std::int64_t i = 0; i < 150; ++i) {
    different.emplace(reference.begin() + i * 3072, reference.begin() + (i + 1) * 3072);
  }
  CHECK(different.size() == 150);
}

TEST_CASE("the synthetic set stays what published results were measured on") {
  // Drawn with exactly rounded operations only, so every machine and compiler must get these bytes.
  CHECK(fingerprint(pixels(*make_synthetic(Split::train, 100), 100)) == 15626607877388834665u);
  CHECK(fingerprint(pixels(*make_synthetic(Split::test, 100), 100)) == 7687353280499358812u);
}

TEST_CASE("noise, contrast and ambiguity do what they say") {
  // Without noise, waves and distractors a picture is a flat background with one shape.
  const SyntheticOptions clean{.noise = 0, .background = 0, .max_distractors = 0, .ambiguous = 0};
  const auto plain = make_synthetic(Split::train, 10, clean);
  std::vector<std::uint8_t> picture(3072);
  for (std::int64_t i = 0; i < 10; ++i) {
    plain->decode(i, picture);
    std::map<int, int> colours;
    int most = 0;
    for (std::size_t p = 0; p < picture.size(); p += 3) {
      const int colour = picture[p] << 16 | picture[p + 1] << 8 | picture[p + 2];
      most = std::max(most, ++colours[colour]);
    }
    CHECK(most > 512);   // the background
    CHECK(most < 1000);  // and something on it
  }

  // Pixel noise has the standard deviation asked for (background pixels far from black and white).
  SyntheticOptions noisy = clean;
  noisy.noise = 0.05;
  const auto a = make_synthetic(Split::train, 100, clean);
  const auto b = make_synthetic(Split::train, 100, noisy);
  double squares = 0;
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < a->images().numel(); ++i) {
    const double value = a->images().data<std::uint8_t>()[i];
    if (value < 60 || value > 195) continue;
    const double difference = b->images().data<std::uint8_t>()[i] - value;
    squares += difference * difference;
    ++count;
  }
  REQUIRE(count > 100000);
  CHECK(std::sqrt(squares / static_cast<double>(count)) == doctest::Approx(0.05 * 255).epsilon(0.02));

  // Ambiguity changes that fraction of the pictures and no others.
  SyntheticOptions half = clean;
  half.ambiguous = 0.5;
  const auto c = make_synthetic(Split::train, 400, clean);
  const auto d = make_synthetic(Split::train, 400, half);
  SyntheticOptions all = clean;
  all.ambiguous = 1;
  const auto e = make_synthetic(Split::train, 400, all);
  int half_changed = 0;
  int all_changed = 0;
  std::vector<std::uint8_t> other(3072);
  for (std::int64_t i = 0; i < 400; ++i) {
    c->decode(i, picture);
    d->decode(i, other);
    half_changed += picture != other;
    e->decode(i, other);
    all_changed += picture != other;
  }
  CHECK(all_changed == 400);
  CHECK(half_changed > 150);
  CHECK(half_changed < 250);
}

TEST_CASE("synthetic options out of range are errors") {
  CHECK(contains(error_of([] { make_synthetic(Split::train, 0); }), "at least 1"));
  CHECK(contains(error_of([] { make_synthetic(Split::train, 1, {.noise = -1}); }), "noise -1"));
  CHECK(contains(error_of([] { make_synthetic(Split::train, 1, {.min_radius = 9, .max_radius = 8}); }),
                 "min_radius 9"));
  CHECK(contains(error_of([] { make_synthetic(Split::train, 1, {.ambiguous = 1.5}); }), "ambiguous 1.5"));
}
