#include "datasets/dataset.hpp"

#include <algorithm>
#include <numeric>

#include "core/parallel.hpp"
#include "datasets/streams.hpp"

namespace goshawk {

void Dataset::check_index(std::int64_t index) const {
  check(index >= 0 && index < size(), "[dataset] there is no picture {} in {}, which has {}", index, name(),
        size());
}

void Dataset::check_buffer(std::span<const std::uint8_t> out) const {
  check(static_cast<std::int64_t>(out.size()) == image_size().bytes(),
        "[dataset] a picture of {} needs {} bytes ({}x{}x3) but the buffer has {}", name(),
        image_size().bytes(), image_size().height, image_size().width, out.size());
}

ImageDataset::ImageDataset(Tensor images, Tensor labels, std::vector<std::string> class_names,
                           std::string name)
    : images_(std::move(images)),
      labels_(std::move(labels)),
      class_names_(std::move(class_names)),
      name_(std::move(name)) {
  check(images_.defined() && images_.dtype() == DType::u8 && images_.ndim() == 4 && images_.dim(3) == 3 &&
            images_.dim(1) > 0 && images_.dim(2) > 0,
        "[ImageDataset] images of {} must be u8 [N, H, W, 3] with at least one pixel but are {} {}", name_,
        images_.dtype(), images_.shape());
  check(labels_.defined() && labels_.dtype() == DType::i64 && labels_.shape() == Shape{images_.dim(0)},
        "[ImageDataset] labels of {} must be i64 [{}], one for each image, but are {} {}", name_,
        images_.dim(0), labels_.dtype(), labels_.shape());
  const auto classes = static_cast<std::int64_t>(class_names_.size());
  for (std::int64_t i = 0; i < size(); ++i) {
    const std::int64_t label = labels_.data<std::int64_t>()[i];
    check(label >= 0 && label < classes, "[ImageDataset] label {} of image {} in {} is not one of {} classes",
          label, i, name_, classes);
  }
}

std::int64_t ImageDataset::label(std::int64_t index) const {
  check_index(index);
  return labels_.data<std::int64_t>()[index];
}

void ImageDataset::decode(std::int64_t index, std::span<std::uint8_t> out, Random*) const {
  check_index(index);
  check_buffer(out);
  std::copy_n(images_.data<std::uint8_t>() + index * image_size().bytes(), out.size(), out.data());
}

Subset::Subset(std::shared_ptr<const Dataset> base, std::vector<std::int64_t> indices)
    : base_(std::move(base)), indices_(std::move(indices)) {
  for (const std::int64_t index : indices_) {
    check(index >= 0 && index < base_->size(), "[Subset] there is no picture {} in {}, which has {}", index,
          base_->name(), base_->size());
  }
  name_ = fmt::format("{} pictures of {}", indices_.size(), base_->name());
}

std::int64_t Subset::base_index(std::int64_t index) const {
  check_index(index);
  return indices_[static_cast<std::size_t>(index)];
}

std::shared_ptr<const Dataset> first_images(std::shared_ptr<const Dataset> dataset, std::int64_t count) {
  check(count > 0, "[first_images] {} pictures were asked for; ask for at least 1", count);
  if (count >= dataset->size()) return dataset;
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), 0);
  return std::make_shared<Subset>(std::move(dataset), std::move(indices));
}

std::shared_ptr<const Dataset> some_images(std::shared_ptr<const Dataset> dataset, std::int64_t count) {
  bool by_class = true;
  for (std::int64_t i = 1; by_class && i < dataset->size(); ++i) {
    by_class = dataset->label(i - 1) <= dataset->label(i);
  }
  // Where all of them are wanted their order stays.
  return by_class && count < dataset->size() ? random_images(std::move(dataset), count, 0)
                                             : first_images(std::move(dataset), count);
}

std::shared_ptr<const Dataset> random_images(std::shared_ptr<const Dataset> dataset, std::int64_t count,
                                             std::uint64_t seed) {
  check(count > 0, "[random_images] {} pictures were asked for; ask for at least 1", count);
  Random random(seed, stream::number(stream::kSubset, 0, 0));
  std::vector<std::int64_t> indices = random.permutation(dataset->size());
  indices.resize(static_cast<std::size_t>(std::min(count, dataset->size())));
  return std::make_shared<Subset>(std::move(dataset), std::move(indices));
}

std::shared_ptr<const ImageDataset> load_into_memory(const Dataset& dataset) {
  const ImageSize image = dataset.image_size();
  Tensor images = Tensor::empty({dataset.size(), image.height, image.width, 3}, DType::u8);
  Tensor labels = Tensor::empty({dataset.size()}, DType::i64);
  parallel_for(dataset.size(), 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      dataset.decode(
          i, {images.data<std::uint8_t>() + i * image.bytes(), static_cast<std::size_t>(image.bytes())});
      labels.data<std::int64_t>()[i] = dataset.label(i);
    }
  });
  return std::make_shared<ImageDataset>(std::move(images), std::move(labels), dataset.class_names(),
                                        dataset.name());
}

}  // namespace goshawk
