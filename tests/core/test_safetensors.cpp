#include <cstring>
#include <doctest/doctest.h>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/safetensors.hpp"
#include "tests/support/file_size_limit.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

namespace {

// A file from a header and data, with the right header length.
std::string assemble(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

std::string tensor_entry(const std::string& name, const std::string& dtype, const std::string& shape,
                         const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape, offsets);
}

// A header object from its members.
std::string object(const std::vector<std::string>& members) {
  return fmt::format("{{{}}}", fmt::join(members, ","));
}

bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}

}  // namespace

TEST_CASE("the bytes of a file are those of the format's description") {
  const ScratchDirectory directory;
  const std::string path = directory / "a.safetensors";
  write_safetensors(path,
                    {{"b", Tensor::from<float>({1, -2}, {2, 1})}, {"a", Tensor::from<std::int8_t>({7}, {})}},
                    {{"format", "pt"}});
  std::string header =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"I8","shape":[],"data_offsets":[8,9]}})";
  while (header.size() % 8 != 0) header += ' ';
  CHECK(directory.read("a.safetensors") ==
        assemble(header, std::string("\x00\x00\x80\x3f\x00\x00\x00\xc0\x07", 9)));
}

TEST_CASE("every type, shape and name comes back") {
  const ScratchDirectory directory;
  const std::string path = directory / "all.safetensors";
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const std::vector<std::pair<std::string, Tensor>> tensors{
      {"f32", Tensor::from<float>({1.5f, -0.0f, std::numeric_limits<float>::denorm_min()}, {3})},
      {"f64", Tensor::from<double>({kInfinity, 0.1, -1e300, 4}, {2, 2})},
      {"i64", Tensor::from<std::int64_t>({INT64_MIN, INT64_MAX}, {1, 2, 1})},
      {"i32", Tensor::from<std::int32_t>({INT32_MIN, INT32_MAX, 0}, {3, 1})},
      {"u8", Tensor::from<std::uint8_t>({0, 255, 3}, {3})},
      {"i8", Tensor::from<std::int8_t>({-128, 127}, {2})},
      {"scalar", Tensor::scalar(2.5, DType::f64)},
      {"empty", Tensor::zeros({3, 0, 2}, DType::f32)},
      {"six", Tensor::full({1, 2, 1, 2, 1, 2}, DType::f32, 9)},
      {"odd \"name\"\n\\ ü", Tensor::scalar(1, DType::u8)},
      {"", Tensor::scalar(2, DType::u8)},
  };
  const std::map<std::string, std::string> metadata{{"format", "pt"}, {"quote \"", "line\nbreak ü"}};
  write_safetensors(path, tensors, metadata);
  const SafeTensors read = read_safetensors(path);
  CHECK(read.path == path);
  CHECK(read.metadata == metadata);
  REQUIRE(read.tensors.size() == tensors.size());
  for (std::size_t i = 1; i < read.tensors.size(); ++i)
    CHECK(read.tensors[i - 1].first < read.tensors[i].first);
  for (const auto& entry : tensors) {
    const std::string& name = entry.first;
    const Tensor& tensor = entry.second;
    CAPTURE(name);
    REQUIRE(read.find(name) != nullptr);
    CHECK(same(*read.find(name), tensor));
    CHECK(same(read.at(name), tensor));
  }
  CHECK(directory.entries() == 1);
}

TEST_CASE("a file without tensors") {
  const ScratchDirectory directory;
  write_safetensors(directory / "empty", {});
  const SafeTensors read = read_safetensors(directory / "empty");
  CHECK(read.tensors.empty());
  CHECK(read.metadata.empty());
  CHECK(contains(error_of([&] { read.at("x"); }), "holds none"));
}

TEST_CASE("the bytes depend neither on the order of the tensors nor on where they are") {
  const ScratchDirectory directory;
  const Tensor a = Tensor::from<float>({1, 2}, {2});
  const Tensor b = Tensor::from<double>({3}, {1});
  const Tensor c = Tensor::from<std::uint8_t>({4, 5, 6}, {3});
  write_safetensors(directory / "1", {{"a", a}, {"b", b}, {"c", c}});
  write_safetensors(directory / "2", {{"c", c.clone()}, {"b", b}, {"a", a.clone()}});
  CHECK(directory.read("1") == directory.read("2"));
}

