#include "datasets/image_folder.hpp"

#include <algorithm>
#include <cmath>

#include "datasets/picture.hpp"

namespace goshawk {
namespace {

bool is_hidden(const std::filesystem::path& path) {
  return path.filename().string().starts_with('.');
}

// Names of the entries of `directory` that `keep` accepts, in byte order.
template <class F>
std::vector<std::string> sorted_names(const std::filesystem::path& directory, F keep) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entry(directory, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (!is_hidden(entry->path()) && keep(*entry)) names.push_back(entry->path().filename().string());
  }
  check(!error, "[image_folder] cannot list {} ({}); check that it may be read", directory.string(),
        error.message());
  std::sort(names.begin(), names.end());
  return names;
}

// A dead link is of no type. Passed over in silence it would take away a picture, or a class and with it the
// numbers of all classes behind it.
void check_leads_somewhere(const std::filesystem::directory_entry& entry) {
  std::error_code error;
  const bool exists = entry.exists(error);
  check(exists && !error, "[image_folder] {} leads nowhere ({}); repair or delete it", entry.path().string(),
        error.message());
}

std::int64_t rounded(double value) {
  return std::llrint(value);
}

// The largest centred region whose aspect ratio (width / height) is within [1/max_ratio, max_ratio].
PictureView centre_region(const PictureView& picture, double max_ratio) {
  const auto [height, width] = picture.size;
  const double ratio = static_cast<double>(width) / static_cast<double>(height);
  ImageSize region = picture.size;
  if (ratio > max_ratio) region.width = rounded(static_cast<double>(height) * max_ratio);
  if (ratio < 1 / max_ratio) region.height = rounded(static_cast<double>(width) * max_ratio);
  return picture.crop((height - region.height) / 2, (width - region.width) / 2, region);
}

PictureView random_region(const PictureView& picture, const ImageFolderOptions& options, Random& random) {
  const auto [height, width] = picture.size;
  const auto area = static_cast<double>(height * width);
  constexpr int kAttempts = 10;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const double target = area * (options.min_area + (1 - options.min_area) * random.uniform());
    const double ratio = std::exp((2 * random.uniform() - 1) * std::log(options.max_ratio));
    const ImageSize region{rounded(std::sqrt(target / ratio)), rounded(std::sqrt(target * ratio))};
    if (region.height < 1 || region.width < 1 || region.height > height || region.width > width) continue;
    const auto y = random.below(static_cast<std::uint64_t>(height - region.height + 1));
    const auto x = random.below(static_cast<std::uint64_t>(width - region.width + 1));
    return picture.crop(static_cast<std::int64_t>(y), static_cast<std::int64_t>(x), region);
  }
  return centre_region(picture, options.max_ratio);
}

}  // namespace

ImageFolder::ImageFolder(const std::filesystem::path& directory, const ImageFolderOptions& options)
    : directory_(directory), options_(options), name_(fmt::format("pictures in {}", directory.string())) {
  check(
      options.size > 0 && options.resize >= options.size,
      "[image_folder] cannot cut {0}x{0} pictures out of pictures with a shorter side of {1}; give size > 0 "
      "and resize >= size",
      options.size, options.resize);
  check(options.min_area > 0 && options.min_area <= 1 && options.max_ratio >= 1,
        "[image_folder] min_area {} must be in (0, 1] and max_ratio {} at least 1", options.min_area,
        options.max_ratio);
  std::error_code error;
  check(std::filesystem::is_directory(directory, error),
        "[image_folder] there is no directory {}; it should hold one folder of pictures for each class",
        directory.string());
  class_names_ = sorted_names(directory, [&](const auto& entry) {
    if (!has_picture_extension(entry.path())) check_leads_somewhere(entry);
    return entry.is_directory(error);
  });
  check(!class_names_.empty(),
        "[image_folder] {} holds no class folders; put the pictures into {}/<class>/*.jpg or *.png",
        directory.string(), directory.string());
  for (std::size_t label = 0; label < class_names_.size(); ++label) {
    const std::filesystem::path folder = directory / class_names_[label];
    const std::vector<std::string> names = sorted_names(folder, [&](const auto& entry) {
      if (!has_picture_extension(entry.path())) return false;
      check_leads_somewhere(entry);
      return entry.is_regular_file(error);
    });
    check(
        !names.empty(),
        "[image_folder] class folder {} holds no .jpg, .jpeg or .png pictures; add some or delete the folder",
        folder.string());
    for (const std::string& file_name : names)
      files_.push_back({static_cast<std::int32_t>(label), file_name});
  }
}

std::int64_t ImageFolder::label(std::int64_t index) const {
  check_index(index);
  return files_[static_cast<std::size_t>(index)].label;
}

std::filesystem::path ImageFolder::file(std::int64_t index) const {
  check_index(index);
  const File& entry = files_[static_cast<std::size_t>(index)];
  return directory_ / class_names_[static_cast<std::size_t>(entry.label)] / entry.name;
}

void ImageFolder::decode(std::int64_t index, std::span<std::uint8_t> out, Random* random) const {
  check_buffer(out);
  const Picture picture = read_picture(file(index));
  const ImageSize window = image_size();
  if (options_.random_resized_crop && random != nullptr) {
    resize_bilinear(random_region(picture.view(), options_, *random), window, 0, 0, window, out);
    return;
  }
  // As torchvision: the longer side is cut to a whole number of pixels, the centre rounded half to even.
  const auto [height, width] = picture.size;
  const ImageSize full = width <= height ? ImageSize{options_.resize * height / width, options_.resize}
                                         : ImageSize{options_.resize, options_.resize * width / height};
  const std::int64_t y = rounded(static_cast<double>(full.height - window.height) / 2);
  const std::int64_t x = rounded(static_cast<double>(full.width - window.width) / 2);
  resize_bilinear(picture.view(), full, y, x, window, out);
}

std::filesystem::path image_folder_directory(const std::filesystem::path& root, Split split) {
  std::error_code error;
  if (split == Split::train) {
    check(std::filesystem::is_directory(root / "train", error),
          "[image_folder] there is no {}; put the training pictures into train/<class>/*.jpg or *.png",
          (root / "train").string());
    return root / "train";
  }
  for (const char* name : {"val", "test"}) {
    if (std::filesystem::is_directory(root / name, error)) return root / name;
  }
  fail(
      "[image_folder] there is no val or test folder in {}; put the test pictures into val/<class>/*.jpg or "
      "*.png",
      root.string());
}

}  // namespace goshawk
