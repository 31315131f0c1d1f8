#include "core/safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <tuple>

#include "core/file.hpp"
#include "core/json.hpp"

namespace goshawk {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the data of a safetensors file are little-endian");

// The largest header that the reference implementation accepts.
constexpr std::int64_t kMaxHeader = 100'000'000;
constexpr std::string_view kMetadata = "__metadata__";
constexpr std::string_view kAgain = "download or make the file again";

constexpr std::array<std::pair<DType, std::string_view>, 6> kDTypes{{{DType::f32, "F32"},
                                                                     {DType::f64, "F64"},
                                                                     {DType::i64, "I64"},
                                                                     {DType::i32, "I32"},
                                                                     {DType::u8, "U8"},
                                                                     {DType::i8, "I8"}}};

std::string_view file_dtype(DType dtype) {
  return std::find_if(kDTypes.begin(), kDTypes.end(), [&](const auto& d) { return d.first == dtype; })
      ->second;
}

struct Entry {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// A list of non-negative integers that fit 64 bits.
std::optional<std::vector<std::int64_t>> integers(const json& list) {
  if (!list.is_array()) return std::nullopt;
  std::vector<std::int64_t> values;
  for (const json& value : list) {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > INT64_MAX) return std::nullopt;
    values.push_back(value.get<std::int64_t>());
  }
  return values;
}

Entry read_entry(const std::string& path, const std::string& name, const json& info) {
  const auto require = [&]<class... Args>(bool ok, fmt::format_string<Args...> what, Args&&... args) {
    if (!ok) {
      fail("[read_safetensors] tensor {} in {} {}", printable(name), path,
           fmt::format(what, std::forward<Args>(args)...));
    }
  };
  require(info.is_object(), "is not described by a JSON object; {}", kAgain);
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    require(info.contains(key), "has no \"{}\"; {}", key, kAgain);
  }
  Entry entry;
  entry.name = name;

  const json& dtype = info["dtype"];
  require(dtype.is_string(), "has a \"dtype\" that is not a string; {}", kAgain);
  const auto& dtype_text = dtype.get_ref<const std::string&>();
  const auto known =
      std::find_if(kDTypes.begin(), kDTypes.end(), [&](const auto& d) { return d.second == dtype_text; });
  require(known != kDTypes.end(),
          "has the element type {}, which is not supported; convert it to F32, F64, I64, I32, U8 or I8",
          printable(dtype_text));
  entry.dtype = known->first;

  const auto dims = integers(info["shape"]);
  require(dims.has_value(), "has a \"shape\" that is not a list of non-negative integers; {}", kAgain);
  require(dims->size() <= Shape::kMaxDims, "has {} dimensions; at most {} are supported", dims->size(),
          Shape::kMaxDims);
  std::int64_t bytes = dtype_size(entry.dtype);
  for (std::int64_t d : *dims) {
    require(!__builtin_mul_overflow(bytes, d, &bytes), "has the impossibly large shape [{}]; {}",
            fmt::join(*dims, ", "), kAgain);
  }
  entry.shape = Shape(*dims);

  const auto offsets = integers(info["data_offsets"]);
  require(offsets.has_value() && offsets->size() == 2 && (*offsets)[0] <= (*offsets)[1],
          "has \"data_offsets\" that are not two ascending non-negative integers; {}", kAgain);
  entry.begin = (*offsets)[0];
  entry.end = (*offsets)[1];
  require(entry.end - entry.begin == bytes,
          "is {} {} and needs {} bytes, but its \"data_offsets\" hold {}; {}", dtype_text, entry.shape, bytes,
          entry.end - entry.begin, kAgain);
  return entry;
}

