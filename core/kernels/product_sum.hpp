// Inner products of rows of f32 or f64 numbers, in f64.
#pragma once

#include <cstdint>

namespace goshawk::kernels {

/// Σ a_i b_i over n elements, on the calling thread. Eight running sums, of the products whose indices leave
/// the same remainder, hide the latency of the additions; what is left of the last eight goes to the first
/// one. Their order is part of the result: the same bits on every machine.
double product_sum(const float* a, const float* b, std::int64_t n);
double product_sum(const double* a, const double* b, std::int64_t n);

}  // namespace goshawk::kernels
