#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <vector>

#include "core/random.hpp"
#include "datasets/picture.hpp"
#include "tests/datasets/picture_file.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

Picture random_picture(std::int64_t height, std::int64_t width) {
  Random random(5);
  Picture picture{{height, width}, {}};
  for (std::int64_t i = 0; i < picture.size.bytes(); ++i) {
    picture.pixels.push_back(static_cast<std::uint8_t>(random.next_u32()));
  }
  return picture;
}

std::vector<std::uint8_t> resized(const Picture& picture, ImageSize full) {
  std::vector<std::uint8_t> out(static_cast<std::size_t>(full.bytes()));
  resize_bilinear(picture.view(), full, 0, 0, full, out);
  return out;
}

// Weight of source pixel s for target pixel t: the triangle function, as wide as the scale when shrinking.
double triangle(std::int64_t s, std::int64_t t, double scale) {
  const double distance = std::abs(static_cast<double>(s) + 0.5 - (static_cast<double>(t) + 0.5) * scale);
  return std::max(0.0, 1 - distance / std::max(scale, 1.0));
}

// The two-dimensional filter in one step, in floating point.
double reference(const Picture& picture, ImageSize full, std::int64_t y, std::int64_t x,
                 std::int64_t channel) {
  const double scale_y = static_cast<double>(picture.size.height) / static_cast<double>(full.height);
  const double scale_x = static_cast<double>(picture.size.width) / static_cast<double>(full.width);
  double sum = 0;
  double weights = 0;
  for (std::int64_t sy = 0; sy < picture.size.height; ++sy) {
    for (std::int64_t sx = 0; sx < picture.size.width; ++sx) {
      const double weight = triangle(sy, y, scale_y) * triangle(sx, x, scale_x);
      sum += weight * picture.pixels[static_cast<std::size_t>((sy * picture.size.width + sx) * 3 + channel)];
      weights += weight;
    }
  }
  return sum / weights;
}

}  // namespace

TEST_CASE("PNG files decode to the pixels they were made from") {
  const ScratchDirectory scratch;
  const Picture picture = random_picture(7, 11);
  const Picture read = read_picture(scratch.write("a.png", png_bytes(picture)));
  CHECK(read.size == picture.size);
  CHECK(read.pixels == picture.pixels);

  // Grey is repeated, transparency dropped.
  const std::vector<std::uint8_t> grey = {10, 200};
  const Picture from_grey = read_picture(scratch.write("grey.png", png_bytes(grey.data(), 1, 2, 1)));
  CHECK(from_grey.pixels == std::vector<std::uint8_t>{10, 10, 10, 200, 200, 200});
  const std::vector<std::uint8_t> rgba = {1, 2, 3, 0, 4, 5, 6, 255};
  const Picture from_rgba = read_picture(scratch.write("rgba.png", png_bytes(rgba.data(), 2, 1, 4)));
  CHECK(from_rgba.size == ImageSize{2, 1});
  CHECK(from_rgba.pixels == std::vector<std::uint8_t>{1, 2, 3, 4, 5, 6});
}

TEST_CASE("JPEG files decode to nearly the pixels they were made from") {
  const ScratchDirectory scratch;
  const Picture picture = gradient_picture(40, 56);
  const Picture read = read_picture(scratch.write("a.jpg", jpeg_bytes(picture, 98)));
  REQUIRE(read.size == picture.size);
  double total = 0;
  for (std::size_t i = 0; i < read.pixels.size(); ++i) total += std::abs(read.pixels[i] - picture.pixels[i]);
  CHECK(total / static_cast<double>(read.pixels.size()) < 2.0);
}

