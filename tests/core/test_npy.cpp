#include <cstring>
#include <doctest/doctest.h>

#include "core/npy.hpp"
#include "tests/support/file_size_limit.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

std::string assemble(std::string dict, const std::string& data, int major = 1) {
  dict += '\n';
  std::string bytes = "\x93NUMPY";
  bytes += static_cast<char>(major);
  bytes += '\0';
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i) bytes += static_cast<char>(dict.size() >> (8 * i) & 0xff);
  return bytes + dict + data;
}

}  // namespace

TEST_CASE("the bytes are those that numpy.save documents") {
  const ScratchDirectory directory;
  write_npy(directory / "a.npy", Tensor::from<float>({1, -2}, {2}));
  std::string expected("\x93NUMPY\x01\x00\x76\x00", 10);
  expected += "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
  expected += std::string(127 - expected.size(), ' ') + '\n';
  expected += std::string("\x00\x00\x80\x3f\x00\x00\x00\xc0", 8);
  CHECK(directory.read("a.npy") == expected);
}

TEST_CASE("every type and shape comes back") {
  const ScratchDirectory directory;
  for (const Tensor& t :
       {Tensor::from<float>({1.5f, -0.0f, 3}, {3}), Tensor::from<double>({0.1, 1e300}, {2, 1}),
        Tensor::from<std::int64_t>({INT64_MIN, INT64_MAX}, {1, 2}),
        Tensor::from<std::int32_t>({INT32_MIN, 7}, {2}), Tensor::from<std::uint8_t>({0, 255, 3}, {3}),
        Tensor::from<std::int8_t>({-128, 127}, {2}), Tensor::scalar(3, DType::f64),
        Tensor::zeros({2, 0, 3}, DType::i32), Tensor::full({1, 2, 1, 2, 1, 2}, DType::u8, 4),
        Tensor::zeros({1, 1, 1, 1, 1, 100003}, DType::u8)}) {
    write_npy(directory / "t.npy", t);
    const Tensor read = read_npy(directory / "t.npy");
    CHECK(read.shape() == t.shape());
    CHECK(read.dtype() == t.dtype());
    CHECK(std::memcmp(read.raw(), t.raw(), static_cast<std::size_t>(t.bytes())) == 0);
    CHECK((directory.read("t.npy").size() - static_cast<std::size_t>(t.bytes())) % 64 == 0);
    CHECK(directory.entries() == 1);
  }
}

TEST_CASE("headers as other writers make them") {
  const ScratchDirectory directory;
  for (const char* dict : {
           "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }          ",
           "{\"shape\":(2,3),\"descr\":\"|u1\",\"fortran_order\":False}",
           "  { 'fortran_order' : False , 'descr':'<u1', 'shape':( 2 , 3 , ) , } ",
       }) {
    for (int version : {1, 2}) {
      CAPTURE(dict);
      const std::string path = directory.write("t.npy", assemble(dict, "abcdef", version));
      Tensor t;
      REQUIRE(error_of([&] { t = read_npy(path); }) == "");
      CHECK(t.shape() == Shape{2, 3});
      CHECK(t.to_vector<std::uint8_t>() == std::vector<std::uint8_t>{'a', 'b', 'c', 'd', 'e', 'f'});
    }
  }
}

