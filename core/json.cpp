#include "core/json.hpp"

#include <set>
#include <vector>

#include "core/error.hpp"

namespace goshawk {

using nlohmann::json;

json parse_json(std::string_view text, std::string_view op, const std::string& source, int max_depth) {
  // The keys seen so far in each open object; arrays have an empty set. Values are checked while they are
  // parsed, so that a hostile file cannot fill the memory first.
  std::vector<std::set<std::string>> open;
  const auto watch = [&](int, json::parse_event_t event, json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        open.emplace_back();
        check(static_cast<int>(open.size()) <= max_depth,
              "[{}] the JSON in {} is nested deeper than {} levels; this is no such file, or it is damaged",
              op, source, max_depth);
        break;
      case json::parse_event_t::object_end:
      case json::parse_event_t::array_end:
        open.pop_back();
        break;
      case json::parse_event_t::key:
        check(open.back().insert(parsed.get<std::string>()).second,
              "[{}] {} has the key {} twice in the same JSON object; remove one", op, source,
              printable(parsed.get_ref<const std::string&>()));
        break;
      case json::parse_event_t::value:
        break;
    }
    return true;
  };
  // The parser takes a zero byte for the end of the text.
  check(text.find('\0') == std::string_view::npos,
        "[{}] {} does not hold valid JSON: there is a zero byte in it; correct it or make it again", op,
        source);
  try {
    return json::parse(text.begin(), text.end(), watch);
  } catch (const json::exception& e) {
    // Without the library's own "[json.exception...] " in front.
    std::string_view what = e.what();
    if (const auto end = what.find("] "); end != std::string_view::npos) what.remove_prefix(end + 2);
    const std::string shown = printable(what);
    fail("[{}] {} does not hold valid JSON: {}; correct it or make it again", op, source,
         std::string_view(shown).substr(1, shown.size() - 2));
  }
}

std::string printable(std::string_view text) {
  constexpr std::size_t kLimit = 160;
  std::string result = "\"";
  for (char c : text.substr(0, kLimit)) result += c >= ' ' && c <= '~' ? c : '?';
  result += text.size() > kLimit ? "...\"" : "\"";
  return result;
}

}  // namespace goshawk
