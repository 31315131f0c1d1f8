#include "apps/support/data_source.hpp"

#include <algorithm>
#include <numeric>

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
  return limit > 0 ? some_images(dataset, limit) : dataset;
}

std::vector<Batch> random_batches(const std::shared_ptr<const Dataset>& dataset, std::int64_t count,
                                  std::int64_t batch_size, std::uint64_t seed,
                                  const Normalization& normalization) {
  const auto sample = random_images(dataset, count, seed);
  std::vector<Batch> batches;
  for (std::int64_t begin = 0; begin < sample->size(); begin += batch_size) {
    std::vector<std::int64_t> indices(static_cast<std::size_t>(std::min(batch_size, sample->size() - begin)));
    std::iota(indices.begin(), indices.end(), begin);
    batches.push_back(make_batch(*sample, indices, normalization));
  }
  return batches;
}

}  // namespace goshawk
