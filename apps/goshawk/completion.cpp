// goshawk completion: a shell's completions, made of the very command line that is parsed.
#include <algorithm>
#include <fmt/ranges.h>

#include "apps/goshawk/commands.hpp"
#include "apps/support/command_line.hpp"
#include "models/registry.hpp"

namespace goshawk {
namespace {

/// What may follow an option, as far as it is known.
struct Values {
  bool any = false;    // it takes a value at all
  bool files = false;  // a path
  std::vector<std::string> words = {};
};

Values values_of(const CLI::Option& option) {
  Values values;
  values.any = option.get_items_expected_max() > 0;
  const std::string type = option.get_type_name();  // "NAME:{exact,ratio}"
  for (const char* path : {"FILE", "PATH", "DIR", "RUN"})
    values.files = values.files || type.starts_with(path);
  if (option.check_lname("model") || option.get_name() == "model") values.words = model_names();
  if (option.check_lname("convolution")) values.words = {std::begin(kConvolutions), std::end(kConvolutions)};
  const std::size_t open = type.find('{'), close = type.find('}');
  if (open != std::string::npos && close != std::string::npos) {
    values.words = CLI::detail::split(type.substr(open + 1, close - open - 1), ',');
  }
  return values;
}

std::vector<const CLI::App*> commands_of(const CLI::App& program) {
  return program.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<std::string> long_options(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::string bash_completion(const CLI::App& program) {
  std::vector<std::string> first = long_options(program);
  std::string options, values;
  for (const CLI::App* command : commands_of(program)) {
    first.push_back(command->get_name());
    options +=
        fmt::format("    {}) options='{}' ;;\n", command->get_name(), fmt::join(long_options(*command), " "));
    for (const CLI::Option* option : command->get_options()) {
      const Values known = values_of(*option);
      for (const std::string& name : option->get_lnames()) {
        if (!known.words.empty()) {
          values += fmt::format("    '{} --{}') words='{}' ;;\n", command->get_name(), name,
                                fmt::join(known.words, " "));
        } else if (known.any && !known.files) {
          values += fmt::format("    '{} --{}') return ;;\n", command->get_name(), name);
        } else if (known.files) {
          values += fmt::format("    '{} --{}') files ;;\n", command->get_name(), name);
        }
      }
      if (option->get_lnames().empty() && !known.words.empty()) {  // a positional argument
        values +=
            fmt::format("    '{0} {0}') words='{1}' ;;\n", command->get_name(), fmt::join(known.words, " "));
      }
    }
  }
  // `files` above is short for what a path completes to.
  for (std::size_t at = 0; (at = values.find(" files ;;", at)) != std::string::npos;) {
    values.replace(at, 9, " mapfile -t COMPREPLY < <(compgen -f -- \"$current\"); return ;;");
  }
  return fmt::format(
      "# Completion of goshawk {} for bash: source <(goshawk completion bash)\n"
      "_goshawk() {{\n"
      "  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} options='' "
      "words=''\n"
      "  COMPREPLY=()\n"
      "  if ((COMP_CWORD == 1)); then\n"
      "    mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$current\")\n"
      "    return\n"
      "  fi\n"
      "  case \"${{COMP_WORDS[1]}} $previous\" in\n{}"
      "  esac\n"
      "  case \"${{COMP_WORDS[1]}}\" in\n{}"
      "  esac\n"
      "  if [[ $current == -* ]]; then words=$options; fi\n"
      "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
      "  if [[ -z $words ]]; then mapfile -t COMPREPLY < <(compgen -f -- \"$current\"); fi\n"
      "}}\n"
      "complete -o filenames -F _goshawk goshawk\n",
      version(), fmt::join(first, " "), values, options);
}

/// Text inside the quotes and brackets of zsh's _arguments.
std::string zsh_text(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\'') {
      escaped += "'\\''";
    } else if (c == '[' || c == ']' || c == ':' || c == '\\') {
      escaped += {'\\', c};
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string zsh_option(const CLI::Option& option) {
  const Values values = values_of(option);
  std::string action = "( )";
  if (!values.words.empty()) {
    action = fmt::format("({})", fmt::join(values.words, " "));
  } else if (values.files) {
    action = "_files";
  }
  if (option.get_lnames().empty()) return fmt::format(" \\\n        ':{}:{}'", option.get_name(), action);
  const std::string suffix = values.any ? fmt::format(":value:{}", action) : "";
  return fmt::format(" \\\n        '--{}[{}]{}'", option.get_lnames().front(),
                     zsh_text(option.get_description()), suffix);
}

std::string zsh_completion(const CLI::App& program) {
  std::string commands, cases;
  for (const CLI::App* command : commands_of(program)) {
    commands += fmt::format("    '{}:{}'\n", command->get_name(), zsh_text(command->get_description()));
    cases += fmt::format("    {})\n      _arguments", command->get_name());
    for (const CLI::Option* option : command->get_options()) cases += zsh_option(*option);
    cases += " ;;\n";
  }
  return fmt::format(
      "#compdef goshawk\n"
      "# Completion of goshawk {} for zsh: goshawk completion zsh > a directory of $fpath/_goshawk\n"
      "_goshawk() {{\n"
      "  local -a commands=(\n{}  )\n"
      "  if ((CURRENT == 2)); then\n"
      "    _describe command commands\n"
      "    return\n"
      "  fi\n"
      "  local command=$words[2]\n"
      "  shift words\n"
      "  ((CURRENT--))\n"
      "  case $command in\n{}"
      "  esac\n"
      "}}\n"
      "if [[ $funcstack[1] == _goshawk ]]; then _goshawk \"$@\"; else compdef _goshawk goshawk; fi\n",
      version(), commands, cases);
}

}  // namespace

void add_completion_command(CLI::App& program) {
  CLI::App& command = *program.add_subcommand("completion", "Print the completions of a shell, bash or zsh");
  CLI::Option& shell = *command.add_option("shell", "bash or zsh")
                            ->required()
                            ->check(CLI::IsMember({"bash", "zsh"}))
                            ->type_name("SHELL");
  command.footer("Example:\n  source <(goshawk completion bash)");
  command.callback([&program, &shell] {
    print_result(shell.as<std::string>() == "bash" ? bash_completion(program) : zsh_completion(program));
  });
}

}  // namespace goshawk
