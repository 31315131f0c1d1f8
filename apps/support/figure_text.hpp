// Text in figures and pages: escaping, widths, line breaks, numbers for people.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace goshawk {

/// Text as it may stand in the content and in the quoted attributes of HTML and XML. Line breaks survive;
/// other control characters and bytes that are not UTF-8 become '?'.
std::string xml_escape(std::string_view text);

/// About how wide the text is in a sans-serif font of that size, rather too wide than too narrow.
double text_width(std::string_view text, double font_size);

/// The text in lines of at most `width`, broken at spaces. A longer word is a line of its own.
std::vector<std::string> wrap_text(std::string_view text, double font_size, double width);

/// "1,234,567"
std::string with_thousands(double value);

/// A number to four digits, and powers of ten as such: "0.02611", "3.2·10⁻⁵".
std::string readable(double value, int digits = 4);

/// "10⁻³"
std::string power_of_ten(int exponent);

}  // namespace goshawk