TEST_CASE("files that are no whole picture are errors that name them") {
  const ScratchDirectory scratch;
  const Picture picture = gradient_picture(64, 64);
  CHECK(contains(error_of([&] { read_picture(scratch.path() / "none.png"); }), "none.png"));
  CHECK(contains(error_of([&] { read_picture(scratch.write("empty.jpg", "")); }), "empty.jpg is empty"));
  const std::string text = error_of([&] { read_picture(scratch.write("text.png", "not a picture at all")); });
  CHECK(contains(text, "text.png is not a JPEG or PNG picture ("));
  CHECK(!contains(text, "\n"));
  for (const std::string& bytes : {png_bytes(picture), jpeg_bytes(picture)}) {
    REQUIRE(error_of([&] { read_picture(scratch.write("whole", bytes)); }).empty());
    for (const double part : {0.01, 0.1, 0.5, 0.9, 0.99}) {
      const auto length = static_cast<std::size_t>(part * static_cast<double>(bytes.size()));
      CHECK(
          contains(error_of([&] { read_picture(scratch.write("cut", bytes.substr(0, length))); }), "cut is"));
    }
  }
}

TEST_CASE("a file that is too large for a picture is refused before it is read") {
  const ScratchDirectory scratch;
  const auto file = scratch.write("video.png", "x");
  std::filesystem::resize_file(file, std::uintmax_t{1} << 40);  // without blocks on the disk
  CHECK(contains(error_of([&] { read_picture(file); }), "video.png has 1099511627776 bytes, too many"));
}

TEST_CASE("what stands behind a JPEG picture, or in a segment before it, does not make it truncated") {
  const ScratchDirectory scratch;
  const std::string whole = jpeg_bytes(gradient_picture(64, 64));
  const auto read = [&](const std::string& bytes) {
    return error_of([&] { read_picture(scratch.write("a.jpg", bytes)); });
  };
  // A phone's film behind the picture, in which the marker that begins a scan occurs.
  CHECK(read(whole + "film \xFF\xDA film").empty());
  // An APP1 segment of 8 bytes with both markers in it, as a thumbnail has them.
  const std::string thumbnail("\xFF\xE1\x00\x08\xFF\xDA\xFF\xD9..", 10);
  const std::string with_thumbnail = whole.substr(0, 2) + thumbnail + whole.substr(2);
  CHECK(read(with_thumbnail).empty());
  CHECK(contains(read(with_thumbnail.substr(0, with_thumbnail.size() - 2)), "truncated"));
}

namespace {

// A segment of a JPEG file: its marker and, behind the length, what is in it.
std::string segment(int marker, const std::string& content) {
  const std::size_t length = content.size() + 2;
  return std::string{'\xFF', static_cast<char>(marker), static_cast<char>(length >> 8),
                     static_cast<char>(length)} +
         content;
}

// A Huffman table for a JPEG file with `counts[i]` codes of i + 1 bits, all for the value 0.
std::string huffman_table(int kind_and_number, const std::vector<int>& counts) {
  std::string table(17, '\0');
  table[0] = static_cast<char>(kind_and_number);
  int codes = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    table[i + 1] = static_cast<char>(counts[i]);
    codes += counts[i];
  }
  return table + std::string(static_cast<std::size_t>(codes), '\0');
}

// A grey JPEG file of 8x8 pixels in two scans; with `between` before the second one. The tables have one
// code, 0, for "the same as before" and "no more coefficients".
std::string progressive_jpeg(const std::string& between = "") {
  const std::string frame("\x08\x00\x08\x00\x08\x01\x01\x11\x00", 9);
  const std::string constant_scan("\x01\x01\x00\x00\x00\x00", 6);
  const std::string other_scan("\x01\x01\x00\x01\x3F\x00", 6);
  return "\xFF\xD8" + segment(0xDB, '\0' + std::string(64, '\1')) + segment(0xC2, frame) +
         segment(0xC4, huffman_table(0x00, {1})) + segment(0xDA, constant_scan) + '\x7F' + between +
         segment(0xC4, huffman_table(0x10, {1})) + segment(0xDA, other_scan) + "\x7F\xFF\xD9";
}

}  // namespace

