// Strict JSON for files that people and other programs write.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace goshawk {

/// Parses one JSON document. Unlike nlohmann::json::parse it refuses a key that comes twice in an object and
/// nesting deeper than `max_depth` (objects and arrays), and throws Error in one line that starts with `[op]`
/// and names `source` (the file) and the place.
nlohmann::json parse_json(std::string_view text, std::string_view op, const std::string& source,
                          int max_depth = 64);

/// `text` in double quotes for a message: anything but printable ASCII becomes '?', long text is cut.
std::string printable(std::string_view text);

}  // namespace goshawk
