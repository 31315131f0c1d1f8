#include "datasets/cifar10.hpp"

#include <sstream>
#include <string>
#include <vector>

#include "core/file.hpp"
#include "core/parallel.hpp"

namespace goshawk {
namespace {

constexpr std::int64_t kSide = 32;
constexpr std::int64_t kPlane = kSide * kSide;
constexpr std::int64_t kPicture = 3 * kPlane;
constexpr std::int64_t kRecord = 1 + kPicture;
constexpr int kClasses = 10;

std::vector<std::string> default_class_names() {
  return {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};
}

std::string batch_file_name(int batch) {
  return fmt::format("data_batch_{}.bin", batch);
}

// The directory that holds the batches: `directory` itself or the one the official archive unpacks to.
std::filesystem::path batches_directory(const std::filesystem::path& directory) {
  const std::filesystem::path unpacked = directory / "cifar-10-batches-bin";
  std::error_code ignored;
  return std::filesystem::is_directory(unpacked, ignored) ? unpacked : directory;
}

void check_batch_size(const std::filesystem::path& file, std::uintmax_t size) {
  check(size > 0, "[cifar10] {} is empty; put the official binary batch in its place", file.string());
  check(size % kRecord == 0,
        "[cifar10] {} has {} bytes, which is not a whole number of {}-byte records ({} bytes are left over): "
        "it is truncated or not a CIFAR-10 binary batch; get it again",
        file.string(), size, kRecord, size % kRecord);
}

// The records of one batch file, checked.
std::string read_batch(const std::filesystem::path& file) {
  // Before it is read, too: a file of another kind may be larger than memory. (A pipe has no size yet.)
  std::error_code unknown;
  if (const std::uintmax_t size = std::filesystem::file_size(file, unknown); !unknown) {
    check_batch_size(file, size);
  }
  std::string bytes = read_file(file);
  check_batch_size(file, bytes.size());
  const auto size = static_cast<std::int64_t>(bytes.size());
  for (std::int64_t r = 0; r < size / kRecord; ++r) {
    const auto label = static_cast<std::uint8_t>(bytes[static_cast<std::size_t>(r * kRecord)]);
    check(label < kClasses,
          "[cifar10] record {} of {} has label {}, but labels are 0 to 9: the file is damaged or not a "
          "CIFAR-10 "
          "binary batch; get it again",
          r, file.string(), label);
  }
  return bytes;
}

std::shared_ptr<const ImageDataset> make_dataset(const std::vector<std::string>& batches,
                                                 std::vector<std::string> class_names, std::string name) {
  std::int64_t total = 0;
  for (const std::string& batch : batches) total += static_cast<std::int64_t>(batch.size()) / kRecord;
  Tensor images = Tensor::empty({total, kSide, kSide, 3}, DType::u8);
  Tensor labels = Tensor::empty({total}, DType::i64);
  auto* pixels = images.data<std::uint8_t>();
  auto* label = labels.data<std::int64_t>();
  for (const std::string& batch : batches) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(batch.data());
    const std::int64_t records = static_cast<std::int64_t>(batch.size()) / kRecord;
    parallel_for(records, 256, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::uint8_t* record = bytes + r * kRecord;
        label[r] = record[0];
        for (std::int64_t i = 0; i < kPlane; ++i) {
          for (std::int64_t c = 0; c < 3; ++c) {
            pixels[r * kPicture + i * 3 + c] = record[1 + c * kPlane + i];
          }
        }
      }
    });
    pixels += records * kPicture;
    label += records;
  }
  return std::make_shared<ImageDataset>(std::move(images), std::move(labels), std::move(class_names),
                                        std::move(name));
}

// batches.meta.txt has one name a line; without it the names of the official data set are used.
std::vector<std::string> read_class_names(const std::filesystem::path& file) {
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return default_class_names();
  std::istringstream lines(read_file(file));
  std::vector<std::string> names;
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  check(names.size() == kClasses,
        "[cifar10] {} names {} classes instead of {}: put the official file in its place or delete it",
        file.string(), names.size(), kClasses);
  return names;
}

}  // namespace

bool is_cifar10_directory(const std::filesystem::path& directory) {
  const std::filesystem::path batches = batches_directory(directory);
  std::error_code ignored;
  return std::filesystem::exists(batches / batch_file_name(1), ignored) ||
         std::filesystem::exists(batches / "test_batch.bin", ignored);
}

std::shared_ptr<const ImageDataset> load_cifar10(const std::filesystem::path& directory, Split split) {
  std::error_code error;
  check(std::filesystem::is_directory(directory, error),
        "[cifar10] there is no directory {}: give the one where cifar-10-binary.tar.gz was unpacked",
        directory.string());
  const std::filesystem::path batches = batches_directory(directory);
  std::vector<std::filesystem::path> files;
  if (split == Split::train) {
    for (int batch = 1; batch <= 5; ++batch) files.push_back(batches / batch_file_name(batch));
  } else {
    files.push_back(batches / "test_batch.bin");
  }
  for (const auto& file : files) {
    check(std::filesystem::exists(file, error),
          "[cifar10] there is no {} in {}: unpack the CIFAR-10 binary version (cifar-10-binary.tar.gz from "
          "https://www.cs.toronto.edu/~kriz/cifar.html) in {}",
          file.filename().string(), batches.string(), directory.string());
  }
  std::vector<std::string> contents;
  for (const auto& file : files) contents.push_back(read_batch(file));
  return make_dataset(contents, read_class_names(batches / "batches.meta.txt"),
                      fmt::format("CIFAR-10 {} set in {}", split_name(split), batches.string()));
}

std::shared_ptr<const ImageDataset> load_cifar10_batch(const std::filesystem::path& file) {
  return make_dataset({read_batch(file)}, default_class_names(),
                      fmt::format("CIFAR-10 batch {}", file.string()));
}

}  // namespace goshawk
