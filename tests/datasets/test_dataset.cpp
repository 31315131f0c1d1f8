#include <doctest/doctest.h>
#include <set>
#include <vector>

#include "datasets/dataset.hpp"
#include "datasets/streams.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

// Picture i is i everywhere and has label i mod 4.
std::shared_ptr<const ImageDataset> numbered(std::int64_t n) {
  Tensor images = Tensor::empty({n, 2, 3, 3}, DType::u8);
  Tensor labels = Tensor::empty({n}, DType::i64);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t b = 0; b < 18; ++b)
      images.data<std::uint8_t>()[i * 18 + b] = static_cast<std::uint8_t>(i);
    labels.data<std::int64_t>()[i] = i % 4;
  }
  return std::make_shared<ImageDataset>(images, labels, std::vector<std::string>{"a", "b", "c", "d"},
                                        "numbers");
}

std::vector<int> pictures(const Dataset& dataset) {
  std::vector<int> result;
  std::vector<std::uint8_t> picture(static_cast<std::size_t>(dataset.image_size().bytes()));
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    dataset.decode(i, picture);
    result.push_back(picture.back());
    CHECK(dataset.label(i) == picture.back() % 4);
  }
  return result;
}

}  // namespace

TEST_CASE("an in-memory data set checks what it is made of and what it is asked for") {
  const Tensor images = Tensor::zeros({2, 4, 4, 3}, DType::u8);
  const auto make = [](const Tensor& i, const Tensor& l) { ImageDataset(i, l, {"a", "b"}, "it"); };
  const Tensor labels = Tensor::from(std::vector<std::int64_t>{0, 1}, {2});
  CHECK(error_of([&] { make(images, labels); }).empty());
  CHECK(contains(error_of([&] { make(Tensor::zeros({2, 4, 4, 1}, DType::u8), labels); }), "[2, 4, 4, 1]"));
  CHECK(contains(error_of([&] { make(images.to(DType::f32), labels); }), "f32"));
  CHECK(contains(error_of([&] { make(images, Tensor::zeros({3}, DType::i64)); }), "i64 [3]"));
  CHECK(contains(error_of([&] {
                   make(images, Tensor::from(std::vector<std::int64_t>{0, 2}, {2}));
                 }),
                 "label 2 of image 1"));

  const auto dataset = numbered(5);
  CHECK(dataset->num_classes() == 4);
  std::vector<std::uint8_t> buffer(18);
  CHECK(contains(error_of([&] { dataset->decode(5, buffer); }), "no picture 5"));
  CHECK(contains(error_of([&] { dataset->label(-1); }), "no picture -1"));
  buffer.resize(17);
  CHECK(contains(error_of([&] { dataset->decode(0, buffer); }), "needs 18 bytes (2x3x3)"));
}

TEST_CASE("subsets choose pictures of another data set") {
  const auto base = numbered(10);
  const Subset subset(base, {7, 2, 2, 9});
  CHECK(pictures(subset) == std::vector<int>{7, 2, 2, 9});
  CHECK(subset.class_names() == base->class_names());
  CHECK(contains(error_of([&] { Subset(base, {0, 10}); }), "no picture 10"));
  CHECK(contains(error_of([&] { subset.label(4); }), "no picture 4"));

  CHECK(pictures(*first_images(base, 3)) == std::vector<int>{0, 1, 2});
  CHECK(first_images(base, 99)->size() == 10);
  CHECK(contains(error_of([&] { first_images(base, 0); }), "at least 1"));
}

TEST_CASE("some pictures of a data set that comes class by class are of all classes") {
  const auto by_class = [](std::int64_t period) {
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < 100; ++i) labels.push_back(period > 0 ? i % period : i / 25);
    return std::make_shared<ImageDataset>(Tensor::zeros({100, 2, 3, 3}, DType::u8),
                                          Tensor::from(labels, {100}),
                                          std::vector<std::string>{"a", "b", "c", "d"}, "test");
  };
  const auto labels = [](const Dataset& dataset) {
    std::vector<std::int64_t> all;
    for (std::int64_t i = 0; i < dataset.size(); ++i) all.push_back(dataset.label(i));
    return all;
  };
  const std::vector<std::int64_t> some = labels(*some_images(by_class(0), 20));
  CHECK(some.size() == 20);
  for (const std::int64_t label : {0, 1, 2, 3}) CHECK(std::count(some.begin(), some.end(), label) > 0);
  CHECK(labels(*some_images(by_class(0), 20)) == some);
  // Mixed classes: the first ones. All of them: in their order.
  CHECK(labels(*some_images(by_class(4), 5)) == std::vector<std::int64_t>{0, 1, 2, 3, 0});
  CHECK(labels(*some_images(by_class(0), 100)) == labels(*by_class(0)));
}

TEST_CASE("random subsets have different pictures, depend on the seed and grow by adding") {
  const auto base = numbered(100);
  const auto some = pictures(*random_images(base, 20, 5));
  const auto more = pictures(*random_images(base, 60, 5));
  CHECK(std::set<int>(more.begin(), more.end()).size() == 60);
  CHECK(std::vector<int>(more.begin(), more.begin() + 20) == some);
  CHECK(pictures(*random_images(base, 20, 6)) != some);
  CHECK(random_images(base, 1000, 5)->size() == 100);
}

TEST_CASE("loading into memory keeps pictures, labels and names") {
  const auto base = numbered(50);
  const auto loaded = load_into_memory(Subset(base, {40, 3, 11}));
  CHECK(pictures(*loaded) == std::vector<int>{40, 3, 11});
  CHECK(loaded->class_names() == base->class_names());
}

TEST_CASE("random streams of different purposes, epochs and samples are different") {
  std::set<std::uint64_t> numbers;
  for (const auto purpose : {stream::kShuffle, stream::kAugment, stream::kSynthetic, stream::kSubset}) {
    for (const std::int64_t major : {0, 1, 0xFFFFFF}) {
      for (const std::int64_t minor : {0L, 1L, 0xFFFFFFFFL})
        numbers.insert(stream::number(purpose, major, minor));
    }
  }
  CHECK(numbers.size() == 4 * 3 * 3);
  CHECK(contains(error_of([] { stream::number(stream::kAugment, 1 << 24, 0); }), "2^24"));
}
