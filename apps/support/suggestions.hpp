// Names that a mistyped one may have meant.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace goshawk {

/// Levenshtein's distance: insertions, deletions and replacements of characters between two words.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// Up to `count` of `names`, in quotes with commas between: those with the fewest insertions, deletions and
/// replacements of characters away from `wrong` (the earlier of equals first).
std::string nearest_names(std::string_view wrong, std::span<const std::string> names, std::size_t count = 3);

}  // namespace goshawk
