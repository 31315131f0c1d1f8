#include "nn/checkpoint.hpp"

#include "core/safetensors.hpp"
#include "nn/state_dict.hpp"

namespace goshawk {

void save_checkpoint(const std::string& path, Module& model,
                     const std::map<std::string, std::string>& metadata) {
  write_safetensors(path, state_dict(model), metadata);
}

std::map<std::string, std::string> load_checkpoint(const std::string& path, Module& model) {
  SafeTensors file = read_safetensors(path);
  load_state_dict(model, file.tensors, path);
  return std::move(file.metadata);
}

}  // namespace goshawk