std::map<std::string, std::string> read_metadata(const std::string& path, const json& info) {
  check(info.is_object(), "[read_safetensors] \"__metadata__\" in {} is not a JSON object; {}", path, kAgain);
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : info.items()) {
    check(value.is_string(), "[read_safetensors] {} in \"__metadata__\" of {} is not a string; {}",
          printable(key), path, kAgain);
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

// Reads the header; what follows in the file is exactly the data of `entries`, which are in the order of the
// data.
std::vector<Entry> read_header(FileReader& file, std::map<std::string, std::string>& metadata) {
  const std::string& path = file.path();
  check(file.size() >= 8,
        "[read_safetensors] {} has {} bytes, fewer than the 8 that every safetensors file starts with; {}",
        path, file.size(), kAgain);
  std::uint64_t length = 0;
  file.read(std::as_writable_bytes(std::span(&length, 1)));
  check(length <= kMaxHeader,
        "[read_safetensors] {} announces a header of {} bytes, more than the {} that are allowed; it is no "
        "safetensors file, or it is damaged",
        path, length, kMaxHeader);
  const auto header_bytes = static_cast<std::int64_t>(length);
  check(header_bytes <= file.size() - 8,
        "[read_safetensors] {} announces a header of {} bytes but only {} follow; it is truncated: {}", path,
        header_bytes, file.size() - 8, kAgain);
  const std::string text = file.read_string(header_bytes);
  check(!text.empty() && text.front() == '{', "[read_safetensors] the header of {} is no JSON object; {}",
        path, kAgain);
  // The file's object, a tensor's object, a list.
  const json header = parse_json(text, "read_safetensors", path, 3);

  std::vector<Entry> entries;
  for (const auto& [name, info] : header.items()) {
    if (name == kMetadata) {
      metadata = read_metadata(path, info);
    } else {
      entries.push_back(read_entry(path, name, info));
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  const std::int64_t data_bytes = file.size() - 8 - header_bytes;
  std::int64_t end = 0;
  for (const Entry& entry : entries) {
    check(entry.begin == end,
          "[read_safetensors] the data of tensor {} in {} start at byte {} where byte {} was due ({}); {}",
          printable(entry.name), path, entry.begin, end,
          entry.begin < end ? "tensors overlap" : "there is a gap", kAgain);
    end = entry.end;
    check(end <= data_bytes,
          "[read_safetensors] the data of tensor {} in {} end at byte {} but the file holds {}; it is "
          "truncated: "
          "{}",
          printable(entry.name), path, end, data_bytes, kAgain);
  }
  check(end == data_bytes, "[read_safetensors] {} bytes at the end of {} belong to no tensor; {}",
        data_bytes - end, path, kAgain);
  return entries;
}

}  // namespace

const Tensor* SafeTensors::find(std::string_view name) const {
  const auto it = std::lower_bound(tensors.begin(), tensors.end(), name,
                                   [](const auto& entry, std::string_view n) { return entry.first < n; });
  return it != tensors.end() && it->first == name ? &it->second : nullptr;
}

const Tensor& SafeTensors::at(std::string_view name) const {
  if (const Tensor* tensor = find(name)) return *tensor;
  constexpr std::size_t kShown = 8;
  std::string names;
  for (std::size_t i = 0; i < std::min(kShown, tensors.size()); ++i) {
    names += (i == 0 ? "" : ", ") + printable(tensors[i].first);
  }
  if (tensors.size() > kShown) names += fmt::format(" and {} more", tensors.size() - kShown);
  fail("[safetensors] there is no tensor {} in {}, which holds {}; give a file that has it", printable(name),
       path, tensors.empty() ? "none" : names);
}

SafeTensors read_safetensors(const std::string& path) {
  FileReader file(path);
  SafeTensors result;
  result.path = path;
  for (Entry& entry : read_header(file, result.metadata)) {
    Tensor tensor = Tensor::empty(entry.shape, entry.dtype);
    file.read({tensor.raw(), static_cast<std::size_t>(tensor.bytes())});
    result.tensors.emplace_back(std::move(entry.name), std::move(tensor));
  }
  std::sort(result.tensors.begin(), result.tensors.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return result;
}

void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const std::pair<std::string, Tensor>*> order;
  for (const auto& entry : tensors) {
    check(entry.second.defined(), "[write_safetensors] tensor {} for {} is undefined", printable(entry.first),
          path);
    check(entry.first != kMetadata, "[write_safetensors] a tensor for {} has the reserved name {}; rename it",
          path, printable(kMetadata));
    order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->first < b->first; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    check(order[i - 1]->first != order[i]->first,
          "[write_safetensors] two tensors for {} have the name {}; rename one", path,
          printable(order[i]->first));
  }
  // Readers that map the file (PyTorch's among them) need every tensor at a multiple of its element size.
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return dtype_size(a->second.dtype()) > dtype_size(b->second.dtype());
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[std::string(kMetadata)] = metadata;
  std::int64_t offset = 0;
  for (const auto* entry : order) {
    const Tensor& t = entry->second;
    header[entry->first] = {{"dtype", file_dtype(t.dtype())},
                            {"shape", std::vector<std::int64_t>(t.shape().begin(), t.shape().end())},
                            {"data_offsets", {offset, offset + t.bytes()}}};
    offset += t.bytes();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    fail("[write_safetensors] a name or the metadata for {} is not valid UTF-8; rename it", path);
  }
  text.append((8 - text.size() % 8) % 8, ' ');
  check(text.size() <= kMaxHeader,
        "[write_safetensors] the header for {} would have {} bytes, more than the {} that are allowed; write "
        "fewer "
        "tensors or less metadata",
        path, text.size(), kMaxHeader);

  AtomicFile file(path);
  const std::uint64_t length = text.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const auto* entry : order) {
    file.write({entry->second.raw(), static_cast<std::size_t>(entry->second.bytes())});
  }
  file.commit();
}

}  // namespace goshawk
