// Dense matrix products.
#pragma once

#include "core/tensor.hpp"

namespace goshawk::kernels {

/// op(a) op(b) for row-major matrices of one dtype (f32 or f64), op(m) = mᵀ where transpose_* is set.
/// Every element is summed in the order of its terms, in runs of 256 that are then added, whatever the
/// instruction set and the number of threads. Throws Error when the shapes or types do not match.
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b);

/// out [rows, rows] = a aᵀ for a row-major [rows, columns], on the calling thread: a part of somebody's
/// parallel task.
void gram_task(const float* a, std::int64_t rows, std::int64_t columns, float* out);
void gram_task(const double* a, std::int64_t rows, std::int64_t columns, double* out);

}  // namespace goshawk::kernels
