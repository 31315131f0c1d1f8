// CIFAR-10 from its official binary batches (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html).
#pragma once

#include <filesystem>
#include <memory>

#include "datasets/dataset.hpp"

namespace goshawk {

/// True when `directory` or its subdirectory cifar-10-batches-bin holds a CIFAR-10 batch file.
bool is_cifar10_directory(const std::filesystem::path& directory);

/// The training (data_batch_1.bin … data_batch_5.bin) or test pictures (test_batch.bin) in `directory` or in
/// its subdirectory cifar-10-batches-bin. Class names come from batches.meta.txt when it is there. Throws
/// Error when a file is missing or is not a CIFAR-10 batch (see load_cifar10_batch).
std::shared_ptr<const ImageDataset> load_cifar10(const std::filesystem::path& directory, Split split);

/// One batch file: any whole number (at least one) of records of 1 label byte (0 … 9) and 3,072 pixel bytes,
/// the red, green and blue 32×32 planes. Throws Error that names the file, and the record where there is one.
std::shared_ptr<const ImageDataset> load_cifar10_batch(const std::filesystem::path& file);

}  // namespace goshawk
