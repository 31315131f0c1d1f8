#include "core/npy.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstdint>
#include <vector>

#include "core/file.hpp"
#include "core/json.hpp"

namespace goshawk {
namespace {

static_assert(std::endian::native == std::endian::little, "elements are written in the machine's byte order");

constexpr std::string_view kMagic{"\x93NUMPY", 6};
constexpr std::string_view kAgain = "make the file again with numpy.save";

// The type codes that numpy writes.
constexpr std::array<std::pair<DType, std::string_view>, 6> kDTypes{{{DType::f32, "<f4"},
                                                                     {DType::f64, "<f8"},
                                                                     {DType::i64, "<i8"},
                                                                     {DType::i32, "<i4"},
                                                                     {DType::u8, "|u1"},
                                                                     {DType::i8, "|i1"}}};

struct Header {
  std::string dtype;
  bool fortran_order = false;
  std::vector<std::int64_t> dims;
};

// The header is a Python dict with exactly the keys descr, fortran_order and shape:
// {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  Header parse() {
    Header header;
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string_view key = string();
      expect(':');
      if (key == "descr" && !descr) {
        descr = true;
        require(peek() != '[', "describes records with named fields; save one field as a plain array");
        header.dtype = string();
      } else if (key == "fortran_order" && !order) {
        order = true;
        header.fortran_order = boolean();
      } else if (key == "shape" && !shape) {
        shape = true;
        header.dims = tuple();
      } else {
        damaged();
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    if (peek() != '\0' || position_ < text_.size() || !descr || !order || !shape) damaged();
    return header;
  }

 private:
  template <class... Args>
  void require(bool ok, fmt::format_string<Args...> what, Args&&... args) const {
    if (!ok) fail("[read_npy] the header of {} {}", path_, fmt::format(what, std::forward<Args>(args)...));
  }
  [[noreturn]] void damaged() const {
    fail("[read_npy] the header of {} is not as numpy writes it near {}; {}", path_,
         printable(text_.substr(std::min(position_, text_.size()), 20)), kAgain);
  }

  // The next character that is no white space; 0 at the end.
  char peek() {
    while (position_ < text_.size() && (text_[position_] == ' ' || text_[position_] == '\n')) ++position_;
    return position_ < text_.size() ? text_[position_] : '\0';
  }
  bool accept(char c) {
    if (peek() != c) return false;
    ++position_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) damaged();
  }
  std::string_view string() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') damaged();
    const std::size_t end = text_.find(quote, position_ + 1);
    if (end == std::string_view::npos) damaged();
    const std::string_view value = text_.substr(position_ + 1, end - position_ - 1);
    position_ = end + 1;
    return value;
  }
  bool boolean() {
    peek();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(position_).starts_with(word)) {
        position_ += word.size();
        return value;
      }
    }
    damaged();
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> values;
    expect('(');
    while (!accept(')')) {
      peek();
      std::int64_t value = 0;
      const auto [end, error] = std::from_chars(text_.data() + position_, text_.data() + text_.size(), value);
      if (error != std::errc() || value < 0) damaged();
      position_ = static_cast<std::size_t>(end - text_.data());
      values.push_back(value);
      require(values.size() <= Shape::kMaxDims, "has more than {} dimensions, which are not supported",
              Shape::kMaxDims);
      if (!accept(',')) {
        expect(')');
        // (3) is a number, only (3,) is a tuple.
        if (values.size() == 1) damaged();
        break;
      }
    }
    return values;
  }

  std::string_view text_;
  const std::string& path_;
  std::size_t position_ = 0;
};

DType parse_dtype(std::string_view code, const std::string& path) {
  check(!code.starts_with('>'),
        "[read_npy] the elements of {} ({}) are big-endian; convert them with "
        "a.astype(a.dtype.newbyteorder('<'))",
        path, printable(code));
  for (const auto& [dtype, known] : kDTypes) {
    // Single bytes have no order and are sometimes given one.
    if (code == known || (dtype_size(dtype) == 1 && code.size() == 3 && code.front() == '<' &&
                          code.substr(1) == known.substr(1))) {
      return dtype;
    }
  }
  fail(
      "[read_npy] the elements of {} have the type {}, which is not supported; convert them to float32, "
      "float64, "
      "int64, int32, uint8 or int8",
      path, printable(code));
}

}  // namespace

Tensor read_npy(const std::string& path) {
  FileReader file(path);
  std::int64_t rest = file.size();
  // Takes the next bytes of the file, or says that it is truncated.
  const auto take = [&](std::int64_t bytes, std::string_view what) {
    check(bytes <= rest, "[read_npy] {} has {} bytes left where {} of {} bytes was due; it is truncated: {}",
          path, rest, what, bytes, kAgain);
    rest -= bytes;
    return file.read_string(bytes);
  };
  const std::string start = take(8, "a preamble");
  check(start.starts_with(kMagic), "[read_npy] {} is no .npy file; {}", path, kAgain);
  const int major = static_cast<unsigned char>(start[6]);
  const int minor = static_cast<unsigned char>(start[7]);
  check((major == 1 || major == 2) && minor == 0,
        "[read_npy] {} has the format version {}.{}, but 1.0 and 2.0 are supported; {}", path, major, minor,
        kAgain);
  std::int64_t length = 0;
  const std::string length_bytes = take(major == 1 ? 2 : 4, "a header length");
  for (std::size_t i = 0; i < length_bytes.size(); ++i) {
    length |= static_cast<std::int64_t>(static_cast<unsigned char>(length_bytes[i])) << (8 * i);
  }
  const std::string text = take(length, "a header");
  const Header header = HeaderParser(text, path).parse();
  const DType dtype = parse_dtype(header.dtype, path);
  check(!header.fortran_order,
        "[read_npy] the elements of {} are in Fortran order; save numpy.ascontiguousarray(a) instead", path);

  std::int64_t bytes = dtype_size(dtype);
  for (std::int64_t d : header.dims) {
    check(!__builtin_mul_overflow(bytes, d, &bytes),
          "[read_npy] the shape [{}] in {} is impossibly large; {}", fmt::join(header.dims, ", "), path,
          kAgain);
  }
  check(bytes == rest, "[read_npy] {} should hold {} bytes for {} {} but holds {}; it is {}: {}", path, bytes,
        dtype, Shape(header.dims), rest, rest < bytes ? "truncated" : "damaged or holds several arrays",
        kAgain);
  Tensor tensor = Tensor::empty(Shape(header.dims), dtype);
  file.read({tensor.raw(), static_cast<std::size_t>(tensor.bytes())});
  return tensor;
}

void write_npy(const std::string& path, const Tensor& tensor) {
  check(tensor.defined(), "[write_npy] the tensor for {} is undefined", path);
  std::string_view code;
  for (const auto& [dtype, known] : kDTypes) {
    if (dtype == tensor.dtype()) code = known;
  }
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}", code,
                                   fmt::join(tensor.shape().begin(), tensor.shape().end(), ", "),
                                   tensor.ndim() == 1 ? "," : "");
  // Spaces and a line break bring the start of the elements to a multiple of 64; magic, version and length
  // are 10 bytes.
  header.append((64 - (10 + header.size() + 1) % 64) % 64, ' ');
  header.push_back('\n');
  const char start[4] = {1, 0, static_cast<char>(header.size() & 0xff),
                         static_cast<char>(header.size() >> 8)};

  AtomicFile file(path);
  file.write(kMagic);
  file.write(std::string_view(start, sizeof start));
  file.write(header);
  file.write({tensor.raw(), static_cast<std::size_t>(tensor.bytes())});
  file.commit();
}

}  // namespace goshawk
