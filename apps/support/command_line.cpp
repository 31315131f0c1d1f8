#include "apps/support/command_line.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>

#include "apps/support/config_file.hpp"
#include "apps/support/progress.hpp"
#include "apps/support/suggestions.hpp"
#include "core/error.hpp"
#include "core/kernels/conv.hpp"
#include "core/parallel.hpp"

namespace goshawk {
namespace {

/// The subcommand that was recognised before an error, or the program.
const CLI::App& innermost(const CLI::App& program) {
  const CLI::App* app = &program;
  while (!app->get_subcommands().empty()) app = app->get_subcommands().front();
  return *app;
}

/// "goshawk hvp".
std::string invocation(const CLI::App& program) {
  const CLI::App& app = innermost(program);
  return &app == &program ? program.get_name() : program.get_name() + " " + app.get_name();
}

/// "unknown argument '--epoch'; did you mean '--epochs'?", of options or of subcommands.
std::string unknown_argument(const CLI::App& program, const std::string& word) {
  const CLI::App& app = innermost(program);
  std::vector<std::string> names;
  const std::string typed = word.substr(0, word.find('='));
  if (typed.starts_with("--")) {
    for (const CLI::Option* option : app.get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  } else {
    for (const CLI::App* subcommand : app.get_subcommands([](const CLI::App*) { return true; }))
      names.push_back(subcommand->get_name());
  }
  std::string text = fmt::format("unknown argument '{}'", word);
  if (!names.empty() && typed.size() > 2)
    text += fmt::format("; did you mean {}?", nearest_names(typed, names, 1));
  return text;
}

void add_triple_option(CLI::App& command, const char* name, std::array<float, 3>& target, bool& given,
                       const CLI::Validator& validator, const char* description) {
  command
      .add_option_function<std::vector<float>>(
          name,
          [&target, &given](const std::vector<float>& values) {
            std::copy(values.begin(), values.end(), target.begin());
            given = true;
          },
          description)
      ->expected(3)
      ->delimiter(',')
      ->option_text("R G B")
      ->check(validator);
}

/// A number other than NaN or infinity for which `holds` is true; `kind` is such as "positive ".
CLI::Validator finite(bool (*holds)(double), const char* kind) {
  return CLI::Validator(
      [holds, kind](const std::string& text) -> std::string {
        double value = 0;
        if (!CLI::detail::lexical_cast(text, value) || !std::isfinite(value) || !holds(value)) {
          return fmt::format("'{}' is not a {}number", text, kind);
        }
        return {};
      },
      "");
}

/// CLI11's "Could not convert: --seed = x", as other errors of options are said.
std::string conversion_error(const std::string& what) {
  constexpr std::string_view kBegin = "Could not convert: ", kEquals = " = ";
  const std::size_t equals = what.find(kEquals);
  if (!what.starts_with(kBegin) || equals == std::string::npos) return what;
  return fmt::format("{}: '{}' is not a number that it takes: a finite one, integers in decimal digits",
                     what.substr(kBegin.size(), equals - kBegin.size()),
                     what.substr(equals + kEquals.size()));
}

constexpr std::size_t kHelpWidth = 80, kHelpColumn = 34;

/// Columns that UTF-8 text takes: bytes that begin a character.
std::size_t columns(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

/// One line of help in lines of kHelpWidth columns: descriptions stay in their column, and a command goes on
/// behind a backslash so that it can still be pasted.
std::string wrapped_line(const std::string& line) {
  const bool indented = line.starts_with("  ");
  const bool table = indented && line.find("  ", line.find_first_not_of(' ')) != std::string::npos;
  const bool description =
      table || line.starts_with("  -") || line.starts_with(std::string(kHelpColumn, ' '));
  const bool command = indented && !description;
  std::size_t indent = 0;
  if (description) indent = kHelpColumn;
  if (command) indent = 6;
  const std::size_t width = kHelpWidth - (command ? 2 : 0);
  std::string text, row = line.substr(0, line.find_first_not_of(' '));
  std::size_t begin = row.size();
  bool first = true;
  while (begin < line.size()) {
    // A word with the spaces before it, so that columns stay as they are.
    const std::size_t word = line.find_first_not_of(' ', begin);
    if (word == std::string::npos) break;
    const std::size_t end = std::min(line.find(' ', word), line.size());
    const std::string_view next = std::string_view(line).substr(begin, end - begin);
    if (!first && columns(row) + columns(next) > width) {
      text += row + (command ? " \\\n" : "\n");
      row = std::string(indent, ' ') + line.substr(word, end - word);
    } else {
      row += next;
    }
    first = false;
    begin = end;
  }
  return text + row;
}

std::string wrapped(const std::string& help) {
  std::string text;
  for (std::size_t begin = 0; begin < help.size();) {
    const std::size_t end = std::min(help.find('\n', begin), help.size());
    const std::string line = help.substr(begin, end - begin);
    text += columns(line) <= kHelpWidth ? line : wrapped_line(line);
    text += '\n';
    begin = end + 1;
  }
  return text;
}

}  // namespace

std::string_view version() {
  return GOSHAWK_VERSION;
}

void set_up_command_line(CLI::App& program) {
  program.set_version_flag("--version", fmt::format("{} {}", program.get_name(), version()),
                           "Print the version and exit");
  program.set_help_flag("-h,--help", "Print this help and exit");
  program.get_formatter()->column_width(kHelpColumn);
}

void run_command_line(CLI::App& program, int argc, const char* const* argv) {
  Arguments arguments;
  try {
    arguments = with_config_file(program, {argv + std::min(argc, 1), argv + argc});
    // CLI11 takes a vector from its end.
    std::reverse(arguments.words.begin(), arguments.words.end());
    program.parse(std::move(arguments.words));
  } catch (const CLI::CallForHelp&) {
    print_result(wrapped(program.help()));  // of the subcommand, if there is one
  } catch (const CLI::CallForVersion& version) {
    print_result("{}\n", version.what());
  } catch (const CLI::ParseError& error) {
    // CLI11 looks for required options first, but a word that it does not know is the likelier cause of both
    // errors.
    const std::vector<std::string> unknown = program.remaining(true);
    std::string what =
        unknown.empty() ? conversion_error(error.what()) : unknown_argument(program, unknown.front());
    for (const std::string& option : arguments.from_file) {
      if (unknown.empty() && what.starts_with(option + ":"))
        what = fmt::format("{}: {}", arguments.file, what);
    }
    throw UsageError(fmt::format("{}; see {} --help", what, invocation(program)));
  }
}

CLI::Validator positive_number() {
  return finite([](double x) { return x > 0; }, "positive ");
}

CLI::Validator non_negative_number() {
  return finite([](double x) { return x >= 0; }, "non-negative ");
}

void add_threads_option(CLI::App& command) {
  command
      .add_option_function<int>(
          "--threads", [](int threads) { set_num_threads(threads); },
          "Number of threads, 0 for one per core; results do not depend on it")
      ->check(CLI::Range(0, 4096))
      ->type_name("T")
      ->default_str("0");
}

void add_quiet_option(CLI::App& command) {
  command.add_flag_callback(
      "--quiet", [] { Progress::silence(); }, "Show no progress");
}

void choose_convolution(const std::string& name) {
  if (std::find(std::begin(kConvolutions), std::end(kConvolutions), name) == std::end(kConvolutions)) {
    throw UsageError(fmt::format("--convolution: '{}' is not winograd or direct", name));
  }
  kernels::set_winograd(name == "winograd");
}

void add_convolution_option(CLI::App& command, std::string& name) {
  command.add_option("--convolution", name, kConvolutionHelp)->type_name("NAME")->capture_default_str();
}

void add_normalization_options(CLI::App& command, NormalizationOptions& options) {
  add_triple_option(command, "--mean", options.value.mean, options.mean_given,
                    finite([](double) { return true; }, ""),
                    "Mean of the pixels in [0,1] per channel, to be subtracted");
  add_triple_option(command, "--std", options.value.stddev, options.std_given, positive_number(),
                    "Standard deviation per channel, to be divided by");
}

void check_apart(const NamedFile& out, std::initializer_list<NamedFile> others) {
  const auto place = [](const std::string& path) {
    std::error_code none;
    const auto known = std::filesystem::weakly_canonical(path, none);
    return none ? std::filesystem::path(path) : known;
  };
  for (const NamedFile& other : others) {
    if (other.path.empty() || out.path.empty()) continue;
    std::error_code none;
    if (place(out.path) == place(other.path) || std::filesystem::equivalent(out.path, other.path, none)) {
      throw UsageError(fmt::format("{} and {} are the same file, {}; give another {}", out.option,
                                   other.option, out.path, out.option));
    }
  }
}

void print_result(std::string_view text) {
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  check(written, "[print] cannot write to standard output; free some space or send it elsewhere");
}

}  // namespace goshawk
