// Named tensors in a safetensors file (https://huggingface.co/docs/safetensors#format): the length of the
// header as a little-endian 64-bit number, the header in JSON, then all elements without gaps.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tensor.hpp"

namespace goshawk {

struct SafeTensors {
  std::string path;                                     ///< for messages
  std::vector<std::pair<std::string, Tensor>> tensors;  ///< ordered by name
  std::map<std::string, std::string> metadata;

  /// The tensor of that name, or nullptr.
  const Tensor* find(std::string_view name) const;
  /// The tensor of that name; Error naming the file and what it holds when there is none.
  const Tensor& at(std::string_view name) const;
};

/// Reads all tensors (F32, F64, I64, I32, U8, I8), shapes as in the file. Every length and offset is checked
/// before anything is allocated; Error names the file, the tensor and what to do.
SafeTensors read_safetensors(const std::string& path);

/// Replaces the file in one step (AtomicFile). The order of `tensors` does not matter: equal contents give
/// equal bytes. Data are ordered by element size and then by name, so that every tensor is aligned. Error for
/// a name that comes twice, is "__metadata__" or is not UTF-8, and for an undefined tensor.
void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace goshawk
