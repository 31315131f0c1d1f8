#include "apps/support/config_file.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <optional>
#include <set>
#include <sstream>

#include "apps/support/run_directory.hpp"
#include "apps/support/suggestions.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/json.hpp"

namespace goshawk {
namespace {

struct Entry {
  std::string key;
  std::vector<std::string> values;
};

/// The value of --NAME among the arguments, "" for a flag; nothing when it is not there.
std::optional<std::string> argument(const std::vector<std::string>& arguments, const std::string& option) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == option) return i + 1 < arguments.size() ? arguments[i + 1] : "";
    if (arguments[i].starts_with(option + "=")) return arguments[i].substr(option.size() + 1);
  }
  return std::nullopt;
}

/// Whether an option among the arguments has this one's place: the command line has the last word.
bool excluded(const CLI::Option& option, const std::vector<std::string>& arguments) {
  const std::set<CLI::Option*> others = option.get_excludes();
  return std::any_of(others.begin(), others.end(), [&](const CLI::Option* other) {
    return argument(arguments, other->get_name(false, false)).has_value();
  });
}

std::string text_of(const nlohmann::json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::vector<Entry> json_entries(const std::string& text, const std::string& file,
                                const std::string& program) {
  const nlohmann::json json = parse_json(text, "config", file);
  check(json.is_object(), "[config] {} is not an object of option names and values", file);
  std::vector<Entry> entries;
  for (const auto& [key, value] : json.items()) {
    if (key == "program") {
      if (value != program) {
        throw UsageError(
            fmt::format("{} is the configuration of {}, not of {}", file, text_of(value), program));
      }
      continue;
    }
    if (value.is_null() || (value.is_string() && value.get<std::string>().empty())) continue;
    Entry entry{key, {}};
    if (value.is_array()) {
      for (const auto& element : value) entry.values.push_back(text_of(element));
      if (entry.values.empty()) continue;
    } else {
      entry.values.push_back(text_of(value));
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

// A section is for the command that it names, and one file may serve several programs: what is not for this
// one is passed over, but not what was meant for it.
void check_section(const std::vector<std::string>& parents, const std::vector<std::string>& commands,
                   const std::string& file) {
  const std::string section = fmt::format("{}", fmt::join(parents, "."));
  if (parents.size() > 1 && std::find(commands.begin(), commands.end(), parents.front()) != commands.end()) {
    throw UsageError(fmt::format("{}: there is no section [{}] within [{}]; give its options in [{}]", file,
                                 section, parents.front(), parents.front()));
  }
  // In small letters, which all names of commands are made of.
  std::string name = section;
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto distance = [&](const std::string& command) { return edit_distance(name, command); };
  std::size_t nearest = name.size();
  for (const std::string& command : commands) nearest = std::min(nearest, distance(command));
  // Two edits make a name of two letters any other, so a misspelling takes fewer than it has letters.
  if ((nearest == 0 && name == section) || nearest > 2 || nearest >= name.size()) return;
  throw UsageError(fmt::format("{}: there is no command for section [{}]; did you mean {}?", file, section,
                               nearest_names(name, commands, 1)));
}

std::vector<Entry> toml_entries(const std::string& text, const std::string& file, const std::string& command,
                                const std::vector<std::string>& commands) {
  std::istringstream stream(text);
  std::vector<Entry> entries;
  for (CLI::ConfigItem& item : CLI::ConfigTOML().from_config(stream)) {
    if (!item.parents.empty()) check_section(item.parents, commands, file);
    const bool mine = item.parents.empty() || item.parents == std::vector<std::string>{command};
    if (mine && item.name != "++" && item.name != "--") {
      entries.push_back({std::move(item.name), std::move(item.inputs)});
    }
  }
  return entries;
}

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back(name);
  }
  return names;
}

}  // namespace

void add_config_option(CLI::App& command) {
  command
      .add_option("--config",
                  "Take options that are not given from this file: TOML (epochs = 3) or a run's config.json")
      ->type_name("FILE");
}

Arguments with_config_file(const CLI::App& program, std::vector<std::string> arguments) {
  if (arguments.empty()) return {.words = std::move(arguments), .file = {}, .from_file = {}};
  const auto subcommands = program.get_subcommands([](const CLI::App*) { return true; });
  const CLI::App* command = subcommands.empty() ? &program : nullptr;
  for (const CLI::App* candidate : subcommands) {
    if (candidate->get_name() == arguments.front()) command = candidate;
  }
  if (command == nullptr || command->get_option_no_throw("--config") == nullptr)
    return {.words = std::move(arguments), .file = {}, .from_file = {}};
  std::string file = argument(arguments, "--config").value_or("");
  if (file.empty() && argument(arguments, "--resume")) {
    const std::filesystem::path run = argument(arguments, "--out").value_or("");
    // A file that is damaged is said to be, not to have no options.
    if (!run.empty() && !RunDirectory::stored_config(run).is_null()) {
      file = (run / "config.json").string();
    } else if (!run.empty()) {
      for (const CLI::Option* option : command->get_options()) {
        if (!option->get_required() || argument(arguments, option->get_name(false, false))) continue;
        throw UsageError(
            fmt::format("there is no run in {} to resume; give its directory, or {} and begin one",
                        run.string(), option->get_name(false, false)));
      }
    }
  }
  if (file.empty()) return {.words = std::move(arguments), .file = {}, .from_file = {}};

  const std::string text = read_file(file);
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  const std::string name =
      command == &program ? program.get_name() : program.get_name() + " " + command->get_name();
  // JSON of another type is no TOML, but a list would pass for a section.
  const bool json = (first != std::string::npos && text[first] == '{') || nlohmann::json::accept(text);
  const std::vector<std::string> names = option_names(*command);
  std::vector<std::string> more, from_file, command_names;
  for (const CLI::App* other : subcommands) command_names.push_back(other->get_name());
  if (subcommands.empty()) command_names.push_back(program.get_name());
  for (const Entry& entry :
       json ? json_entries(text, file, name) : toml_entries(text, file, command->get_name(), command_names)) {
    const std::string option = "--" + entry.key;
    const CLI::Option* known = command->get_option_no_throw(option);
    if (known == nullptr) {
      throw UsageError(fmt::format("{}: {} has no option '{}'; did you mean {}?", file, name, entry.key,
                                   nearest_names(entry.key, names, 1)));
    }
    if (argument(arguments, option) || excluded(*known, arguments)) continue;
    if (entry.values.size() > static_cast<std::size_t>(std::max(1, known->get_items_expected_max()))) {
      throw UsageError(fmt::format("{}: '{}' has {} values and takes {}", file, entry.key,
                                   entry.values.size(), known->get_items_expected_max()));
    }
    from_file.push_back(option);
    if (known->get_expected_min() == 0) {  // a flag
      const std::string value = entry.values.empty() ? "" : entry.values.front();
      if (value != "true" && value != "false") {
        throw UsageError(fmt::format("{}: '{}' is a flag and must be true or false", file, entry.key));
      }
      if (value == "true") more.push_back(option);
    } else if (entry.values.size() == 1) {
      more.push_back(option + "=" + entry.values.front());
    } else {
      more.push_back(option);
      more.insert(more.end(), entry.values.begin(), entry.values.end());
    }
  }
  arguments.insert(arguments.end(), more.begin(), more.end());
  return {.words = std::move(arguments), .file = file, .from_file = std::move(from_file)};
}

}  // namespace goshawk
