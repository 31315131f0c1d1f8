// Names that a mistyped one may have meant.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace goshawk {

/// Up to `count` of `names`, in quotes with commas between: those with the fewest insertions, deletions and
/// replacements of characters away from `wrong` (the earlier of equals first).
std::string nearest_names(std::string_view wrong, std::span<const std::string> names, std::size_t count = 3);

}  // namespace goshawk
