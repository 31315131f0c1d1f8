#include "core/shape.hpp"

#include <string>

#include "core/error.hpp"

namespace goshawk {
namespace {

std::string listed(std::span<const std::int64_t> dims) {
  std::string text = "[";
  for (std::int64_t d : dims) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(d);
  }
  return text + "]";
}

}  // namespace

Shape::Shape(std::span<const std::int64_t> dims) {
  check(dims.size() <= kMaxDims, "[shape] {} dimensions were given; at most {} are supported", dims.size(),
        kMaxDims);
  for (std::int64_t d : dims) {
    check(d >= 0, "[shape] dimension {} of {} is negative", d, listed(dims));
    dims_[static_cast<std::size_t>(size_++)] = d;
  }
}

}  // namespace goshawk

fmt::appender fmt::formatter<goshawk::Shape>::format(const goshawk::Shape& shape,
                                                     fmt::format_context& context) const {
  const std::string text = goshawk::listed({shape.begin(), shape.end()});
  return std::copy(text.begin(), text.end(), context.out());
}
