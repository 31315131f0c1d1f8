#include "core/kernels/symmetric_eigen.hpp"

#include <algorithm>
#include <cblas.h>
#include <cmath>
#include <limits>

#include "core/error.hpp"

// LAPACK's Fortran interface, which OpenBLAS contains; Debian's libopenblas-dev has no header for it. The
// last arguments are the lengths of the character arguments, as gfortran passes them.
extern "C" {
void dsyevd_(const char* jobz, const char* uplo, const blasint* n, double* a, const blasint* lda, double* w,
             double* work, const blasint* lwork, blasint* iwork, const blasint* liwork, blasint* info,
             std::size_t jobz_length, std::size_t uplo_length);
void dstev_(const char* jobz, const blasint* n, double* d, double* e, double* z, const blasint* ldz,
            double* work, blasint* info, std::size_t jobz_length);
}

namespace goshawk::kernels {
namespace {

/// OpenBLAS would start threads of its own beside our tasks, and its results depend on their number.
void use_one_blas_thread() {
  [[maybe_unused]] static const bool one_thread = (openblas_set_num_threads(1), true);
}

void check_finite(std::span<const double> elements, const char* op) {
  const auto bad = std::find_if(elements.begin(), elements.end(), [](double x) { return !std::isfinite(x); });
  check(bad == elements.end(), "[{}] element {} is {}; give a finite matrix", op, bad - elements.begin(),
        bad == elements.end() ? 0.0 : *bad);
}

void check_info(blasint info, const char* op, std::size_t n) {
  check(info == 0, "[{}] LAPACK gave up on a matrix with {} rows (info {}); scale it nearer to 1", op, n,
        info);
}

// Column k of a column-major matrix is eigenvector k.
std::vector<std::vector<double>> columns(const std::vector<double>& z, std::size_t n) {
  std::vector<std::vector<double>> vectors;
  for (std::size_t k = 0; k < n; ++k) {
    const double* column = z.data() + k * n;
    vectors.emplace_back(column, column + n);
  }
  return vectors;
}

}  // namespace

SymmetricEigen symmetric_eigen(std::vector<double> matrix, std::size_t n) {
  check(matrix.size() == n * n, "[symmetric_eigen] {} elements are not a matrix with {} rows", matrix.size(),
        n);
  check_finite(matrix, "symmetric_eigen");
  if (n == 0) return {};
  use_one_blas_thread();
  const auto rows = static_cast<std::int64_t>(n);
  const std::int64_t work_numbers = 1 + 6 * rows + 2 * rows * rows;
  check(work_numbers <= std::numeric_limits<blasint>::max(),
        "[symmetric_eigen] a matrix with {} rows needs a work space of {} numbers, more than OpenBLAS can "
        "count; "
        "use Lanczos for a few of its eigenvalues",
        n, work_numbers);
  // Row-major below the diagonal is column-major above it.
  const auto order = static_cast<blasint>(n);
  std::vector<double> values(n);
  double work_size = 0;
  blasint iwork_size = 0, info = 0;
  const blasint query = -1;
  dsyevd_("V", "U", &order, matrix.data(), &order, values.data(), &work_size, &query, &iwork_size, &query,
          &info, 1, 1);
  check_info(info, "symmetric_eigen", n);
  std::vector<double> work(static_cast<std::size_t>(work_size));
  std::vector<blasint> iwork(static_cast<std::size_t>(iwork_size));
  const auto lwork = static_cast<blasint>(work.size()), liwork = static_cast<blasint>(iwork.size());
  dsyevd_("V", "U", &order, matrix.data(), &order, values.data(), work.data(), &lwork, iwork.data(), &liwork,
          &info, 1, 1);
  check_info(info, "symmetric_eigen", n);
  return {.values = std::move(values), .vectors = columns(matrix, n)};
}

SymmetricEigen tridiagonal_eigen(std::span<const double> diagonal, std::span<const double> off_diagonal) {
  const std::size_t n = diagonal.size();
  check(off_diagonal.size() + 1 == n || (n == 0 && off_diagonal.empty()),
        "[tridiagonal_eigen] {} diagonal and {} off-diagonal elements; give one less of the latter", n,
        off_diagonal.size());
  check_finite(diagonal, "tridiagonal_eigen");
  check_finite(off_diagonal, "tridiagonal_eigen");
  if (n == 0) return {};
  use_one_blas_thread();
  const auto order = static_cast<blasint>(n);
  std::vector<double> d(diagonal.begin(), diagonal.end()), e(off_diagonal.begin(), off_diagonal.end());
  std::vector<double> z(n * n), work(std::max<std::size_t>(1, 2 * n));
  e.resize(n);  // LAPACK wants the address of something even when n = 1
  blasint info = 0;
  dstev_("V", &order, d.data(), e.data(), z.data(), &order, work.data(), &info, 1);
  check_info(info, "tridiagonal_eigen", n);
  return {.values = std::move(d), .vectors = columns(z, n)};
}

}  // namespace goshawk::kernels
