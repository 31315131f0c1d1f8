#include "core/kernels/openblas.hpp"

#include <cblas.h>
#include <limits>

#include "core/error.hpp"

namespace goshawk::kernels {

void use_one_blas_thread() {
  [[maybe_unused]] static const bool one_thread = (openblas_set_num_threads(1), true);
}

std::int64_t max_blas_extent() {
  return std::numeric_limits<blasint>::max();
}

void check_blas_extents(std::initializer_list<std::int64_t> extents, std::string_view op) {
  for (const std::int64_t extent : extents) {
    check(extent <= max_blas_extent(),
          "[{}] an extent of {} is more than OpenBLAS can count, {}; use smaller matrices", op, extent,
          max_blas_extent());
  }
}

}  // namespace goshawk::kernels