TEST_CASE("every tensor is aligned for readers that map the file") {
  const ScratchDirectory directory;
  write_safetensors(directory / "mixed", {{"a", Tensor::zeros({3}, DType::u8)},
                                          {"b", Tensor::zeros({1}, DType::f32)},
                                          {"c", Tensor::zeros({1}, DType::f64)},
                                          {"d", Tensor::zeros({5}, DType::i8)},
                                          {"e", Tensor::zeros({3}, DType::i32)}});
  const std::string bytes = directory.read("mixed");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  CHECK(length % 8 == 0);
  const auto header = nlohmann::json::parse(bytes.substr(8, length));
  for (const auto& [name, info] : header.items()) {
    const std::string dtype = info["dtype"];
    const int size = dtype.ends_with("64") ? 8 : dtype.ends_with("32") ? 4 : 1;
    CHECK(info["data_offsets"][0].get<int>() % size == 0);
  }
}

TEST_CASE("a missing tensor is named with the file and what it holds") {
  const ScratchDirectory directory;
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (int i = 0; i < 10; ++i) tensors.emplace_back(fmt::format("t{}", i), Tensor::scalar(i, DType::f32));
  write_safetensors(directory / "ten", tensors);
  const SafeTensors read = read_safetensors(directory / "ten");
  CHECK(read.find("t10") == nullptr);
  CHECK(read.at("t9").item() == 9);
  const std::string message = error_of([&] { read.at("t10"); });
  for (const std::string& part :
       {std::string("\"t10\""), directory / "ten", std::string("\"t7\" and 2 more")}) {
    CHECK(contains(message, part));
  }
}

TEST_CASE("what the reference implementation accepts is accepted") {
  const ScratchDirectory directory;
  const std::string data(8, '\0');
  for (const std::string& header : {
           object({tensor_entry("a", "F32", "[2]", "[0,8]")}) + "      ",
           // Data in another order than the names, keys in another order, unknown keys, white space.
           object({tensor_entry("a", "F32", "[1]", "[4,8]"), tensor_entry("b", "F32", "[1]", "[0,4]")}),
           std::string(
               R"({ "a" : { "data_offsets" : [0, 8], "later": {"x": 1}, "shape": [1,2], "dtype": "F32" } })"),
           // Tensors without elements anywhere.
           object({tensor_entry("z", "F32", "[0]", "[0,0]"), tensor_entry("a", "F32", "[2]", "[0,8]"),
                   tensor_entry("e", "I64", "[4,0]", "[8,8]")}),
           object({R"("__metadata__":{})", tensor_entry("a", "F64", "[]", "[0,8]")}),
       }) {
    CAPTURE(header);
    const std::string path = directory.write("file", assemble(header, data));
    CHECK(error_of([&] { CHECK(read_safetensors(path).find("a") != nullptr); }) == "");
  }
}

TEST_CASE("data are found by their offsets, not by the order of names") {
  const ScratchDirectory directory;
  const std::string header =
      object({tensor_entry("a", "U8", "[2]", "[1,3]"), tensor_entry("b", "U8", "[1]", "[0,1]")});
  const SafeTensors read = read_safetensors(directory.write("file", assemble(header, "\x01\x02\x03")));
  CHECK(read.at("a").to_vector<std::uint8_t>() == std::vector<std::uint8_t>{2, 3});
  CHECK(read.at("b").item() == 1);
}

