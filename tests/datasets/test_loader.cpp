#include <algorithm>
#include <atomic>
#include <chrono>
#include <doctest/doctest.h>
#include <thread>
#include <vector>

#include "core/parallel.hpp"
#include "datasets/loader.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

constexpr std::int64_t kPictures = 53;

std::shared_ptr<const ImageDataset> random_pictures() {
  Random random(77);
  Tensor images = Tensor::empty({kPictures, 8, 6, 3}, DType::u8);
  for (auto& pixel : images.span<std::uint8_t>()) pixel = static_cast<std::uint8_t>(random.next_u32());
  Tensor labels = Tensor::empty({kPictures}, DType::i64);
  for (std::int64_t i = 0; i < kPictures; ++i) labels.data<std::int64_t>()[i] = i % 3;
  return std::make_shared<ImageDataset>(images, labels, std::vector<std::string>{"a", "b", "c"}, "random");
}

LoaderOptions training_options() {
  return {.batch_size = 8,
          .shuffle = true,
          .seed = 9,
          .augmentation = {.horizontal_flip = true, .crop_padding = 2}};
}

bool same(const Batch& a, const Batch& b) {
  return a.epoch == b.epoch && a.step == b.step && a.images.shape() == b.images.shape() &&
         std::ranges::equal(a.images.span<float>(), b.images.span<float>()) &&
         std::ranges::equal(a.labels.span<std::int64_t>(), b.labels.span<std::int64_t>()) &&
         std::ranges::equal(a.indices.span<std::int64_t>(), b.indices.span<std::int64_t>());
}

std::vector<Batch> epochs(Loader& loader, int count) {
  std::vector<Batch> batches;
  for (int epoch = 0; epoch < count; ++epoch) {
    while (auto batch = loader.next()) batches.push_back(*batch);
  }
  return batches;
}

bool same(const std::vector<Batch>& a, const std::vector<Batch>& b) {
  return std::ranges::equal(a, b, [](const Batch& x, const Batch& y) { return same(x, y); });
}

std::vector<std::int64_t> indices_of(const std::vector<Batch>& batches) {
  std::vector<std::int64_t> result;
  for (const Batch& batch : batches) {
    const auto indices = batch.indices.span<std::int64_t>();
    result.insert(result.end(), indices.begin(), indices.end());
  }
  return result;
}

std::vector<std::int64_t> counting() {
  std::vector<std::int64_t> numbers;
  for (std::int64_t i = 0; i < kPictures; ++i) numbers.push_back(i);
  return numbers;
}

// Fails to decode one picture, and can be slow.
class Faulty : public Dataset {
 public:
  explicit Faulty(std::int64_t bad, int milliseconds = 0) : bad_(bad), milliseconds_(milliseconds) {}
  std::int64_t size() const override { return 40; }
  ImageSize image_size() const override { return {1, 1}; }
  std::int64_t label(std::int64_t) const override { return 0; }
  void decode(std::int64_t index, std::span<std::uint8_t> out, Random* random) const override {
    ++decoded;
    if (random != nullptr) drew_region = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds_));
    check(index != bad_ || repaired, "[test] picture {} is bad; replace it", index);
    std::fill(out.begin(), out.end(), std::uint8_t{0});
  }
  const std::vector<std::string>& class_names() const override { return names_; }
  const std::string& name() const override { return names_[0]; }

  mutable std::atomic<int> decoded = 0;
  mutable std::atomic<bool> drew_region = false;
  std::atomic<bool> repaired = false;

 private:
  std::int64_t bad_;
  int milliseconds_;
  std::vector<std::string> names_ = {"faulty"};
};

}  // namespace