TEST_CASE("a JPEG file whose Huffman table has more codes than any can have is damaged, not a crash") {
  const ScratchDirectory scratch;
  const auto read = [&](const std::string& bytes) {
    return error_of([&] { read_picture(scratch.write("a.jpg", bytes)); });
  };
  CHECK(read_picture(scratch.write("grey.jpg", progressive_jpeg())).pixels ==
        std::vector<std::uint8_t>(8 * 8 * 3, 128));

  const std::vector<int> many = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255};
  const std::string evil = segment(0xC4, huffman_table(0x11, many));
  const std::string expected =
      scratch / "a.jpg is a damaged JPEG file (a Huffman table has 765 codes instead of at most 256)";
  const std::string whole = jpeg_bytes(gradient_picture(16, 16));
  CHECK(contains(read(whole.substr(0, 2) + evil + whole.substr(2)), expected));
  // Between two scans, behind more than one FF, as the second table of its segment, and one that its segment
  // is too short for.
  CHECK(contains(read(progressive_jpeg(evil)), expected));
  CHECK(contains(read("\xFF\xFF" + whole.substr(1, 1) + "\xFF\xFF" + evil + whole.substr(2)), expected));
  const std::string second = segment(0xC4, huffman_table(0x01, {1}) + huffman_table(0x11, many));
  CHECK(contains(read(whole.substr(0, 2) + second + whole.substr(2)), expected));
  const std::string cut = segment(0xC4, huffman_table(0x11, many).substr(0, 1));
  CHECK(contains(read(whole.substr(0, 2) + cut + huffman_table(0x11, many).substr(1) + whole.substr(2)),
                 expected));
  // 256 codes are possible, and behind the picture nothing matters.
  const std::vector<int> most = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 255};
  CHECK(read(progressive_jpeg(segment(0xC4, huffman_table(0x11, most)))).empty());
  CHECK(read(whole + evil).empty());
}

TEST_CASE("a JPEG file that lacks a Huffman table is damaged, not decoded with what memory holds") {
  const ScratchDirectory scratch;
  const auto read = [&](const std::string& bytes) {
    return error_of([&] { read_picture(scratch.write("a.jpg", bytes)); });
  };
  // An application's segment in the place of the table at `at`.
  const auto without = [](std::string bytes, std::size_t at) {
    REQUIRE(at != std::string::npos);
    return bytes.replace(at, 2, "\xFF\xE4");
  };
  const std::string whole = jpeg_bytes(gradient_picture(16, 16));
  const std::string grey = progressive_jpeg();
  for (const std::string& bytes :
       {without(whole, whole.find("\xFF\xC4")), without(grey, grey.find("\xFF\xC4")),
        without(grey, grey.rfind("\xFF\xC4"))}) {
    CHECK(contains(read(bytes), scratch / "a.jpg is a damaged JPEG file (it lacks a Huffman table)"));
  }
  // A scan with one more bit of the means has no codes, whatever table it names.
  CHECK(read(progressive_jpeg(segment(0xDA, std::string("\x01\x01\x30\x00\x00\x10", 6)) + '\x7F')).empty());
}

TEST_CASE("a PNG file with a wrong checksum is damaged, and the chunk is named") {
  const ScratchDirectory scratch;
  const auto read = [&](const std::string& bytes) {
    return error_of([&] { read_picture(scratch.write("a.png", bytes)); });
  };
  const std::string whole = png_bytes(gradient_picture(5, 6));
  const auto flipped = [&](std::size_t at) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x01);
    return bytes;
  };
  const std::size_t header = whole.find("IHDR");
  const std::size_t data = whole.find("IDAT");
  const std::size_t end = whole.find("IEND");
  REQUIRE(read(whole).empty());
  // A pixel among those that are decoded, the picture's height and the checksum itself.
  CHECK(contains(read(flipped((data + end) / 2)),
                 scratch / "a.png is a damaged PNG file (the checksum of its IDAT chunk is wrong)"));
  CHECK(contains(read(flipped(header + 11)), "checksum of its IHDR chunk"));
  CHECK(contains(read(flipped(end + 4)), "checksum of its IEND chunk"));
  // Chunks that the decoder skips count too; what is no letter is not printed.
  const std::string before = whole.substr(0, data - 4), after = whole.substr(data - 4);
  CHECK(contains(read(before + std::string("\0\0\0\1tEXtx\0\0\0\0", 13) + after), "its tEXt chunk"));
  CHECK(contains(read(before + std::string("\0\0\0\0a\nBc\0\0\0\0", 12) + after), "its a?Bc chunk"));
  // The decoder stops at the last chunk, and one whose end is missing is its to judge.
  CHECK(read(whole + "more").empty());
  CHECK(contains(read(whole.substr(0, end - 9)), "a.png is not a JPEG or PNG picture ("));
}

