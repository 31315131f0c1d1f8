// Parameters and buffers as named tensors, in the layout and under the names of PyTorch's files. This is the
// one place where layouts change: OIHW in files is HWIO in memory, and a linear layer's [out,in] is [in,out].
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "nn/module.hpp"

namespace goshawk {

/// Tensors in file layout, ordered as written.
using StateDict = std::vector<std::pair<std::string, Tensor>>;

/// A parameter (or its gradient, or a vector in its space) from memory layout to file layout: rank 4 is a
/// convolution weight, HWIO → OIHW; rank 2 a linear weight, [in,out] → [out,in]; others are the same in both
/// (and then share their elements).
Tensor to_file_layout(const Tensor& memory);
/// The inverse.
Tensor to_memory_layout(const Tensor& file);

/// All parameters and buffers, each module's own before those of its sub-modules. Copies, in the model's
/// dtype.
StateDict state_dict(Module& model);

/// Copies `entries` into the model's parameters and buffers, in place and converted to the model's dtype.
/// Every tensor of the model must be there with its shape and nothing else may; `num_batches_tracked` is
/// ignored, and a `module.` before all names (DataParallel's) is dropped, unless the model's own begin so.
/// Throws Error naming `source` (the file), the tensor and the remedy, also for numbers that become infinite
/// in the model's dtype and for negative running variances; the model is then unchanged.
void load_state_dict(Module& model, const StateDict& entries, const std::string& source);

}  // namespace goshawk
