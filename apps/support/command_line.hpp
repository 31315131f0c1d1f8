// The conventions of all command lines: options by CLI11, errors as UsageError, results on standard output.
#pragma once

#include <fmt/format.h>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "apps/support/cli11.hpp"
#include "datasets/augment.hpp"

namespace goshawk {

/// The project's version, such as "0.1.0".
std::string_view version();

/// Gives a program its --version and the layout of its help.
void set_up_command_line(CLI::App& program);

/// Parses the arguments and runs the callback of the chosen subcommand. Prints what --help or --version asked
/// for. Options in the file of --config count as if given (see with_config_file). Throws UsageError, with one
/// line that ends in the --help to look at, for an unknown, missing or malformed option.
void run_command_line(CLI::App& program, int argc, const char* const* argv);

/// What CLI::PositiveNumber and CLI::NonNegativeNumber are for, but without NaN and infinity, and with an
/// error that a person can read. For integers the type of the option says that no fraction is meant.
CLI::Validator positive_number();
CLI::Validator non_negative_number();

/// --threads N: limits all parallel work, as soon as the command line has been parsed. Results do not depend
/// on it.
void add_threads_option(CLI::App& command);

/// --quiet: no progress on standard error.
void add_quiet_option(CLI::App& command);

/// Names of the ways to compute f32 convolutions of 3 x 3 and stride 1.
inline constexpr const char* kConvolutions[] = {"winograd", "direct"};
/// Chooses one of kConvolutions for the whole process; throws UsageError for another name.
void choose_convolution(const std::string& name);
/// --convolution NAME, for choose_convolution; `name` holds the default.
void add_convolution_option(CLI::App& command, std::string& name);
inline constexpr const char* kConvolutionHelp =
    "winograd, or direct: slower 3x3 convolutions with smaller rounding errors (no difference in f64)";

/// --mean and --std: three numbers each, as "A B C" or "A,B,C". An option that is not given leaves its member
/// as it is; `given.mean` and `given.std` say which were.
struct NormalizationOptions {
  Normalization value;
  bool mean_given = false, std_given = false;

  /// The values given on the command line, and those of `fallback` for the others.
  Normalization or_else(const Normalization& fallback) const {
    return {mean_given ? value.mean : fallback.mean, std_given ? value.stddev : fallback.stddev};
  }
};
void add_normalization_options(CLI::App& command, NormalizationOptions& options);

/// An option and the file it names.
struct NamedFile {
  const char* option;
  const std::string& path;
};
/// Throws UsageError when writing `out` would replace one of the others, however their paths are written.
/// Call it before anything is written.
void check_apart(const NamedFile& out, std::initializer_list<NamedFile> others);

/// Writes a program's result to standard output. Throws Error when that fails, as on a full disk.
void print_result(std::string_view text);
template <class... Args>
void print_result(fmt::format_string<Args...> format, Args&&... args) {
  print_result(std::string_view(fmt::format(format, std::forward<Args>(args)...)));
}

}  // namespace goshawk
