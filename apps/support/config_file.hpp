// --config FILE: options from a file, TOML or the config.json of a run, for the command line to add to.
#pragma once

#include <string>
#include <vector>

#include "apps/support/cli11.hpp"

namespace goshawk {

/// Gives a command --config FILE. It acts in with_config_file.
void add_config_option(CLI::App& command);

/// The words of a command line, and which of their options a file gave.
struct Arguments {
  std::vector<std::string> words;
  std::string file;                    ///< empty when there was none
  std::vector<std::string> from_file;  ///< options such as "--lr"
};

/// The arguments (without the program's name), and behind them those that the file of --config holds for
/// options that they do not name, unless an option that excludes it is among them. With --resume, the
/// config.json of the run in --out is such a file. TOML: `name = value` for --name, also below [command];
/// other sections are other commands' or programs', unless their name is a misspelt one. JSON: an object;
/// nulls and empty texts stand for "not given". Only for commands that have --config. Throws UsageError
/// naming the file and the key for an option or a section that there is not, and when --resume is given
/// without the options that a new run needs and there is no run; Error for a file that cannot be read.
Arguments with_config_file(const CLI::App& program, std::vector<std::string> arguments);

}  // namespace goshawk
