#include "apps/goshawk/pictures.hpp"

#include <algorithm>

#include "apps/support/normalization.hpp"
#include "autograd/ops.hpp"
#include "core/safetensors.hpp"
#include "models/registry.hpp"

namespace goshawk {

CLI::Option& add_picture_options(CLI::App& command, PictureOptions& options) {
  CLI::Option& data = *command.add_option("--data", options.source.path, kDataHelp)->type_name("PATH");
  command.add_flag("--synthetic", options.source.synthetic, kSyntheticHelp)->excludes(&data);
  command.add_option("--synthetic-seed", options.source.synthetic_seed, kSyntheticSeedHelp)
      ->check(non_negative_number())
      ->type_name("S")
      ->capture_default_str();
  command.add_option("--split", options.split, "test or train; a batch file is taken whatever the split")
      ->check(CLI::IsMember({"test", "train"}))
      ->type_name("NAME")
      ->capture_default_str();
  add_normalization_options(command, options.normalization);
  return data;
}

std::shared_ptr<const Dataset> open_pictures(const PictureOptions& options, std::string_view model_name,
                                             const LoadedModel& loaded, const std::string& weights) {
  std::shared_ptr<const Dataset> data =
      open_source(options.source, options.split == "train" ? Split::train : Split::test, 0,
                  folder_options(model_input(model_name)));
  check(data->num_classes() == loaded.classes,
        "[data] {} has {} classes but the model in {} has {}; give the data it was trained for",
        options.name(), data->num_classes(), weights, loaded.classes);
  return data;
}

Normalization normalization_for(const NormalizationOptions& options, std::string_view model_name,
                                const std::map<std::string, std::string>& metadata,
                                const std::string& weights) {
  const InputSpec input = model_input(model_name);
  Normalization normalization;
  for (std::size_t c = 0; c < 3; ++c) {
    normalization.mean[c] = static_cast<float>(input.mean[c]);
    normalization.stddev[c] = static_cast<float>(input.std[c]);
  }
  // An unusable normalisation in the file does not matter when both options replace it.
  if (!(options.mean_given && options.std_given)) {
    normalization = normalization_of(metadata, weights).value_or(normalization);
  }
  return options.or_else(normalization);
}

LabelledImages read_batch(const std::string& path, std::int64_t channels, std::int64_t classes, DType dtype) {
  const SafeTensors file = read_safetensors(path);
  const Tensor& images = file.at("images");
  const Tensor& labels = file.at("labels");
  check(is_floating(images.dtype()),
        "[batch] {}: 'images' is {}; it must be F32 or F64, already scaled and normalised", path,
        images.dtype());
  check(images.ndim() == 4 && images.dim(1) == channels && images.numel() > 0,
        "[batch] {}: 'images' has shape {}; it must be [N,{},H,W], none of them zero", path, images.shape(),
        channels);
  check(labels.dtype() == DType::i64 && labels.ndim() == 1 && labels.dim(0) == images.dim(0),
        "[batch] {}: 'labels' is {} of shape {}; it must be I64 of shape [{}], one for each image", path,
        labels.dtype(), labels.shape(), images.dim(0));
  check_finite(images, "images", path, "repair the input");
  const auto values = labels.span<std::int64_t>();
  const auto bad =
      std::find_if(values.begin(), values.end(), [&](std::int64_t v) { return v < 0 || v >= classes; });
  if (bad != values.end()) {
    fail("[batch] {}: label {} of image {} is outside 0 … {}; the model has {} classes", path, *bad,
         bad - values.begin(), classes - 1, classes);
  }
  return {permute(images, {0, 2, 3, 1}).to(dtype), labels};
}

}  // namespace goshawk
