// Which taps of a kernel lie inside the picture: what pooling and depthwise convolutions skip at its border.
#pragma once

#include <algorithm>
#include <cstdint>

namespace goshawk::kernels {

/// The part [first, last) of the `kernel` taps that begin at `start` and lie inside [0, size); empty where
/// last <= first.
struct Inside {
  std::int64_t first, last;
  Inside(std::int64_t start, std::int64_t kernel, std::int64_t size)
      : first(std::max(std::int64_t{0}, -start)), last(std::min(kernel, size - start)) {}
};

}  // namespace goshawk::kernels
