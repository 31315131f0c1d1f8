#include "datasets/open.hpp"

#include "datasets/cifar10.hpp"

namespace goshawk {

std::shared_ptr<const Dataset> open_dataset(const std::filesystem::path& path, Split split,
                                            const ImageFolderOptions& folder) {
  std::error_code error;
  check(std::filesystem::exists(path, error),
        "[open_dataset] there is no {}{}; give a directory or file with data", path.string(),
        error ? fmt::format(" ({})", error.message()) : "");
  if (std::filesystem::is_regular_file(path, error)) return load_cifar10_batch(path);
  if (is_cifar10_directory(path)) return load_cifar10(path, split);
  for (const char* name : {"train", "val", "test"}) {
    if (!std::filesystem::is_directory(path / name, error)) continue;
    return std::make_shared<ImageFolder>(image_folder_directory(path, split), folder);
  }
  fail(
      "[open_dataset] {} holds neither CIFAR-10 batches (data_batch_1.bin, test_batch.bin) nor folders of "
      "pictures (train/<class>/*.jpg, val/<class>/*.jpg)",
      path.string());
}

}  // namespace goshawk
