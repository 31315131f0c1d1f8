// Looks at HTML and SVG that we wrote.
#pragma once

#include <string>
#include <vector>

namespace goshawk {

/// Whether the tags are closed in the order in which they were opened, every attribute is quoted, and every
/// '&' begins a reference. Enough of XML for what we write.
inline bool is_well_formed(std::string text) {
  if (text.starts_with("<!DOCTYPE html>")) text.erase(0, 15);
  std::vector<std::string> open;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '&') {
      const std::size_t end = text.find(';', i);
      if (end == std::string::npos || end - i > 6) return false;
    }
    if (text[i] != '<') continue;
    if (text.compare(i, 9, "<![CDATA[") == 0) {
      i = text.find("]]>", i);
      if (i == std::string::npos) return false;
      continue;
    }
    const bool closes = text[i + 1] == '/';
    std::size_t at = i + (closes ? 2 : 1);
    const std::size_t name_end = text.find_first_of(" />", at);
    if (name_end == std::string::npos || name_end == at) return false;
    const std::string name = text.substr(at, name_end - at);
    at = name_end;
    while (at < text.size() && text[at] != '>' && text.compare(at, 2, "/>") != 0) {
      if (text[at] == ' ') {
        ++at;
        continue;
      }
      const std::size_t equals = text.find_first_of("= >", at);
      if (equals == std::string::npos || text[equals] != '=' || text[equals + 1] != '"') return false;
      at = text.find('"', equals + 2);
      if (at == std::string::npos) return false;
      if (text.substr(equals + 2, at - equals - 2).find('<') != std::string::npos) return false;
      ++at;
    }
    if (closes) {
      if (open.empty() || open.back() != name) return false;
      open.pop_back();
    } else if (text[at] != '/') {
      open.push_back(name);
    }
    i = text.find('>', at);
  }
  return open.empty();
}

}  // namespace goshawk
