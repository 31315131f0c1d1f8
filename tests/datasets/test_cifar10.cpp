#include <doctest/doctest.h>
#include <string>
#include <vector>

#include "datasets/cifar10.hpp"
#include "datasets/open.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

// Value of a channel of a pixel in record r of a made-up batch.
std::uint8_t pixel(std::int64_t record, std::int64_t channel, std::int64_t position) {
  return static_cast<std::uint8_t>(record * 31 + channel * 97 + position * 7 + position / 32);
}

std::string batch(const std::vector<int>& labels, std::int64_t first_record = 0) {
  std::string bytes;
  for (std::size_t r = 0; r < labels.size(); ++r) {
    bytes.push_back(static_cast<char>(labels[r]));
    for (std::int64_t c = 0; c < 3; ++c) {
      for (std::int64_t p = 0; p < 1024; ++p) {
        bytes.push_back(static_cast<char>(pixel(first_record + static_cast<std::int64_t>(r), c, p)));
      }
    }
  }
  return bytes;
}

}  // namespace

TEST_CASE("a batch file becomes NHWC pictures and labels") {
  const ScratchDirectory scratch;
  const auto file = scratch.write("some.bin", batch({3, 0, 9}));
  const auto dataset = load_cifar10_batch(file);
  REQUIRE(dataset->size() == 3);
  CHECK(dataset->image_size() == ImageSize{32, 32});
  CHECK(dataset->images().shape() == Shape{3, 32, 32, 3});
  CHECK(dataset->labels().to_vector<std::int64_t>() == std::vector<std::int64_t>{3, 0, 9});
  CHECK(dataset->class_names()[9] == "truck");
  std::vector<std::uint8_t> picture(3072);
  for (std::int64_t r = 0; r < 3; ++r) {
    dataset->decode(r, picture);
    bool same = true;
    for (std::int64_t p = 0; p < 1024; ++p) {
      for (std::int64_t c = 0; c < 3; ++c)
        same &= picture[static_cast<std::size_t>(p * 3 + c)] == pixel(r, c, p);
    }
    CHECK(same);
  }
}

TEST_CASE("the five training batches are joined in order, in DIR or in DIR/cifar-10-batches-bin") {
  for (const std::string prefix : {"", "cifar-10-batches-bin/"}) {
    const ScratchDirectory scratch;
    for (int b = 0; b < 5; ++b) {
      // Batches of 1, 2, 3, 4 and 5 records.
      scratch.write(prefix + fmt::format("data_batch_{}.bin", b + 1),
                    batch(std::vector<int>(static_cast<std::size_t>(b + 1), b)));
    }
    scratch.write(prefix + "test_batch.bin", batch({7, 8}));
    scratch.write(prefix + "batches.meta.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n");
    CHECK(is_cifar10_directory(scratch.path()));
    const auto train = load_cifar10(scratch.path(), Split::train);
    CHECK(train->labels().to_vector<std::int64_t>() ==
          std::vector<std::int64_t>{0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4});
    CHECK(train->images().data<std::uint8_t>()[2 * 3072] == pixel(1, 0, 0));
    CHECK(train->class_names()[1] == "b");
    const auto test = open_dataset(scratch.path(), Split::test);
    REQUIRE(test->size() == 2);
    CHECK(test->label(1) == 8);
  }
}

TEST_CASE("only the files of the asked split are needed") {
  const ScratchDirectory scratch;
  scratch.write("test_batch.bin", batch({1}));
  CHECK(load_cifar10(scratch.path(), Split::test)->size() == 1);
  CHECK(open_dataset(scratch.path(), Split::test)->size() == 1);
  const std::string error = error_of([&] { load_cifar10(scratch.path(), Split::train); });
  CHECK(contains(error, "data_batch_1.bin"));
  CHECK(contains(error, scratch.path().string()));
  CHECK(contains(error, "cifar-10-binary.tar.gz"));
}

TEST_CASE("CIFAR-10 errors name the file and what is wrong with it") {
  const ScratchDirectory scratch;
  const auto missing = scratch.path() / "nowhere";
  CHECK(contains(error_of([&] { load_cifar10(missing, Split::test); }), missing.string()));
  CHECK(contains(error_of([&] { open_dataset(missing, Split::test); }), missing.string()));
  CHECK(contains(error_of([&] { load_cifar10_batch(missing); }), missing.string()));

  const auto empty = scratch.write("empty.bin", "");
  CHECK(contains(error_of([&] { load_cifar10_batch(empty); }), "empty.bin is empty"));

  std::string bytes = batch({1, 2});
  bytes.pop_back();
  const auto truncated = scratch.write("truncated.bin", bytes);
  const std::string error = error_of([&] { load_cifar10_batch(truncated); });
  CHECK(contains(error, truncated.string() + " has 6145 bytes"));
  CHECK(contains(error, "3072 bytes are left over"));

  // This one says so before it is read: no memory would hold it, and it has no blocks on the disk.
  std::filesystem::resize_file(truncated, std::uintmax_t{1} << 40);
  CHECK(contains(error_of([&] { load_cifar10_batch(truncated); }), " has 1099511627776 bytes"));

  const auto bad_label = scratch.write("label.bin", batch({1, 2, 10, 3}));
  CHECK(contains(error_of([&] { load_cifar10_batch(bad_label); }),
                 "record 2 of " + bad_label.string() + " has label 10"));
  const auto negative = scratch.write("negative.bin", batch({-1}));
  CHECK(contains(error_of([&] { load_cifar10_batch(negative); }),
                 "record 0 of " + negative.string() + " has label 255"));

  const ScratchDirectory names;
  names.write("test_batch.bin", batch({1}));
  names.write("batches.meta.txt", "one\ntwo\n");
  CHECK(contains(error_of([&] { load_cifar10(names.path(), Split::test); }), "names 2 classes"));

  const ScratchDirectory nothing;
  CHECK(contains(error_of([&] { open_dataset(nothing.path(), Split::train); }), "neither CIFAR-10 batches"));
  for (const std::string& text : {error, error_of([&] { open_dataset(nothing.path(), Split::train); })}) {
    CHECK(!contains(text, "\n"));
  }
}
