// What every data set offers: labelled u8 RGB pictures of one size, decoded one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/random.hpp"
#include "core/tensor.hpp"

namespace goshawk {

/// Which part of a data set: `test` is also what ImageNet calls "val".
enum class Split { train, test };

constexpr std::string_view split_name(Split split) {
  return split == Split::train ? "train" : "test";
}

struct ImageSize {
  std::int64_t height = 0;
  std::int64_t width = 0;

  /// Bytes of one u8 RGB picture.
  std::int64_t bytes() const { return height * width * 3; }
  bool operator==(const ImageSize&) const = default;
};

/// Labelled RGB pictures that all come out in one size. Every member may be called from several threads.
class Dataset {
 public:
  virtual ~Dataset() = default;

  virtual std::int64_t size() const = 0;
  virtual ImageSize image_size() const = 0;
  /// Class of picture `index`: 0 … class_names().size() − 1. Throws Error when there is no such picture.
  virtual std::int64_t label(std::int64_t index) const = 0;
  /// Writes picture `index` to `out`, u8 [height, width, 3] (image_size().bytes() bytes). A data set whose
  /// stored pictures are larger than image_size() may choose the region with `random` (training) and takes a
  /// fixed one when it is null (evaluation). Throws Error when the picture cannot be read.
  virtual void decode(std::int64_t index, std::span<std::uint8_t> out, Random* random = nullptr) const = 0;
  virtual const std::vector<std::string>& class_names() const = 0;
  /// For people: what it is and where it was read from.
  virtual const std::string& name() const = 0;

  std::int64_t num_classes() const { return static_cast<std::int64_t>(class_names().size()); }

 protected:
  /// Throws Error unless 0 ≤ index < size().
  void check_index(std::int64_t index) const;
  /// Throws Error unless `out` has room for exactly one picture.
  void check_buffer(std::span<const std::uint8_t> out) const;
};

/// A data set held in memory.
class ImageDataset : public Dataset {
 public:
  /// `images`: u8 [N, H, W, 3], H and W at least 1; `labels`: i64 [N], each below class_names.size(). Throws
  /// Error otherwise.
  ImageDataset(Tensor images, Tensor labels, std::vector<std::string> class_names, std::string name);

  std::int64_t size() const override { return images_.dim(0); }
  ImageSize image_size() const override { return {images_.dim(1), images_.dim(2)}; }
  std::int64_t label(std::int64_t index) const override;
  void decode(std::int64_t index, std::span<std::uint8_t> out, Random* random = nullptr) const override;
  const std::vector<std::string>& class_names() const override { return class_names_; }
  const std::string& name() const override { return name_; }

  const Tensor& images() const { return images_; }  ///< u8 [N, H, W, 3]
  const Tensor& labels() const { return labels_; }  ///< i64 [N]

 private:
  Tensor images_;
  Tensor labels_;
  std::vector<std::string> class_names_;
  std::string name_;
};

/// Some pictures of another data set, in a given order; an index may occur more than once.
class Subset : public Dataset {
 public:
  /// Throws Error when an index is outside `base`.
  Subset(std::shared_ptr<const Dataset> base, std::vector<std::int64_t> indices);

  std::int64_t size() const override { return static_cast<std::int64_t>(indices_.size()); }
  ImageSize image_size() const override { return base_->image_size(); }
  std::int64_t label(std::int64_t index) const override { return base_->label(base_index(index)); }
  void decode(std::int64_t index, std::span<std::uint8_t> out, Random* random = nullptr) const override {
    base_->decode(base_index(index), out, random);
  }
  const std::vector<std::string>& class_names() const override { return base_->class_names(); }
  const std::string& name() const override { return name_; }

 private:
  std::int64_t base_index(std::int64_t index) const;

  std::shared_ptr<const Dataset> base_;
  std::vector<std::int64_t> indices_;
  std::string name_;
};

/// The first `count` pictures (all of them when there are fewer).
std::shared_ptr<const Dataset> first_images(std::shared_ptr<const Dataset> dataset, std::int64_t count);

/// `count` pictures that can stand for the whole: the first ones, or random_images with seed 0 where the
/// pictures come class by class, as from class folders, whose first ones would be of few classes.
std::shared_ptr<const Dataset> some_images(std::shared_ptr<const Dataset> dataset, std::int64_t count);

/// `count` different pictures drawn without replacement from Philox stream (seed, stream::kSubset); every
/// picture, shuffled, when there are fewer. The same seed gives nested choices for growing counts.
std::shared_ptr<const Dataset> random_images(std::shared_ptr<const Dataset> dataset, std::int64_t count,
                                             std::uint64_t seed);

/// Decodes every picture (in parallel, the evaluation form) into memory.
std::shared_ptr<const ImageDataset> load_into_memory(const Dataset& dataset);

}  // namespace goshawk
