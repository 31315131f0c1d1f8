// Batches from a data set: shuffled, augmented, normalised and prepared ahead of time by a background thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "core/tensor.hpp"
#include "datasets/augment.hpp"
#include "datasets/dataset.hpp"

namespace goshawk {

struct Batch {
  Tensor images;   ///< f32 [B, H, W, 3], normalised
  Tensor labels;   ///< i64 [B]
  Tensor indices;  ///< i64 [B]: the pictures' numbers in the data set
  std::int64_t epoch = 0;
  std::int64_t step = 0;  ///< position within the epoch

  std::int64_t size() const { return labels.dim(0); }
};

struct LoaderOptions {
  std::int64_t batch_size = 128;
  bool shuffle = false;
  bool drop_last = false;  ///< leave out the last batch of an epoch when it is not full
  std::uint64_t seed = 0;
  Augmentation augmentation = {};
  /// Lets a data set choose random regions (ImageFolderOptions::random_resized_crop); off for evaluation.
  bool random_decode = false;
  Normalization normalization = {};
  std::int64_t prefetch = 2;  ///< batches prepared ahead; 0 prepares each one when it is asked for
};

/// The position of the next batch. It is the whole state of a Loader: a Loader with the same data set and
/// options that seeks here returns the same batches, bit by bit.
struct LoaderState {
  std::int64_t epoch = 0;
  std::int64_t step = 0;
  bool operator==(const LoaderState&) const = default;
};

/// A sequence of epochs. The order of epoch e is a permutation from Philox (seed, e), the random choices for
/// picture i come from Philox (seed, e, i): neither depends on the batch size, the number of threads or how
/// far ahead batches are prepared. To be used by one thread.
///
///     for (std::int64_t epoch = 0; epoch < epochs; ++epoch)
///       while (std::optional<Batch> batch = loader.next()) train(*batch);
class Loader {
 public:
  /// Starts at `start`. Throws Error when the data set has no pictures, an option makes no sense, drop_last
  /// would leave no batch, or `start` is not a position.
  Loader(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options, LoaderState start = {});
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  std::int64_t steps_per_epoch() const;
  /// The next batch, or nothing once at the end of each epoch; the call after that begins the next epoch.
  /// Throws the Error of a picture that cannot be read; the position then stays before the bad batch.
  std::optional<Batch> next();
  /// Position of the next batch. After the last batch of epoch e it is (e, steps_per_epoch()), and (e + 1, 0)
  /// once next() has reported the end of the epoch.
  LoaderState state() const;
  /// Continues from `state`: 0 ≤ step ≤ steps_per_epoch(). Costs nothing when the loader is there already.
  void seek(LoaderState state);
  const Dataset& dataset() const;
  const LoaderOptions& options() const;

 private:
  class Worker;
  std::unique_ptr<Worker> worker_;
};

/// The pictures `indices` of `dataset` in that order, normalised and not augmented (evaluation form).
Batch make_batch(const Dataset& dataset, std::span<const std::int64_t> indices,
                 const Normalization& normalization);

}  // namespace goshawk
