// What a report says, apart from how it is written: sections of text, tables and figures. html.cpp and
// markdown.cpp write the same page in two ways.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "apps/support/figure.hpp"

namespace goshawk {

struct ReportText {
  std::string text;
};

struct ReportList {
  std::vector<std::string> items;
};

struct ReportCode {
  std::string code;
};

/// The first row is the head; the first column stands left, the others right.
struct ReportTable {
  std::vector<std::vector<std::string>> rows = {};
  std::string caption = {};
  /// Names over groups of columns and how many columns each spans; may be empty.
  std::vector<std::pair<std::string, int>> groups = {};
  bool folded = false;  ///< shown when it is asked for, under its caption
};

struct ReportFigure {
  std::string name;  ///< of the file, without ".svg"
  Figure figure;
  std::string caption = {};
  bool small = false;  ///< one of many
};

/// A sentence, after a space, about the points that have no place on a logarithmic x axis because they are
/// not positive; empty when there are none. What is negative, as a trace may be, is not to vanish without a
/// word.
std::string hidden_points(const Figure& figure);

using ReportBlock = std::variant<ReportText, ReportList, ReportCode, ReportTable, ReportFigure>;

struct ReportSection {
  std::string id, title;
  std::vector<ReportBlock> blocks = {};
};

struct ReportPage {
  std::string title;
  std::string summary;  ///< a sentence or two below the title
  /// The few numbers to see first: what and how much.
  std::vector<std::pair<std::string, std::string>> highlights = {};
  std::vector<ReportSection> sections = {};
};

/// One page with everything in it: styles, figures for wide and for narrow windows, a few lines of script.
std::string to_html(const ReportPage& page);
/// The same with the figures as figures/NAME.svg beside it.
std::string to_markdown(const ReportPage& page);

/// `name` with everything but letters, digits, dots and dashes replaced: part of a file's name.
std::string file_name_part(const std::string& name);

}  // namespace goshawk
