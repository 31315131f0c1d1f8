#include <doctest/doctest.h>
#include <set>
#include <string>
#include <vector>

#include "datasets/image_folder.hpp"
#include "datasets/loader.hpp"
#include "datasets/open.hpp"
#include "datasets/picture.hpp"
#include "tests/datasets/picture_file.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

std::string flat_png(std::uint8_t value, int height = 3, int width = 3) {
  const std::vector<std::uint8_t> pixels(static_cast<std::size_t>(height * width * 3), value);
  return png_bytes(pixels.data(), height, width, 3);
}

std::vector<std::uint8_t> decoded(const Dataset& dataset, std::int64_t index, Random* random = nullptr) {
  std::vector<std::uint8_t> picture(static_cast<std::size_t>(dataset.image_size().bytes()));
  dataset.decode(index, picture, random);
  return picture;
}

}  // namespace

TEST_CASE("classes are ranked by folder name, files by class and name; other files are ignored") {
  const ScratchDirectory scratch;
  scratch.write("zebra/1.png", flat_png(10));
  scratch.write("zebra/0.JPG", flat_png(20));  // the contents decide how it is decoded
  scratch.write("ant/b.jpeg", flat_png(30));
  scratch.write("ant/a.PNG", flat_png(40));
  scratch.write("ant/readme.txt", "no picture");
  scratch.write("ant/.hidden.png", "no picture");
  scratch.write("ant/folder.png/inner.png", flat_png(1));
  scratch.write(".cache/x.png", flat_png(50));
  scratch.write("list.csv", "no folder");
  const ImageFolder dataset(scratch.path(), {.size = 4, .resize = 4});
  CHECK(dataset.class_names() == std::vector<std::string>{"ant", "zebra"});
  REQUIRE(dataset.size() == 4);
  const std::vector<std::uint8_t> values = {40, 30, 20, 10};
  for (std::int64_t i = 0; i < 4; ++i) {
    CHECK(dataset.label(i) == i / 2);
    CHECK(decoded(dataset, i) == std::vector<std::uint8_t>(48, values[static_cast<std::size_t>(i)]));
  }
  CHECK(dataset.file(1) == scratch.path() / "ant" / "b.jpeg");
  CHECK(contains(error_of([&] { dataset.label(4); }), "no picture 4"));
}

TEST_CASE("evaluation resizes the shorter side and cuts out the centre") {
  const ScratchDirectory scratch;
  const Picture wide = gradient_picture(20, 51);
  const Picture tall = gradient_picture(33, 16);
  scratch.write("c/1.png", png_bytes(wide));
  scratch.write("c/2.png", png_bytes(tall));
  const ImageFolder dataset(scratch.path(), {.size = 8, .resize = 10});
  std::vector<std::uint8_t> expected(8 * 8 * 3);
  // 10 / 20 x 51 = 25.5, cut to 25; (25 - 8) / 2 = 8.5 rounds to the even 8.
  resize_bilinear(wide.view(), {10, 25}, 1, 8, {8, 8}, expected);
  CHECK(decoded(dataset, 0) == expected);
  // 10 / 16 x 33 = 20.625, cut to 20; (20 - 8) / 2 = 6.
  resize_bilinear(tall.view(), {20, 10}, 6, 1, {8, 8}, expected);
  CHECK(decoded(dataset, 1) == expected);
}

TEST_CASE("training takes a random region, the same one for the same random state") {
  const ScratchDirectory scratch;
  const Picture picture = gradient_picture(60, 80);
  scratch.write("c/1.png", png_bytes(picture));
  scratch.write("c/2.png", png_bytes(gradient_picture(4, 200)));
  const ImageFolder dataset(scratch.path(), {.size = 8, .resize = 8, .random_resized_crop = true});
  std::set<std::string> different;
  double smallest = 1;
  double largest = 0;
  for (std::uint64_t stream = 0; stream < 200; ++stream) {
    Random random(1, stream);
    Random again(1, stream);
    const auto crop = decoded(dataset, 0, &random);
    CHECK(crop == decoded(dataset, 0, &again));
    different.emplace(crop.begin(), crop.end());
    // Red grows across the picture and green down it: their range over the crop (seven of eight steps) tells
    // which fraction of the picture it covers.
    const double width = (crop[7 * 3] - crop[0]) / 255.0 * 8 / 7;
    const double height = (crop[7 * 8 * 3 + 1] - crop[1]) / 255.0 * 8 / 7;
    smallest = std::min(smallest, width * height);
    largest = std::max(largest, width * height);
  }
  CHECK(different.size() > 150);
  CHECK(smallest < 0.2);
  CHECK(smallest > 0.05);
  CHECK(largest > 0.8);
  CHECK(largest < 1.1);

  // Without a random state it is the evaluation form; a strip too thin for any region gives its middle.
  const ImageFolder evaluation(scratch.path(), {.size = 8, .resize = 8});
  CHECK(decoded(dataset, 0) == decoded(evaluation, 0));
  const ImageFolder whole(
      scratch.path(), {.size = 8, .resize = 8, .random_resized_crop = true, .min_area = 1, .max_ratio = 1});
  Random random(1);
  std::vector<std::uint8_t> expected(8 * 8 * 3);
  const Picture strip = gradient_picture(4, 200);
  resize_bilinear(strip.view().crop(0, 98, {4, 4}), {8, 8}, 0, 0, {8, 8}, expected);
  CHECK(decoded(whole, 1, &random) == expected);
}

