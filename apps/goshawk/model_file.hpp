// A named model with the weights of a state-dict file, and the checks on tensors that come from files.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "apps/support/cli11.hpp"
#include "nn/module.hpp"
#include "quant/quantized_model.hpp"

namespace goshawk {

/// Adds --model NAME and --weights FILE.
void add_model_options(CLI::App& command, std::string& model, std::string& weights);

struct LoadedModel {
  std::unique_ptr<Module> model;
  std::int64_t classes = 0;
  std::map<std::string, std::string> metadata;  ///< of the file
  std::unique_ptr<QuantizedModel> quantized;    ///< of a packed file: quantizes the activations
};

/// Whether a command can work with packed quantized models (quant/packed_model.hpp).
enum class PackedFiles : std::uint8_t { refused, allowed };

/// Makes the model `name` with as many classes as the file's last layer has rows, and fills it. The weights
/// are converted to `dtype` directly from the type in the file. Throws UsageError for an unknown name, Error
/// naming the file for a state dict that does not fit (see load_state_dict) or holds a value that is not
/// finite. A packed file (f32) is read as well where it is allowed, and refused with the reason otherwise.
LoadedModel load_model(std::string_view name, const std::string& path, DType dtype,
                       PackedFiles packed = PackedFiles::refused);

/// Throws Error, naming the file, the tensor and the first bad element, when a value is NaN or infinite.
/// `remedy` completes the sentence.
void check_finite(const Tensor& tensor, std::string_view name, const std::string& path,
                  std::string_view remedy);

}  // namespace goshawk
