// Transposes of small matrices. Included once per instruction set.

// The include guard of Highway's multiple inclusion.
#if defined(GOSHAWK_CORE_KERNELS_TRANSPOSE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSHAWK_CORE_KERNELS_TRANSPOSE_INL
#undef GOSHAWK_CORE_KERNELS_TRANSPOSE_INL
#else
#define GOSHAWK_CORE_KERNELS_TRANSPOSE_INL
#endif

#include <cstddef>
#include <cstdint>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace goshawk::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR
template <class T>
constexpr std::size_t kSquare = 1;
template <class D, class T>
void transpose_square(D /*d*/, const T* from, std::int64_t /*from_step*/, T* to, std::int64_t /*to_step*/) {
  *to = *from;
}
#else
template <class T>
constexpr std::size_t kSquare = 16 / sizeof(T);
/// to[j * to_step + i] = from[i * from_step + j] for a square as large as a vector of 16 bytes is long.
template <class D, class T>
HWY_INLINE void transpose_square(D d, const T* from, std::int64_t from_step, T* to, std::int64_t to_step) {
  const auto row0 = hn::LoadU(d, from), row1 = hn::LoadU(d, from + from_step);
  if constexpr (sizeof(T) == 8) {
    hn::StoreU(hn::InterleaveLower(d, row0, row1), d, to);
    hn::StoreU(hn::InterleaveUpper(d, row0, row1), d, to + to_step);
  } else {
    const auto row2 = hn::LoadU(d, from + 2 * from_step), row3 = hn::LoadU(d, from + 3 * from_step);
    const auto even0 = hn::InterleaveLower(d, row0, row2), even1 = hn::InterleaveUpper(d, row0, row2);
    const auto odd0 = hn::InterleaveLower(d, row1, row3), odd1 = hn::InterleaveUpper(d, row1, row3);
    hn::StoreU(hn::InterleaveLower(d, even0, odd0), d, to);
    hn::StoreU(hn::InterleaveUpper(d, even0, odd0), d, to + to_step);
    hn::StoreU(hn::InterleaveLower(d, even1, odd1), d, to + 2 * to_step);
    hn::StoreU(hn::InterleaveUpper(d, even1, odd1), d, to + 3 * to_step);
  }
}

#endif

/// to[j * to_step + i] = from[i * from_step + j] for i < rows, j < columns.
template <class T>
void transpose(const T* HWY_RESTRICT from, std::int64_t from_step, std::int64_t rows, std::int64_t columns,
               T* HWY_RESTRICT to, std::int64_t to_step) {
  const hn::FixedTag<T, kSquare<T>> d;
  constexpr auto n = static_cast<std::int64_t>(kSquare<T>);
  const std::int64_t whole_rows = rows / n * n, whole_columns = columns / n * n;
  const auto rest = [&](std::int64_t first_row, std::int64_t first_column, std::int64_t last_column) {
    for (std::int64_t i = first_row; i < rows; ++i) {
      for (std::int64_t j = first_column; j < last_column; ++j) to[j * to_step + i] = from[i * from_step + j];
    }
  };
  for (std::int64_t i = 0; i < whole_rows; i += n) {
    for (std::int64_t j = 0; j < whole_columns; j += n) {
      transpose_square(d, from + i * from_step + j, from_step, to + j * to_step + i, to_step);
    }
  }
  rest(0, whole_columns, columns);
  rest(whole_rows, 0, whole_columns);
}

}  // namespace HWY_NAMESPACE
}  // namespace goshawk::kernels
HWY_AFTER_NAMESPACE();

#endif
