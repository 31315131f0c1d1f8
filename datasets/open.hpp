// Opens whatever data set a path holds: what programs do with --data.
#pragma once

#include <filesystem>
#include <memory>

#include "datasets/dataset.hpp"
#include "datasets/image_folder.hpp"

namespace goshawk {

/// A directory with CIFAR-10 batches (see load_cifar10), one batch file (whatever the split), or a directory
/// with train/ and val/ or test/ class folders, read as `folder` says. Throws Error when `path` is none of
/// them.
std::shared_ptr<const Dataset> open_dataset(const std::filesystem::path& path, Split split,
                                            const ImageFolderOptions& folder = {});

}  // namespace goshawk