TEST_CASE("in order and without augmentation a loader is the data set, normalised") {
  const auto dataset = random_pictures();
  Loader loader(dataset, {.batch_size = 10});
  CHECK(loader.steps_per_epoch() == 6);
  const auto batches = epochs(loader, 1);
  REQUIRE(batches.size() == 6);
  CHECK(batches[5].size() == 3);
  CHECK(indices_of(batches) == counting());
  const Normalization imagenet = Normalization::imagenet();
  for (const Batch& batch : batches) {
    CHECK(batch.images.shape() == Shape{batch.size(), 8, 6, 3});
    for (std::int64_t i = 0; i < batch.size(); ++i) {
      const std::int64_t index = batch.indices.data<std::int64_t>()[i];
      CHECK(batch.labels.data<std::int64_t>()[i] == index % 3);
      bool equal = true;
      for (std::int64_t b = 0; b < 144; ++b) {
        const auto c = static_cast<std::size_t>(b % 3);
        const float pixel = dataset->images().data<std::uint8_t>()[index * 144 + b];
        equal &= batch.images.data<float>()[i * 144 + b] ==
                 (pixel / 255.0f - imagenet.mean[c]) / imagenet.stddev[c];
      }
      CHECK(equal);
    }
  }
  const Batch direct =
      make_batch(*dataset, std::vector<std::int64_t>{10, 11, 12, 13, 14, 15, 16, 17, 18, 19}, imagenet);
  CHECK(std::ranges::equal(direct.images.span<float>(), batches[1].images.span<float>()));
  CHECK(std::ranges::equal(direct.labels.span<std::int64_t>(), batches[1].labels.span<std::int64_t>()));
}

TEST_CASE("drop_last leaves out the batch that is not full") {
  LoaderOptions options{.batch_size = 10, .drop_last = true};
  Loader loader(random_pictures(), options);
  CHECK(loader.steps_per_epoch() == 5);
  CHECK(indices_of(epochs(loader, 1)).size() == 50);
  options.batch_size = 54;
  CHECK(contains(error_of([&] { Loader(random_pictures(), options); }), "drop_last leaves no batch"));
}

TEST_CASE("each epoch is another permutation of all pictures") {
  Loader loader(random_pictures(), training_options());
  auto first = indices_of(epochs(loader, 1));
  auto second = indices_of(epochs(loader, 1));
  CHECK(first != second);
  CHECK(first != counting());
  std::ranges::sort(first);
  std::ranges::sort(second);
  CHECK(first == counting());
  CHECK(second == counting());
}

TEST_CASE("batches do not depend on prefetching or threads") {
  LoaderOptions options = training_options();
  options.prefetch = 0;
  Loader reference(random_pictures(), options);
  const auto expected = epochs(reference, 3);
  CHECK(expected.size() == 3 * 7);
  for (const int threads : {1, 2, 4}) {
    set_num_threads(threads);
    for (const std::int64_t prefetch : {1, 3, 50}) {
      options.prefetch = prefetch;
      Loader loader(random_pictures(), options);
      CHECK(same(epochs(loader, 3), expected));
    }
  }
  set_num_threads(0);
  options.seed = 10;
  Loader other(random_pictures(), options);
  CHECK(!same(epochs(other, 3), expected));
}

TEST_CASE("random choices for a picture depend on the epoch but not on the batch it is in") {
  LoaderOptions options = training_options();
  Loader eights(random_pictures(), options);
  options.batch_size = 53;
  options.shuffle = false;
  Loader whole(random_pictures(), options);
  const Batch ordered = *whole.next();
  const Batch shuffled = *eights.next();
  for (std::int64_t i = 0; i < shuffled.size(); ++i) {
    const std::int64_t index = shuffled.indices.data<std::int64_t>()[i];
    const float* a = shuffled.images.data<float>() + i * 144;
    const float* b = ordered.images.data<float>() + index * 144;
    CHECK(std::equal(a, a + 144, b));
  }
  CHECK(!whole.next());
  const Batch next_epoch = *whole.next();
  CHECK(!std::ranges::equal(next_epoch.images.span<float>(), ordered.images.span<float>()));
}

TEST_CASE("a loader resumes from any position with the same bits") {
  for (const std::int64_t prefetch : {0, 2}) {
    LoaderOptions options = training_options();
    options.prefetch = prefetch;
    Loader reference(random_pictures(), options);
    const auto all = epochs(reference, 3);
    Loader moving(random_pictures(), options);
    for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
      for (std::int64_t step = 0; step <= 7; ++step) {
        const LoaderState state{epoch, step};
        Loader fresh(random_pictures(), options, state);
        CHECK(fresh.state() == state);
        moving.seek(state);
        const std::vector<Batch> rest(all.begin() + epoch * 7 + step, all.begin() + (epoch + 2) * 7);
        CHECK(same(epochs(fresh, 2), rest));
        CHECK(same(epochs(moving, 2), rest));
        CHECK(moving.state() == LoaderState{epoch + 2, 0});
      }
    }
  }
}

