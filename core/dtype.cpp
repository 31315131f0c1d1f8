#include "core/dtype.hpp"

fmt::appender fmt::formatter<goshawk::DType>::format(goshawk::DType dtype,
                                                     fmt::format_context& context) const {
  return fmt::formatter<std::string_view>::format(goshawk::dtype_name(dtype), context);
}
