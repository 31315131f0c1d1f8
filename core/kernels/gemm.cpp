#include "core/kernels/gemm.hpp"

#include <algorithm>

#include "core/kernels/both_types.hpp"
#include "core/kernels/conv_scratch.hpp"
#include "core/memory.hpp"
#include "core/parallel.hpp"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/gemm.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>
// clang-format on

#include "core/kernels/conv_block-inl.hpp"
#include "core/kernels/transpose-inl.hpp"

#ifndef GOSHAWK_CORE_KERNELS_GEMM_ARGS
#define GOSHAWK_CORE_KERNELS_GEMM_ARGS
namespace goshawk::kernels::gemm {

using Index = std::int64_t;

/// Element (i, j) is at data[i * row + j * column]; one of the two distances is 1.
template <class T>
struct Matrix {
  const T* data;
  Index row, column;
};

/// Rows of a product a b.
template <class T>
struct Rows {
  Matrix<T> a;      // [rows, depth]
  const T* panels;  // b [depth, columns], as pack_panels leaves it
  T* out;           // [rows, columns]
  Index rows, depth, columns;
  bool upper;  // row i is only wanted from column i on
};

/// The functions for one instruction set.
template <class T>
struct Table {
  void (*pack_panels)(const Matrix<T>& b, Index depth, Index columns, Index first, Index last, T* panels);
  void (*multiply_rows)(const Rows<T>& rows);
  Index panel;  // columns of the widest panel
};

/// What a thread copies its rows of a to.
inline simd::Scratch& row_scratch() {
  thread_local simd::Scratch scratch;
  return scratch;
}

// Terms that are summed in registers before they are added to the result: as many as leave a panel of b in
// the first-level cache or not far from it.
inline constexpr Index kDepth = 256;
// Rows whose distance is a multiple of half a page share so few sets of the first-level cache that a block of
// them does not stay in it.
inline constexpr Index kAliasBytes = 2048;

}  // namespace goshawk::kernels::gemm
#endif

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels::gemm {
namespace HWY_NAMESPACE {

using namespace goshawk::kernels::simd::HWY_NAMESPACE;
using goshawk::kernels::HWY_NAMESPACE::transpose;

/// Columns of a panel that begins at column `first`.
template <class T>
HWY_INLINE Index panel_width(Index columns, Index first) {
  return (columns - first > kLanes<T> ? 2 : 1) * kLanes<T>;
}

/// The panels of b [depth, columns] that begin in [first, last): a panel's [depth][width] at first * depth,
/// zeros where there is no column.
template <class T>
void pack_panels(const Matrix<T>& b, Index depth, Index columns, Index first, Index last, T* panels) {
  Index width = 0;
  for (; first < last; first += width) {
    width = panel_width<T>(columns, first);
    const Index count = std::min(width, columns - first);
    T* const to = panels + first * depth;
    if (b.column == 1) {
      for (Index l = 0; l < depth; ++l) std::copy_n(b.data + l * b.row + first, count, to + l * width);
    } else {
      transpose(b.data + first * b.column, b.column, count, depth, to, width);
    }
    if (count == width) continue;
    for (Index l = 0; l < depth; ++l) std::fill(to + l * width + count, to + (l + 1) * width, T{0});
  }
}

template <class T>
void multiply_rows(const Rows<T>& p) {
  const bool in_place = p.a.column == 1 && p.a.row * static_cast<Index>(sizeof(T)) % kAliasBytes != 0;
  const Index step = in_place ? p.a.row : std::min(p.depth, kDepth) + kLanes<T>;
  T* const copy = in_place ? nullptr : row_scratch().get<T>(p.rows * step);
  for (Index k = 0; k < p.depth; k += kDepth) {
    const Index depth = std::min(kDepth, p.depth - k);
    const T* rows = p.a.data + k * p.a.column;
    if (!in_place) {
      if (p.a.column == 1) {
        for (Index i = 0; i < p.rows; ++i) std::copy_n(rows + i * p.a.row, depth, copy + i * step);
      } else {
        transpose(rows, p.a.column, depth, p.rows, copy, step);
      }
      rows = copy;
    }
    Index width = 0;
    for (Index first = 0; first < p.columns; first += width) {
      width = panel_width<T>(p.columns, first);
      const auto vectors = static_cast<size_t>(width / kLanes<T>);
      const Index most = static_cast<Index>(max_rows(vectors));
      const Index wanted = p.upper ? std::min(p.rows, first + width) : p.rows;
      const Index blocks = (wanted + most - 1) / most;
      for (Index block = 0; block < blocks; ++block) {
        const Index row = wanted * block / blocks, count = wanted * (block + 1) / blocks - row;
        find_pixel_block<T>(count, vectors)(rows + row * step, step, depth,
                                            p.panels + first * p.depth + k * width,
                                            {.to = p.out + row * p.columns + first,
                                             .pixel_step = p.columns,
                                             .channels = p.columns - first,
                                             .add = k > 0});
      }
    }
  }
}

template <class T>
Table<T> table_of() {
  return {pack_panels<T>, multiply_rows<T>, 2 * kLanes<T>};
}
BothTypes<Table> table() {
  return {table_of<float>(), table_of<double>()};
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels::gemm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace goshawk::kernels {
namespace gemm {
namespace {

HWY_EXPORT(table);

template <class T>
Table<T> kernels_of() {
  return HWY_DYNAMIC_DISPATCH(table)().of<T>();
}

constexpr Index kTaskRows = 96;  // of the result

/// Elements of the panels of a matrix.
template <class T>
Index panels_size(const Table<T>& kernels, Index depth, Index columns) {
  return (columns + kernels.panel - 1) / kernels.panel * kernels.panel * depth;
}

template <class T>
Matrix<T> matrix(const T* data, Index columns, bool transposed) {
  return transposed ? Matrix<T>{data, 1, columns} : Matrix<T>{data, columns, 1};
}

template <class T>
void gram(const T* a, Index rows, Index columns, T* out) {
  if (columns == 0) std::fill_n(out, rows * rows, T{0});
  if (rows == 0 || columns == 0) return;
  thread_local simd::Scratch scratch;
  const Table<T> kernels = kernels_of<T>();
  T* const panels = scratch.get<T>(panels_size(kernels, columns, rows));
  kernels.pack_panels(matrix(a, columns, true), columns, rows, 0, rows, panels);
  kernels.multiply_rows({.a = matrix(a, columns, false),
                         .panels = panels,
                         .out = out,
                         .rows = rows,
                         .depth = columns,
                         .columns = rows,
                         .upper = true});
  for (Index i = 1; i < rows; ++i) {
    for (Index j = 0; j < i; ++j) out[i * rows + j] = out[j * rows + i];
  }
}

}  // namespace
}  // namespace gemm

void gram_task(const float* a, std::int64_t rows, std::int64_t columns, float* out) {
  gemm::gram(a, rows, columns, out);
}
void gram_task(const double* a, std::int64_t rows, std::int64_t columns, double* out) {
  gemm::gram(a, rows, columns, out);
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
  if (k == 0) return Tensor::zeros({m, n}, a.dtype());
  Tensor out = Tensor::empty({m, n}, a.dtype());
  if (m == 0 || n == 0) return out;
  dispatch_floating(a.dtype(), "matmul", [&]<class T>() {
    const gemm::Table<T> kernels = gemm::kernels_of<T>();
    const gemm::Matrix<T> left = gemm::matrix(a.data<T>(), a.dim(1), transpose_a),
                          right = gemm::matrix(b.data<T>(), b.dim(1), transpose_b);
    const std::int64_t size = gemm::panels_size(kernels, k, n);
    const std::shared_ptr<std::byte[]> memory = allocate(size * static_cast<std::int64_t>(sizeof(T)));
    T* const panels = reinterpret_cast<T*>(memory.get());
    parallel_for(n, kernels.panel, [&](std::int64_t begin, std::int64_t end) {
      kernels.pack_panels(right, k, n, begin, end, panels);
    });
    parallel_for(m, gemm::kTaskRows, [&](std::int64_t begin, std::int64_t end) {
      kernels.multiply_rows({.a = {left.data + begin * left.row, left.row, left.column},
                             .panels = panels,
                             .out = out.data<T>() + begin * n,
                             .rows = end - begin,
                             .depth = k,
                             .columns = n,
                             .upper = false});
    });
  });
  return out;
}

}  // namespace goshawk::kernels
#endif
