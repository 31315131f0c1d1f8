// What every caller of OpenBLAS and its LAPACK must do first.
#pragma once

namespace goshawk::kernels {

/// Keeps OpenBLAS to the calling thread. It would start threads of its own inside our tasks, and its results
/// depend on their number.
void use_one_blas_thread();

}  // namespace goshawk::kernels
