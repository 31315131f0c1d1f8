// Where a program's pictures come from: --data PATH, or the set that is drawn by code.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "datasets/dataset.hpp"
#include "datasets/image_folder.hpp"
#include "datasets/loader.hpp"
#include "models/registry.hpp"

namespace goshawk {

/// Pictures of the synthetic set, unless a limit asks for others.
inline constexpr std::int64_t kSyntheticTrain = 10000, kSyntheticTest = 2000;

struct DataSource {
  std::string path;  ///< as open_dataset takes it; empty with `synthetic`
  bool synthetic = false;
  std::uint64_t synthetic_seed = 0;
};
inline constexpr const char* kDataHelp =
    "CIFAR-10 directory, one batch file, or directory of train/ and val/ or test/ class folders";
inline constexpr const char* kSyntheticHelp = "Take the synthetic 10-class set instead, drawn by code";
inline constexpr const char* kSyntheticSeedHelp = "Seed that the synthetic set is drawn with";

/// Throws UsageError unless exactly one source is named.
void check_source(const DataSource& source);

/// Pictures from files in a model's input size, by the usual protocol: large ones with the shorter side at
/// 8/7 of the input and the centre cut out, small ones whole as far as they are square.
ImageFolderOptions folder_options(const InputSpec& input);
/// Whether pictures of this size are read when they are needed, and random regions of them trained on.
bool is_large(const InputSpec& input);

/// The first `limit` pictures of a split (0: all; of the synthetic set kSyntheticTrain or kSyntheticTest).
std::shared_ptr<const Dataset> open_source(const DataSource& source, Split split, std::int64_t limit,
                                           const ImageFolderOptions& folder);

/// `count` pictures drawn under `seed` (see random_images), unaugmented, in batches.
std::vector<Batch> random_batches(const std::shared_ptr<const Dataset>& dataset, std::int64_t count,
                                  std::int64_t batch_size, std::uint64_t seed,
                                  const Normalization& normalization);

}  // namespace goshawk