TEST_CASE("what is not supported or damaged is refused in one line with the file and the remedy") {
  const auto dict = [](const char* descr, const char* order, const char* shape) {
    return fmt::format("{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}", descr, order, shape);
  };
  struct Case {
    std::string bytes;
    std::string expected;
  };
  const std::string good = dict("'<f4'", "False", "(1,)");
  const std::string data(4, '\0');
  const std::vector<Case> cases{
      {assemble(dict("'<f4'", "True", "(1,)"), data), "ascontiguousarray"},
      {assemble(dict("'>f4'", "False", "(1,)"), data), "big-endian"},
      {assemble(dict("'|O'", "False", "(1,)"), data), "\"|O\", which is not supported"},
      {assemble(dict("'<f2'", "False", "(1,)"), data), "\"<f2\""},
      {assemble(dict("'|b1'", "False", "(1,)"), data), "\"|b1\""},
      {assemble(dict("'<u4'", "False", "(1,)"), data), "\"<u4\""},
      {assemble(dict("'f4'", "False", "(1,)"), data), "\"f4\""},
      {assemble(dict("[('x', '<f4')]", "False", "(1,)"), data), "named fields"},
      {assemble(dict("'<f4'", "0", "(1,)"), data), "not as numpy writes it"},
      {assemble(dict("'<f4'", "False", "(1)"), data), "not as numpy writes it"},
      {assemble(dict("'<f4'", "False", "1"), data), "not as numpy writes it"},
      {assemble(dict("'<f4'", "False", "(-1,)"), data), "not as numpy writes it"},
      {assemble(dict("'<f4'", "False", "(1 1)"), data), "not as numpy writes it"},
      {assemble(dict("'<f4'", "False", "(,)"), data), "not as numpy writes it"},
      {assemble(dict("'<f4'", "False", "(99999999999999999999,)"), data), "not as numpy writes it"},
      {assemble(dict("'<f4'", "False", "(1, 1, 1, 1, 1, 1, 1)"), data), "more than 6 dimensions"},
      {assemble(dict("'<f4'", "False", "(4611686018427387904, 4)"), data), "impossibly large"},
      {assemble(dict("'<f4'", "False", "(4611686018427387904, 4, 0)"), ""), "impossibly large"},
      {assemble(dict("'<f4'", "False", "(1000000000000,)"), data), "truncated"},
      {assemble(good, data + "x"), "several arrays"},
      {assemble(good, data.substr(1)), "truncated"},
      {assemble(good + "x", data), "not as numpy writes it"},
      {assemble(good + std::string(1, '\0'), data), "not as numpy writes it"},
      {assemble("", data), "not as numpy writes it"},
      {assemble("{}", data), "not as numpy writes it"},
      {assemble("{'descr': '<f4', 'shape': (1,)}", data), "not as numpy writes it"},
      {assemble("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", data),
       "not as numpy writes it"},
      {assemble("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}", data),
       "not as numpy writes it"},
      {assemble("{'descr': '<f4", data), "not as numpy writes it"},
      {assemble(good, data, 3), "version 3.0"},
      {"PK\x03\x04 a zip file", "no .npy file"},
      {std::string("\x93NUMPY\x01\x00\xff\xff{}", 12), "truncated"},
      {std::string("\x93NUMPY\x02\x00\xff\xff\xff\xff{}", 14), "truncated"},
  };
  const ScratchDirectory directory;
  for (const Case& c : cases) {
    CAPTURE(c.bytes);
    const std::string path = directory.write("t.npy", c.bytes);
    const std::string message = error_of([&] { read_npy(path); });
    CAPTURE(message);
    CHECK(contains(message, "[read_npy]"));
    CHECK(contains(message, path));
    CHECK(contains(message, c.expected));
    CHECK_FALSE(contains(message, "\n"));
  }
}

TEST_CASE("a file cut at any length is refused, and any flipped bit is harmless") {
  const ScratchDirectory directory;
  write_npy(directory / "whole.npy", Tensor::from<float>({1, 2, 3}, {3, 1}));
  const std::string whole = directory.read("whole.npy");
  for (std::size_t length = 0; length < whole.size(); ++length) {
    CAPTURE(length);
    const std::string path = directory.write("cut.npy", whole.substr(0, length));
    CHECK(contains(error_of([&] { read_npy(path); }), path));
  }
  int refused = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
      const std::string path = directory.write("flipped.npy", bytes);
      // Anything but Error would end this test.
      refused += error_of([&] { read_npy(path); }).empty() ? 0 : 1;
    }
  }
  // Flips in the data cannot be seen; almost all others must be.
  CHECK(refused > (static_cast<int>(whole.size()) - 12) * 7);
}

TEST_CASE("a write that fails leaves the old file") {
  const ScratchDirectory directory;
  const std::string path = directory / "t.npy";
  write_npy(path, Tensor::scalar(1, DType::f32));
  const std::string old = directory.read("t.npy");
  const Tensor big = Tensor::zeros({10000}, DType::f32);
  std::string message;
  {
    const FileSizeLimit limit(4096);
    message = error_of([&] { write_npy(path, big); });
  }
  CHECK(contains(message, path));
  CHECK(contains(message, "File too large"));
  CHECK(contains(error_of([&] { write_npy(path, Tensor()); }), "undefined"));
  CHECK(contains(error_of([&] { write_npy(path + "/below", big); }), "Not a directory"));
  CHECK(directory.read("t.npy") == old);
  CHECK(directory.entries() == 1);
}
