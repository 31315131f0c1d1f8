// One tensor in NumPy's .npy format (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
#pragma once

#include <string>

#include "core/tensor.hpp"

namespace goshawk {

/// Reads version 1.0 and 2.0, little-endian f4, f8, i8, i4, u1 and i1 in C order. Every length is checked
/// before anything is allocated; Error names the file and what to do.
Tensor read_npy(const std::string& path);

/// Replaces the file in one step (AtomicFile) (version 1.0).
void write_npy(const std::string& path, const Tensor& tensor);

}  // namespace goshawk
