// What every caller of OpenBLAS and its LAPACK must do first.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace goshawk::kernels {

/// Keeps OpenBLAS to the calling thread. It would start threads of its own inside our tasks, and its results
/// depend on their number.
void use_one_blas_thread();

/// The largest extent of a matrix that this OpenBLAS counts with: 2^31 - 1 unless it was built for 64 bits.
std::int64_t max_blas_extent();
/// Throws Error naming `op` when an extent is larger; OpenBLAS would be given a part of its bits.
void check_blas_extents(std::initializer_list<std::int64_t> extents, std::string_view op);

}  // namespace goshawk::kernels
