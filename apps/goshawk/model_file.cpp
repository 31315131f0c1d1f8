#include "apps/goshawk/model_file.hpp"

#include <algorithm>
#include <cmath>

#include "core/safetensors.hpp"
#include "models/registry.hpp"
#include "nn/layers.hpp"
#include "nn/state_dict.hpp"
#include "quant/packed_model.hpp"

namespace goshawk {
namespace {

/// Rows of the last layer's weight in the file. When the file has no such matrix, the model's usual number,
/// so that loading tells what is wrong.
std::int64_t classes_of(const SafeTensors& file, std::string_view model_name) {
  const auto usual = make_model(model_name);
  const auto [name, layer] = weighted_layers(*usual).back();
  for (const char* prefix : {"", "module."}) {
    const Tensor* weight = file.find(prefix + name + ".weight");
    if (weight != nullptr && weight->ndim() >= 2 && weight->dim(0) > 0) return weight->dim(0);
  }
  // The weight of a packed file is a string of bits.
  const Tensor* bias = file.find(name + ".bias");
  if (bias != nullptr && bias->ndim() == 1 && bias->dim(0) > 0) return bias->dim(0);
  return layer->out_channels();
}

}  // namespace

void add_model_options(CLI::App& command, std::string& model, std::string& weights) {
  command.add_option("--model", model, "Name of the model, such as resnet20")->required()->type_name("NAME");
  command.add_option("--weights", weights, "Its state dict (safetensors)")->required()->type_name("FILE");
}

LoadedModel load_model(std::string_view name, const std::string& path, DType dtype, PackedFiles packed) {
  model_input(name);  // an unknown model is reported before an unreadable file
  const SafeTensors file = read_safetensors(path);
  LoadedModel loaded;
  loaded.classes = classes_of(file, name);
  loaded.model = make_model(name, {.classes = loaded.classes, .dtype = dtype});
  if (is_packed_model(file.metadata)) {
    check(packed == PackedFiles::allowed && dtype == DType::f32,
          "[goshawk] {} is a packed quantized model, whose derivatives mean nothing; give its full-precision "
          "weights",
          path);
    loaded.quantized = load_packed_model(path, *loaded.model).quantized;
  } else {
    load_state_dict(*loaded.model, file.tensors, path);
  }
  for (const auto& [tensor_name, tensor] : file.tensors) {
    if (is_floating(tensor.dtype())) {
      check_finite(tensor, tensor_name, path,
                   "the training that wrote it has diverged, use an earlier checkpoint");
    }
  }
  loaded.metadata = file.metadata;
  return loaded;
}

void check_finite(const Tensor& tensor, std::string_view name, const std::string& path,
                  std::string_view remedy) {
  dispatch_floating(tensor.dtype(), "check_finite", [&]<class T>() {
    const auto values = tensor.span<T>();
    const auto bad =
        std::find_if(values.begin(), values.end(), [](T value) { return !std::isfinite(value); });
    check(bad == values.end(), "[goshawk] {}: element {} of tensor '{}' is {}; {}", path,
          bad - values.begin(), name, bad == values.end() ? T{0} : *bad, remedy);
  });
}

}  // namespace goshawk
