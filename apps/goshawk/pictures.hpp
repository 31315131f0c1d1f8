// Labelled pictures for a command: from a data set, normalised as the model wants it, or from a batch file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "apps/goshawk/model_file.hpp"
#include "apps/support/cli11.hpp"
#include "apps/support/command_line.hpp"
#include "apps/support/data_source.hpp"
#include "datasets/dataset.hpp"

namespace goshawk {

/// --data or --synthetic, --split, --mean and --std.
struct PictureOptions {
  DataSource source;
  std::string split;
  NormalizationOptions normalization;

  bool given() const { return source.synthetic || !source.path.empty(); }
  /// For messages.
  std::string name() const { return source.synthetic ? "the synthetic set" : source.path; }
};
/// Adds these options; `options.split` holds the default. Returns that of --data.
CLI::Option& add_picture_options(CLI::App& command, PictureOptions& options);

/// The data set, in the input size of the model `model_name`. Throws Error when its classes are not the
/// model's.
std::shared_ptr<const Dataset> open_pictures(const PictureOptions& options, std::string_view model_name,
                                             const LoadedModel& loaded, const std::string& weights);
/// --mean and --std, by default what the weights' metadata say and otherwise what is usual for the model.
Normalization normalization_for(const NormalizationOptions& options, std::string_view model_name,
                                const std::map<std::string, std::string>& metadata,
                                const std::string& weights);

struct LabelledImages {
  Tensor images;  ///< [N,H,W,C]
  Tensor labels;  ///< i64 [N]

  std::int64_t size() const { return labels.dim(0); }
};

/// A safetensors file with images (F32 or F64 [N,C,H,W], already normalised) and labels (I64 [N]); the images
/// converted to `dtype`. Throws Error naming the file and what is wrong with it.
LabelledImages read_batch(const std::string& path, std::int64_t channels, std::int64_t classes, DType dtype);
inline constexpr const char* kBatchHelp =
    "Safetensors with images (F32 or F64 [N,3,H,W], already normalised) and labels (I64 [N])";

}  // namespace goshawk
