// Eigen-decompositions of small symmetric matrices in f64, by LAPACK.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace goshawk::kernels {

/// A = Σ_k values[k] · vectors[k] vectors[k]ᵀ.
struct SymmetricEigen {
  std::vector<double> values;                ///< rising
  std::vector<std::vector<double>> vectors;  ///< orthonormal, in the same order
};

/// The eigenpairs of a symmetric n×n matrix given row-major, n² elements, all finite, of which only those on
/// and below the diagonal count (LAPACK dsyevd: divide and conquer). O(n³), on one thread. Throws Error for a
/// wrong number of elements or one that is not finite, and if LAPACK does not converge.
SymmetricEigen symmetric_eigen(std::vector<double> matrix, std::size_t n);

/// The eigenpairs of the symmetric tridiagonal matrix with these n diagonal and n − 1 off-diagonal elements
/// (LAPACK dstev: implicit QL or QR). O(n³) with the vectors, on one thread. Errors as above.
SymmetricEigen tridiagonal_eigen(std::span<const double> diagonal, std::span<const double> off_diagonal);

}  // namespace goshawk::kernels
