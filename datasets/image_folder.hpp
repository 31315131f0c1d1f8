// Pictures in one folder per class, the layout of ImageNet and torchvision's ImageFolder.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "datasets/dataset.hpp"

namespace goshawk {

struct ImageFolderOptions {
  std::int64_t size = 224;    ///< pictures come out as size × size
  std::int64_t resize = 256;  ///< evaluation: the shorter side becomes this, then the centre is cut out
  /// Training: decode(…, random) resizes a random region to size × size. Its area is a fraction of the
  /// picture's between min_area and 1, its aspect ratio log-uniform in [1/max_ratio, max_ratio] (Szegedy et
  /// al. 2015, §6; torchvision's RandomResizedCrop).
  bool random_resized_crop = false;
  double min_area = 0.08;
  double max_ratio = 4.0 / 3.0;
};

/// Decodes on demand the .jpg, .jpeg and .png files (any case) of directory/CLASS/. A class's number is the
/// rank of its folder's name; files are ordered by class, then name. Hidden files and other types are
/// ignored.
class ImageFolder : public Dataset {
 public:
  /// Throws Error when there is no such directory, no class folder in it, a class folder without pictures, or
  /// a dead link in the place of a picture or class folder.
  explicit ImageFolder(const std::filesystem::path& directory, const ImageFolderOptions& options = {});

  std::int64_t size() const override { return static_cast<std::int64_t>(files_.size()); }
  ImageSize image_size() const override { return {options_.size, options_.size}; }
  std::int64_t label(std::int64_t index) const override;
  void decode(std::int64_t index, std::span<std::uint8_t> out, Random* random = nullptr) const override;
  const std::vector<std::string>& class_names() const override { return class_names_; }
  const std::string& name() const override { return name_; }

  /// Where picture `index` is read from.
  std::filesystem::path file(std::int64_t index) const;

 private:
  struct File {
    std::int32_t label;
    std::string name;
  };

  std::filesystem::path directory_;
  ImageFolderOptions options_;
  std::vector<std::string> class_names_;
  std::vector<File> files_;
  std::string name_;
};

/// root/train for Split::train; root/val, or else root/test, for Split::test. Throws Error when it is
/// missing.
std::filesystem::path image_folder_directory(const std::filesystem::path& root, Split split);

}  // namespace goshawk
