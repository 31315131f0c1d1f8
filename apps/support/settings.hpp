// Options that determine a result: each is one line that declares it on the command line and puts it into
// config.json.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "apps/support/cli11.hpp"
#include "apps/support/command_line.hpp"

namespace goshawk {

namespace detail {

template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;
template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;

}  // namespace detail

class Settings {
 public:
  /// The command must outlive this object, which both may only be used in one thread.
  explicit Settings(CLI::App& command) : command_(&command) {}

  CLI::App& command() const { return *command_; }

  /// Adds --NAME for `member` (a flag for a bool), which holds the default and must outlive this object.
  template <class T>
  CLI::Option& add(const std::string& name, T& member, const std::string& help,
                   const std::string& type_name = "") {
    CLI::Option* option = nullptr;
    if constexpr (std::is_same_v<T, bool>) {
      option = command_->add_flag("--" + name, member, help);
    } else {
      option = command_->add_option("--" + name, member, help);
      if constexpr (detail::is_vector<T>) {
        option->delimiter(',');
      } else if constexpr (!detail::is_optional<T>) {
        option->capture_default_str();
      }
      if (!type_name.empty()) option->type_name(type_name);
      if constexpr (std::is_unsigned_v<T>) option->check(non_negative_number());
    }
    put(name, [&member]() -> nlohmann::ordered_json {
      if constexpr (detail::is_optional<T>) {
        return member ? nlohmann::ordered_json(*member) : nlohmann::ordered_json();
      } else {
        return member;
      }
    });
    return *option;
  }
  /// A value of config.json whose option was declared elsewhere.
  void put(const std::string& name, std::function<nlohmann::ordered_json()> value) {
    values_.emplace_back(name, std::move(value));
  }

  /// {"program": "goshawk train", NAME: value, …} with the present values, in the order of declaration; null
  /// for what was not given and has no default.
  nlohmann::ordered_json to_config() const {
    nlohmann::ordered_json config{{"program", "goshawk " + command_->get_name()}};
    for (const auto& [name, value] : values_) config[name] = value();
    return config;
  }

 private:
  CLI::App* command_;
  std::vector<std::pair<std::string, std::function<nlohmann::ordered_json()>>> values_;
};

}  // namespace goshawk