TEST_CASE("a header that lies is refused in one line with the file, the tensor and the remedy") {
  struct Case {
    std::string header;
    std::size_t data_bytes;
    std::string expected;
  };
  const auto one = [](const char* dtype, const char* shape, const char* offsets) {
    return object({tensor_entry("w", dtype, shape, offsets)});
  };
  const std::vector<Case> cases{
      {"", 0, "no JSON object"},
      {"[]", 0, "no JSON object"},
      {"null", 0, "no JSON object"},
      {" {}", 0, "no JSON object"},
      {"{", 0, "valid JSON"},
      {"{}x", 0, "valid JSON"},
      {"{\"w\":}", 0, "valid JSON"},
      {"{\"w\xff\":{}}", 0, "valid JSON"},
      {std::string("{}\0", 3), 0, "valid JSON"},
      {"{\"w\":[]}", 0, "not described by a JSON object"},
      {"{\"w\":[[[[[[]]]]]]}", 0, "nested deeper"},
      {fmt::format("{{\"w\":{:[<100000}", ""), 0, "nested deeper"},
      {"{\"w\":{\"shape\":[],\"data_offsets\":[0,4]}}", 4, "no \"dtype\""},
      {"{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "no \"shape\""},
      {"{\"w\":{\"dtype\":\"F32\",\"shape\":[]}}", 4, "no \"data_offsets\""},
      {"{\"w\":{\"dtype\":4,\"shape\":[],\"data_offsets\":[0,4]}}", 4, "\"dtype\" that is not a string"},
      {one("F16", "[2]", "[0,4]"), 4, "\"F16\", which is not supported; convert it to F32"},
      {one("BF16", "[2]", "[0,4]"), 4, "\"BF16\""},
      {one("f32", "[1]", "[0,4]"), 4, "\"f32\""},
      {one("F32", "[-1]", "[0,4]"), 4, "\"shape\""},
      {one("F32", "[1.0]", "[0,4]"), 4, "\"shape\""},
      {one("F32", "[\"1\"]", "[0,4]"), 4, "\"shape\""},
      {one("F32", "1", "[0,4]"), 4, "\"shape\""},
      {one("F32", "[18446744073709551615]", "[0,4]"), 4, "\"shape\""},
      {one("F32", "[99999999999999999999999]", "[0,4]"), 4, "\"shape\""},
      {one("F32", "[4611686018427387904,4611686018427387904,0]", "[0,0]"), 0, "impossibly large"},
      {one("F32", "[4611686018427387904]", "[0,0]"), 0, "impossibly large"},
      {one("F32", "[1,1,1,1,1,1,1]", "[0,4]"), 4, "7 dimensions"},
      {one("F32", "[1]", "[0]"), 4, "\"data_offsets\""},
      {one("F32", "[1]", "[0,4,8]"), 4, "\"data_offsets\""},
      {one("F32", "[1]", "[4,0]"), 4, "\"data_offsets\""},
      {one("F32", "[1]", "[-4,0]"), 4, "\"data_offsets\""},
      {one("F32", "[1]", "[0,4.0]"), 4, "\"data_offsets\""},
      {one("F32", "[2]", "[0,4]"), 4, "needs 8 bytes, but its \"data_offsets\" hold 4"},
      {one("F32", "[1000000000000]", "[0,4000000000000]"), 4, "truncated"},
      {one("F32", "[1]", "[0,4]"), 3, "truncated"},
      {one("F32", "[1]", "[0,4]"), 5, "1 bytes at the end"},
      {one("F32", "[1]", "[4,8]"), 8, "there is a gap"},
      {"{}", 1, "1 bytes at the end"},
      {object({tensor_entry("v", "F32", "[1]", "[0,4]"), tensor_entry("w", "F32", "[1]", "[8,12]")}), 12,
       "\"w\""},
      {object({tensor_entry("v", "F32", "[2]", "[0,8]"), tensor_entry("w", "F32", "[1]", "[4,8]")}), 8,
       "tensors overlap"},
      {object({tensor_entry("v", "F32", "[1]", "[0,4]"), tensor_entry("w", "F32", "[1]", "[0,4]")}), 4,
       "tensors overlap"},
      {object({tensor_entry("w", "F32", "[1]", "[0,4]"), tensor_entry("w", "F32", "[1]", "[4,8]")}), 8,
       "\"w\" twice"},
      {"{\"w\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
       "\"dtype\" twice"},
      {"{\"__metadata__\":[]}", 0, "\"__metadata__\""},
      {"{\"__metadata__\":{\"epoch\":3}}", 0, "\"epoch\""},
  };
  const ScratchDirectory directory;
  for (const Case& c : cases) {
    const std::string shown = c.header.substr(0, 200);
    CAPTURE(shown);
    const std::string path = directory.write("file", assemble(c.header, std::string(c.data_bytes, '\0')));
    const std::string message = error_of([&] { read_safetensors(path); });
    CAPTURE(message);
    CHECK(contains(message, "[read_safetensors]"));
    CHECK(contains(message, path));
    CHECK(contains(message, c.expected));
    CHECK_FALSE(contains(message, "\n"));
    CHECK(message.size() < path.size() + 600);
  }
}

