#include "core/kernels/openblas.hpp"

#include <cblas.h>

namespace goshawk::kernels {

void use_one_blas_thread() {
  [[maybe_unused]] static const bool one_thread = (openblas_set_num_threads(1), true);
}

}  // namespace goshawk::kernels
