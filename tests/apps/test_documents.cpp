// What the documents quote is what is there: examples to the letter, and what they print.
#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <map>
#include <regex>
#include <sstream>

#include "tests/apps/run_program.hpp"

namespace goshawk {
namespace {

namespace fs = std::filesystem;

/// Text that a document says is an example's source or output.
struct Quote {
  fs::path example;  ///< the source file
  std::string text;
};
struct Quotes {
  std::vector<Quote> sources, outputs;
};

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// Blocks that begin with ```cpp example=FILE or ```text output=FILE, and indented ones after a paragraph
/// that ends in "[…](FILE.cpp) prints". FILE is relative to the document.
Quotes quotes_in(const fs::path& document) {
  static const std::regex fence("```(cpp example|text output)=(\\S+)");
  static const std::regex prints("\\]\\((\\S+\\.cpp)\\) prints$");
  const std::vector<std::string> lines = lines_of(file_bytes(document));
  Quotes quotes;
  std::smatch match;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (std::regex_match(lines[i], match, fence)) {
      Quote quote{document.parent_path() / match[2].str(), {}};
      for (++i; i < lines.size() && lines[i] != "```"; ++i) quote.text += lines[i] + "\n";
      (match[1] == "cpp example" ? quotes.sources : quotes.outputs).push_back(quote);
    } else if (std::regex_search(lines[i], match, prints)) {
      Quote quote{document.parent_path() / match[1].str(), {}};
      for (i += 2; i < lines.size() && lines[i].starts_with("    "); ++i) {
        quote.text += lines[i].substr(4) + "\n";
      }
      quotes.outputs.push_back(quote);
    }
  }
  return quotes;
}

std::vector<fs::path> documents() {
  const fs::path root = GOSHAWK_SOURCE_DIR;
  std::vector<fs::path> files = {root / "README.md"};
  for (const auto& entry : fs::recursive_directory_iterator(root / "docs")) {
    if (entry.path().extension() == ".md") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// Where a quoted output and a printed one part; nothing if they agree. Words must be the same. Numbers may
/// be a unit of the last quoted digit apart, since last digits depend on the instruction set, and those that
/// are nothing but rounding may be any.
std::string difference(const std::string& quoted, const std::string& printed) {
  static const std::regex token("[-+]?[0-9]+(\\.([0-9]+))?([eE]([-+]?[0-9]+))?|[^\\s0-9]+");
  const std::sregex_iterator end;
  std::sregex_iterator a(quoted.begin(), quoted.end(), token), b(printed.begin(), printed.end(), token);
  for (; a != end && b != end; ++a, ++b) {
    const std::string left = a->str(), right = b->str();
    if (left == right) continue;
    const auto is_number = [](const std::string& s) { return std::isdigit(s.back()) != 0; };
    if (!is_number(left) || !is_number(right)) return left + " and " + right;
    const double x = std::stod(left), y = std::stod(right);
    const double rounding = 1e-12;
    if (std::abs(x) < rounding && std::abs(y) < rounding) continue;
    const double exponent = (*a)[4].matched ? std::stod((*a)[4].str()) : 0;
    const double unit = std::pow(10.0, exponent - static_cast<double>((*a)[2].length()));
    if (std::abs(x - y) > 1.001 * unit) return left + " and " + right;
  }
  return a == end && b == end ? "" : "one of them ends before the other";
}

/// docs/course/examples/hvp.cpp is built as example_course_hvp.
std::string output_of(const fs::path& example) {
  static std::map<std::string, std::string> known;
  const std::string program =
      "example_" + example.parent_path().parent_path().filename().string() + "_" + example.stem().string();
  if (const auto it = known.find(program); it != known.end()) return it->second;
  fs::current_path(GOSHAWK_SOURCE_DIR);
  const ProgramResult result = run_built_program("../tests/" + program, {});
  CHECK_MESSAGE(result.status == 0, program << ": " << result.err);
  return known.emplace(program, result.out).first->second;
}

TEST_CASE("examples are quoted to the letter and print what is quoted") {
  std::size_t sources = 0, outputs = 0;
  for (const fs::path& document : documents()) {
    CAPTURE(document.string());
    const Quotes quotes = quotes_in(document);
    for (const Quote& quote : quotes.sources) {
      CAPTURE(quote.example.string());
      CHECK(quote.text == file_bytes(quote.example));
    }
    for (const Quote& quote : quotes.outputs) {
      CAPTURE(quote.example.string());
      const std::string printed = output_of(quote.example);
      CAPTURE(printed);
      CHECK(difference(quote.text, printed) == "");
    }
    sources += quotes.sources.size();
    outputs += quotes.outputs.size();
  }
  CHECK(sources >= 7);
  CHECK(outputs >= 13);
}

TEST_CASE(
    "each chapter of the course has one example, below sixty lines, with its output, and three exercises") {
  int chapters = 0;
  for (const auto& entry : fs::directory_iterator(GOSHAWK_SOURCE_DIR "/docs/course")) {
    const std::string name = entry.path().filename().string();
    if (!std::regex_match(name, std::regex("[0-9]-.*\\.md"))) continue;
    CAPTURE(name);
    ++chapters;
    const Quotes quotes = quotes_in(entry.path());
    REQUIRE(quotes.sources.size() == 1);
    REQUIRE(quotes.outputs.size() == 1);
    CHECK(quotes.sources[0].example == quotes.outputs[0].example);
    CHECK(lines_of(quotes.sources[0].text).size() < 60);
    const std::string text = file_bytes(entry.path());
    for (int k = 1; k <= 3; ++k) {
      const std::string exercise = name.substr(0, 1) + "." + std::to_string(k);
      CAPTURE(exercise);
      CHECK(text.find("**" + exercise + "**") != std::string::npos);
      CHECK(file_bytes(GOSHAWK_SOURCE_DIR "/docs/course/answers.md").find("**" + exercise + "**") !=
            std::string::npos);
    }
  }
  CHECK(chapters == 7);
}

TEST_CASE("outputs agree up to a unit of the last digit that is quoted") {
  CHECK(difference("a 1.25 b", "a  1.26 b\n") == "");
  CHECK(difference("a 1.25 b", "a 1.27 b") == "1.25 and 1.27");
  CHECK(difference("3e-05", "4e-05") == "");
  CHECK(difference("3e-05", "4e-04") == "3e-05 and 4e-04");
  CHECK(difference("2e-16 67 x", "9e-15 68 x") == "");
  CHECK(difference("one", "two") == "one and two");
  CHECK(difference("one 1", "one") != "");
}

}  // namespace
}  // namespace goshawk