TEST_CASE("a header length that lies is refused before anything is read") {
  const ScratchDirectory directory;
  const auto message_for = [&](std::uint64_t length, const std::string& rest) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    const std::string path = directory.write("file", bytes + rest);
    return error_of([&] { read_safetensors(path); });
  };
  CHECK(contains(message_for(3, "{}"), "truncated"));
  CHECK(contains(message_for(100'000'000, "{}"), "truncated"));
  CHECK(contains(message_for(100'000'001, "{}"), "no safetensors file"));
  CHECK(contains(message_for(UINT64_MAX, "{}"), "no safetensors file"));
  CHECK(contains(message_for(std::uint64_t{1} << 63, "{}"), "no safetensors file"));
  CHECK(contains(error_of([&] { read_safetensors(directory.write("short", "1234567")); }), "7 bytes"));
  CHECK(contains(error_of([&] { read_safetensors(directory / "missing"); }), "No such file"));
  CHECK(contains(error_of([&] { read_safetensors(directory.path().string()); }), "Is a directory"));
  CHECK(contains(error_of([&] { read_safetensors("/dev/zero"); }), "copy it to a file"));
}

TEST_CASE("a file cut at any length is refused, and any flipped bit is harmless") {
  const ScratchDirectory directory;
  write_safetensors(
      directory / "whole",
      {{"w", Tensor::from<float>({1, 2, 3}, {3, 1})}, {"i", Tensor::from<std::uint8_t>({9}, {})}},
      {{"k", "v"}});
  const std::string whole = directory.read("whole");
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const std::string path = directory.write("cut", whole.substr(0, length));
    const std::string message = error_of([&] { read_safetensors(path); });
    CAPTURE(length);
    CHECK(contains(message, path));
  }
  int refused = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
      const std::string path = directory.write("flipped", bytes);
      // Anything but Error would end this test.
      refused += error_of([&] { read_safetensors(path); }).empty() ? 0 : 1;
    }
  }
  // Flips in names, metadata and data cannot be seen; all others must be.
  CHECK(refused > static_cast<int>(whole.size()) * 4);
}

TEST_CASE("what cannot be written is refused and leaves the old file") {
  const ScratchDirectory directory;
  const std::string path = directory / "file";
  const Tensor t = Tensor::scalar(1, DType::f32);
  write_safetensors(path, {{"old", t}});
  const std::string old = directory.read("file");
  const auto message_for = [&](const std::vector<std::pair<std::string, Tensor>>& tensors,
                               const std::map<std::string, std::string>& metadata = {}) {
    const std::string message = error_of([&] { write_safetensors(path, tensors, metadata); });
    CHECK(contains(message, path));
    CHECK(directory.read("file") == old);
    CHECK(directory.entries() == 1);
    return message;
  };
  CHECK(contains(message_for({{"a", t}, {"b", t}, {"a", t}}), "\"a\""));
  CHECK(contains(message_for({{"a", Tensor()}}), "undefined"));
  CHECK(contains(message_for({{"__metadata__", t}}), "reserved"));
  CHECK(contains(message_for({{"a\xff", t}}), "UTF-8"));
  CHECK(contains(message_for({{"a", t}}, {{"k", "\xff"}}), "UTF-8"));
  const Tensor big = Tensor::zeros({10000}, DType::f32);
  std::string full_disk;
  {
    const FileSizeLimit limit(4096);
    full_disk = error_of([&] { write_safetensors(path, {{"big", big}}); });
  }
  CHECK(contains(full_disk, path));
  CHECK(contains(full_disk, "File too large"));
  CHECK(directory.read("file") == old);
  CHECK(directory.entries() == 1);
}
