// The normalisation of pixels that a checkpoint was trained with, as text in the checkpoint's own metadata.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "datasets/augment.hpp"

namespace goshawk {

/// "normalization.mean" and "normalization.std", three numbers each with spaces between: what belongs into
/// the metadata of every checkpoint that is written (save_checkpoint).
std::map<std::string, std::string> normalization_metadata(const Normalization& normalization);

/// The normalisation that normalization_metadata wrote; nothing when neither key is there. Throws Error,
/// naming `source` (the file), when only one is, or when a value is not three numbers (standard deviations
/// above zero).
std::optional<Normalization> normalization_of(const std::map<std::string, std::string>& metadata,
                                              const std::string& source);

}  // namespace goshawk
