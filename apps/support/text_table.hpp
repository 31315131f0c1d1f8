// Tables for people: Markdown whose columns line up on a terminal as well.
#pragma once

#include <string>
#include <vector>

namespace goshawk {

/// A Markdown table; the first row is the head, the first column stands left and the others right. All rows
/// have equally many cells. Throws Error when they have not.
std::string text_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace goshawk
