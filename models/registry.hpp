// The models that programs can name.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nn/module.hpp"

namespace goshawk {

/// What a model expects of its pictures.
struct InputSpec {
  std::int64_t height = 0, width = 0, channels = 0;
  /// Pixels in [0, 1] are normalised with these per channel unless a checkpoint says otherwise.
  std::array<double, 3> mean{}, std{};
};

struct ModelOptions {
  std::int64_t classes = 10;
  std::uint64_t seed = 0;  ///< of the initial weights
  DType dtype = DType::f32;
};

/// Known names in alphabetical order: resnet20, resnet20_b (option B shortcuts), ...,
/// squeezenext23, squeezenext23_w2 (twice as wide), ...
std::vector<std::string> model_names();
/// Throws UsageError for an unknown name, listing the known ones.
InputSpec model_input(std::string_view name);
/// A new model in train mode with random weights; f64 weights are the f32 ones converted. Throws UsageError
/// for an unknown name, listing the known ones.
std::unique_ptr<Module> make_model(std::string_view name, const ModelOptions& options = {});

}  // namespace goshawk