TEST_CASE("splits are the folders train and val or test") {
  const ScratchDirectory scratch;
  scratch.write("train/a/1.png", flat_png(1));
  scratch.write("train/b/1.png", flat_png(2));
  CHECK(contains(error_of([&] { open_dataset(scratch.path(), Split::test); }), "no val or test folder"));
  scratch.write("test/a/1.png", flat_png(3));
  scratch.write("test/b/1.png", flat_png(4));
  CHECK(image_folder_directory(scratch.path(), Split::train) == scratch.path() / "train");
  CHECK(image_folder_directory(scratch.path(), Split::test) == scratch.path() / "test");
  scratch.write("val/a/1.png", flat_png(5));
  CHECK(image_folder_directory(scratch.path(), Split::test) == scratch.path() / "val");
  const auto train = open_dataset(scratch.path(), Split::train, {.size = 2, .resize = 2});
  CHECK(train->size() == 2);
  CHECK(decoded(*train, 1) == std::vector<std::uint8_t>(12, 2));
  const ScratchDirectory only_val;
  only_val.write("val/a/1.png", flat_png(5));
  CHECK(open_dataset(only_val.path(), Split::test, {.size = 2, .resize = 2})->size() == 1);
  CHECK(contains(error_of([&] { open_dataset(only_val.path(), Split::train); }),
                 "there is no " + (only_val.path() / "train").string()));
}

TEST_CASE("links are followed, and a dead one is an error where a picture or a class would be missing") {
  const ScratchDirectory scratch;
  scratch.write("elsewhere/1.png", flat_png(1));
  scratch.write("elsewhere/more/2.png", flat_png(2));
  scratch.write("root/a/readme.txt", "no picture");
  const std::filesystem::path root = scratch.path() / "root";
  const auto link = [&](const char* to, const std::filesystem::path& name) {
    std::filesystem::create_symlink(to, root / name);
    return (root / name).string();
  };
  link("../../elsewhere/1.png", "a/1.png");
  link("../elsewhere/more", "b");
  // Neither would be a picture of a class or a class.
  link("nowhere", "a/notes.txt");
  link("nowhere", "a/.hidden.png");
  link("nowhere", ".hidden");
  link("nowhere", "overview.png");
  const auto names = [&] { return ImageFolder(root, {.size = 2, .resize = 2}).class_names(); };
  CHECK(names() == std::vector<std::string>{"a", "b"});

  for (const char* name : {"a/0.png", "0"}) {
    const std::string path = link("nowhere", name);
    CHECK(contains(error_of(names), path + " leads nowhere (No such file or directory)"));
    std::filesystem::remove(path);
    CHECK(names().size() == 2);
  }
  const std::string circle = link("0.png", "a/0.png");
  CHECK(contains(error_of(names), circle + " leads nowhere (Too many levels"));
}

TEST_CASE("image folder errors name the folder or file") {
  const ScratchDirectory scratch;
  const auto missing = scratch.path() / "missing";
  CHECK(contains(error_of([&] { ImageFolder{missing}; }), "no directory " + missing.string()));
  scratch.write("flat.png", flat_png(1));
  CHECK(contains(error_of([&] { ImageFolder{scratch.path()}; }),
                 scratch.path().string() + " holds no class folders"));
  scratch.write("full/1.png", flat_png(1));
  scratch.write("bare/notes.txt", "x");
  CHECK(contains(error_of([&] { ImageFolder{scratch.path()}; }),
                 "class folder " + (scratch.path() / "bare").string() + " holds no .jpg"));
  const auto bad = scratch.write("bare/2.jpg", "this is no picture");
  const auto dataset =
      std::make_shared<ImageFolder>(scratch.path(), ImageFolderOptions{.size = 2, .resize = 2});
  CHECK(contains(error_of([&] { decoded(*dataset, 0); }), bad.string() + " is not a JPEG or PNG picture"));
  // ... also when it comes through a loader's thread.
  Loader loader(dataset, {.batch_size = 1});
  CHECK(contains(error_of([&] { loader.next(); }), bad.string() + " is not a JPEG or PNG picture"));

  CHECK(
      contains(error_of([&] { ImageFolder(scratch.path(), {.size = 20, .resize = 19}); }), "resize >= size"));
  CHECK(contains(error_of([&] { ImageFolder(scratch.path(), {.min_area = 0}); }), "min_area 0"));
}