TEST_CASE("picture extensions in any case") {
  for (const char* name : {"a.jpg", "b.JPG", "c.jpeg", "d.Png", "e.x.JpEg"})
    CHECK(has_picture_extension(name));
  for (const char* name : {"a.txt", "jpg", "b.jpg.txt", ".png", "c.gif"}) CHECK(!has_picture_extension(name));
}

TEST_CASE("resizing to the same size changes nothing and constant pictures stay constant") {
  const Picture picture = random_picture(9, 13);
  CHECK(resized(picture, picture.size) == picture.pixels);
  const Picture flat{{17, 5}, std::vector<std::uint8_t>(17 * 5 * 3, 201)};
  for (const ImageSize size : {ImageSize{3, 2}, ImageSize{40, 41}, ImageSize{1, 1}}) {
    CHECK(resized(flat, size) == std::vector<std::uint8_t>(static_cast<std::size_t>(size.bytes()), 201));
  }
}

TEST_CASE("halving uses the weights 1/8 3/8 3/8 1/8") {
  // One row, so that nothing happens down the columns; channels differ in a factor.
  Picture row{{1, 8}, {}};
  for (const int value : {0, 0, 0, 80, 0, 0, 0, 0}) {
    row.pixels.insert(row.pixels.end(), {static_cast<std::uint8_t>(value),
                                         static_cast<std::uint8_t>(value * 2), std::uint8_t{16}});
  }
  // Pixel 3 is the third tap of target 1 (which sees pixels 1 … 4) and the first of target 2 (3 … 6).
  CHECK(resized(row, {1, 4}) == std::vector<std::uint8_t>{0, 0, 16, 30, 60, 16, 10, 20, 16, 0, 0, 16});
}

TEST_CASE("resizing agrees with the filter's definition, up to rounding twice") {
  const Picture picture = random_picture(23, 31);
  for (const ImageSize full : {ImageSize{10, 10}, ImageSize{23, 7}, ImageSize{50, 64}, ImageSize{5, 90}}) {
    const auto out = resized(picture, full);
    double worst = 0;
    for (std::int64_t y = 0; y < full.height; ++y) {
      for (std::int64_t x = 0; x < full.width; ++x) {
        for (std::int64_t c = 0; c < 3; ++c) {
          const double value = out[static_cast<std::size_t>((y * full.width + x) * 3 + c)];
          worst = std::max(worst, std::abs(value - reference(picture, full, y, x, c)));
        }
      }
    }
    // Half a unit for each of the two 8-bit roundings.
    CHECK(worst <= 1.001);
  }
}

TEST_CASE("a window is that part of the whole result, and a crop sees only its own pixels") {
  const Picture picture = random_picture(40, 30);
  const ImageSize full{21, 17};
  const auto whole = resized(picture, full);
  const ImageSize window{6, 5};
  std::vector<std::uint8_t> part(static_cast<std::size_t>(window.bytes()));
  resize_bilinear(picture.view(), full, 9, 11, window, part);
  for (std::int64_t y = 0; y < window.height; ++y) {
    const auto* expected = whole.data() + ((y + 9) * full.width + 11) * 3;
    CHECK(std::equal(expected, expected + window.width * 3, part.data() + y * window.width * 3));
  }

  Picture cut{{12, 10}, {}};
  for (std::int64_t y = 0; y < 12; ++y) {
    const auto* row = picture.pixels.data() + ((y + 3) * 30 + 4) * 3;
    cut.pixels.insert(cut.pixels.end(), row, row + 30);
  }
  std::vector<std::uint8_t> from_view(5 * 5 * 3);
  resize_bilinear(picture.view().crop(3, 4, {12, 10}), {5, 5}, 0, 0, {5, 5}, from_view);
  CHECK(from_view == resized(cut, {5, 5}));

  CHECK(contains(error_of([&] { resize_bilinear(picture.view(), full, 16, 0, window, part); }),
                 "6x5 window at (16, 0) is not inside a 21x17 picture"));
  CHECK(contains(error_of([&] { resize_bilinear(picture.view(), full, 0, 0, full, part); }), "90 bytes"));
}
