// States as named tensors: of optimisers and of whatever else a run has to continue with.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tensor.hpp"
#include "nn/module.hpp"

namespace goshawk {

/// Copies the elements of `given` into the tensors of the same names in `own`, once everything is found to
/// fit. Throws Error naming `who` reads, `source` (the file) and the tensor when one is missing, does not
/// belong, comes twice, or has another shape or type.
void copy_named_tensors(const std::vector<NamedBuffer>& own,
                        std::span<const std::pair<std::string, Tensor>> given, const std::string& source,
                        std::string_view who);

}  // namespace goshawk
