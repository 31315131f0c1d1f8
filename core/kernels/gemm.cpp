#include "core/kernels/gemm.hpp"

#include <cblas.h>
#include <type_traits>

#include "core/kernels/openblas.hpp"
#include "core/parallel.hpp"

namespace goshawk::kernels {
namespace {

// Rows of the result per task.
constexpr std::int64_t kRows = 256;

}  // namespace

void gram_task(const float* a, std::int64_t rows, std::int64_t columns, float* out) {
  use_one_blas_thread();
  check_blas_extents({rows, columns}, "gram");
  const auto n = static_cast<blasint>(rows), k = static_cast<blasint>(columns);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, k, 1, a, k, a, k, 0, out, n);
}

void gram_task(const double* a, std::int64_t rows, std::int64_t columns, double* out) {
  use_one_blas_thread();
  check_blas_extents({rows, columns}, "gram");
  const auto n = static_cast<blasint>(rows), k = static_cast<blasint>(columns);
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, k, 1, a, k, a, k, 0, out, n);
}

Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  check(a.ndim() == 2 && b.ndim() == 2, "[matmul] both operands must be matrices but have shapes {} and {}",
        a.shape(), b.shape());
  check(a.dtype() == b.dtype(), "[matmul] the operands must have one type but are {} and {}", a.dtype(),
        b.dtype());
  const std::int64_t m = a.dim(transpose_a ? 1 : 0), k = a.dim(transpose_a ? 0 : 1);
  const std::int64_t n = b.dim(transpose_b ? 0 : 1);
  check(b.dim(transpose_b ? 1 : 0) == k, "[matmul] inner extents differ: {}{} times {}{}", a.shape(),
        transpose_a ? " transposed" : "", b.shape(), transpose_b ? " transposed" : "");
  check_blas_extents({k, n, a.dim(1), b.dim(1)}, "matmul");
  if (k == 0) return Tensor::zeros({m, n}, a.dtype());
  Tensor out = Tensor::empty({m, n}, a.dtype());
  if (m == 0 || n == 0) return out;
  use_one_blas_thread();
  dispatch_floating(a.dtype(), "matmul", [&]<class T>() {
    parallel_for(m, kRows, [&](std::int64_t begin, std::int64_t end) {
      const T* rows = a.data<T>() + (transpose_a ? begin : begin * k);
      const auto ta = transpose_a ? CblasTrans : CblasNoTrans;
      const auto tb = transpose_b ? CblasTrans : CblasNoTrans;
      const auto count = static_cast<blasint>(end - begin);
      const auto lda = static_cast<blasint>(a.dim(1)), ldb = static_cast<blasint>(b.dim(1));
      const auto columns = static_cast<blasint>(n), depth = static_cast<blasint>(k);
      T* to = out.data<T>() + begin * n;
      if constexpr (std::is_same_v<T, float>) {
        cblas_sgemm(CblasRowMajor, ta, tb, count, columns, depth, 1, rows, lda, b.data<T>(), ldb, 0, to,
                    columns);
      } else {
        cblas_dgemm(CblasRowMajor, ta, tb, count, columns, depth, 1, rows, lda, b.data<T>(), ldb, 0, to,
                    columns);
      }
    });
  });
  return out;
}

}  // namespace goshawk::kernels
