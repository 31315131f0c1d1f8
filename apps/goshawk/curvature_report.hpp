// curvature.json as a table for people.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace goshawk {

/// A Markdown table of the parts with a heading and what the columns mean.
std::string curvature_table(const nlohmann::ordered_json& curvature);

}  // namespace goshawk
