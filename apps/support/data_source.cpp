#include "apps/support/data_source.hpp"

#include "core/error.hpp"
#include "datasets/open.hpp"
#include "datasets/synthetic.hpp"

namespace goshawk {

void check_source(const DataSource& source) {
  if (source.synthetic == source.path.empty()) return;
  throw UsageError(source.synthetic ? "--data and --synthetic both name pictures; give one of them"
                                    : "there are no pictures; give --data PATH or --synthetic");
}

bool is_large(const InputSpec& input) {
  return input.height >= 128;
}

ImageFolderOptions folder_options(const InputSpec& input) {
  return {.size = input.height, .resize = is_large(input) ? input.height * 8 / 7 : input.height};
}

std::shared_ptr<const Dataset> open_source(const DataSource& source, Split split, std::int64_t limit,
                                           const ImageFolderOptions& folder) {
  if (source.synthetic) {
    const std::int64_t all = split == Split::train ? kSyntheticTrain : kSyntheticTest;
    return make_synthetic(split, limit > 0 ? limit : all, {.seed = source.synthetic_seed});
  }
  auto dataset = open_dataset(source.path, split, folder);
  return limit > 0 ? first_images(dataset, limit) : dataset;
}

}  // namespace goshawk
