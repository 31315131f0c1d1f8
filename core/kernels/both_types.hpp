// The functions of a kernel file for f32 and for f64, chosen for an instruction set all together.
#pragma once

namespace goshawk::kernels {

/// `Table<T>` is a struct of pointers to the functions for elements of type T. A file that instantiates its
/// templates into such a pair exports one function per instruction set, the one that returns it.
template <template <class> class Table>
struct BothTypes {
  Table<float> f32;
  Table<double> f64;

  template <class T>
  const Table<T>& of() const {
    if constexpr (sizeof(T) == sizeof(float)) {
      return f32;
    } else {
      return f64;
    }
  }
};

}  // namespace goshawk::kernels