TEST_CASE("the state is the position of the next batch") {
  Loader loader(random_pictures(), {.batch_size = 30});
  CHECK(loader.state() == LoaderState{0, 0});
  CHECK(loader.next()->step == 0);
  CHECK(loader.state() == LoaderState{0, 1});
  CHECK(loader.next()->step == 1);
  CHECK(loader.state() == LoaderState{0, 2});
  CHECK(!loader.next());
  CHECK(loader.state() == LoaderState{1, 0});
  CHECK(loader.next()->epoch == 1);
  CHECK(contains(error_of([&] { loader.seek({0, 3}); }), "(epoch 0, step 3)"));
  CHECK(contains(error_of([&] { loader.seek({-1, 0}); }), "(epoch -1, step 0)"));
  CHECK(loader.next()->step == 1);  // a refused seek changes nothing
}

TEST_CASE("a picture that cannot be read is an error at its batch, after the good ones") {
  for (const std::int64_t prefetch : {0, 1, 8}) {
    Loader loader(std::make_shared<Faulty>(25), {.batch_size = 10, .prefetch = prefetch});
    CHECK(loader.next()->step == 0);
    CHECK(loader.next()->step == 1);
    CHECK(error_of([&] { loader.next(); }) == "[test] picture 25 is bad; replace it");
    CHECK(loader.state() == LoaderState{0, 2});
    CHECK(error_of([&] { loader.next(); }) == "[test] picture 25 is bad; replace it");
    loader.seek({0, 3});
    CHECK(loader.next()->step == 3);
  }
}

TEST_CASE("what could not be read once can be tried again") {
  for (const std::int64_t prefetch : {0, 2}) {
    const auto set = std::make_shared<Faulty>(25);
    Loader loader(set, {.batch_size = 10, .prefetch = prefetch});
    loader.next();
    loader.next();
    CHECK(error_of([&] { loader.next(); }) == "[test] picture 25 is bad; replace it");
    set->repaired = true;
    loader.seek(loader.state());
    CHECK(loader.next()->step == 2);
    CHECK(loader.next()->step == 3);
  }
}

TEST_CASE("a loader may be destroyed at any moment and prepares no more batches than asked") {
  const auto dataset = std::make_shared<Faulty>(-1, 1);
  for (int wait = 0; wait < 30; wait += 3) {
    Loader loader(dataset, {.batch_size = 4, .prefetch = 3});
    if (wait % 2 == 0) loader.next();
    std::this_thread::sleep_for(std::chrono::milliseconds(wait));
  }
  dataset->decoded = 0;
  Loader loader(dataset, {.batch_size = 4, .prefetch = 3});
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (dataset->decoded < 3 * 4 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  CHECK(dataset->decoded == 3 * 4);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(dataset->decoded == 3 * 4);
}

TEST_CASE("data sets choose random regions only when the loader is told so") {
  const auto dataset = std::make_shared<Faulty>(-1);
  LoaderOptions options{.batch_size = 40, .prefetch = 0};
  Loader(dataset, options).next();
  CHECK(!dataset->drew_region);
  options.random_decode = true;
  Loader(dataset, options).next();
  CHECK(dataset->drew_region);
}

TEST_CASE("options that make no sense are errors") {
  const auto dataset = random_pictures();
  CHECK(contains(error_of([&] { Loader(dataset, {.batch_size = 0}); }), "batch_size is 0"));
  CHECK(contains(error_of([&] { Loader(dataset, {.prefetch = -1}); }), "prefetch is -1"));
  CHECK(contains(error_of([&] { Loader(dataset, {.augmentation = {.crop_padding = -2}}); }),
                 "crop_padding is -2"));
  CHECK(
      contains(error_of([&] { Loader(std::make_shared<Subset>(dataset, std::vector<std::int64_t>{}), {}); }),
               "no pictures"));
}
