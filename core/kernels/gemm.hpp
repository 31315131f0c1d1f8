// Dense matrix products.
#pragma once

#include "core/tensor.hpp"

namespace goshawk::kernels {

/// op(a) op(b) for row-major matrices of one dtype (f32 or f64), op(m) = mᵀ where transpose_* is set.
/// OpenBLAS, one thread per call; the rows of the result are split into parallel tasks by a fixed rule.
/// Throws Error when the shapes do not match, or an extent is more than OpenBLAS counts.
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b);

/// out [rows, rows] = a aᵀ for a row-major [rows, columns], on the calling thread: a part of somebody's
/// parallel task.
void gram_task(const float* a, std::int64_t rows, std::int64_t columns, float* out);
void gram_task(const double* a, std::int64_t rows, std::int64_t columns, double* out);

}  // namespace goshawk::kernels
