// A model's state dict on disk.
#pragma once

#include <map>
#include <string>

#include "nn/module.hpp"

namespace goshawk {

/// Writes the state dict as a safetensors file (atomically), with `metadata` in its header.
void save_checkpoint(const std::string& path, Module& model,
                     const std::map<std::string, std::string>& metadata = {});
/// Reads a safetensors file into the model and returns its metadata. Throws Error, naming the file, as
/// load_state_dict does; the model is then unchanged.
std::map<std::string, std::string> load_checkpoint(const std::string& path, Module& model);

}  // namespace goshawk
