// Reading and writing the floor's JSON files with errors that name the file and the entry.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.hpp"

namespace goshawk {

/// Largest count of weights or inputs of a layer in a file: 32 bits for each of many layers still add up in
/// 64 bits.
inline constexpr std::int64_t kMaxCount = std::int64_t{1} << 47;

/// One JSON object of a file, and where in the file it is. Every getter throws Error naming the file and the
/// entry when the key is missing or its value has another type.
class JsonObject {
 public:
  /// The whole file. Throws Error naming `source` for text that is not a JSON object.
  static JsonObject parse(std::string_view text, const std::string& source);

  bool has(const char* key) const { return json_.contains(key); }
  std::string string(const char* key) const;
  std::int64_t integer(const char* key) const;
  /// An integer in [low, high].
  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high) const;
  double number(const char* key) const;
  /// A number in [low, high].
  double number(const char* key, double low, double high) const;
  bool boolean(const char* key) const;
  JsonObject object(const char* key) const;
  /// The objects of an array. Messages about one that has a "name" say it.
  std::vector<JsonObject> objects(const char* key) const;
  /// What `read` makes of each object of an array. Throws Error when two have the same "name".
  template <class Read>
  auto named_list(const char* key, Read read) const {
    std::vector<decltype(read(std::declval<const JsonObject&>()))> list;
    std::set<std::string> names;
    for (const JsonObject& entry : objects(key)) {
      list.push_back(read(entry));
      check(names.insert(entry.string("name")).second, "[json] {} is listed twice", entry.where());
    }
    return list;
  }
  std::vector<std::string> strings(const char* key) const;
  /// Requires the file's "format" to be `format`.
  void require_format(std::string_view format) const;

  const nlohmann::json& json() const { return json_; }
  /// "sensitivity.json: layers[3]", the start of an error message.
  const std::string& where() const { return where_; }

 private:
  JsonObject(nlohmann::json json, std::string where) : json_(std::move(json)), where_(std::move(where)) {}
  const nlohmann::json& at(const char* key, const char* type) const;

  nlohmann::json json_;
  std::string where_;
};

/// `value` if it is finite; JSON has no other numbers. Throws Error naming `what`.
double finite(double value, const std::string& what);

/// The text of a JSON file, indented, with a final newline.
std::string json_text(const nlohmann::ordered_json& json);

}  // namespace goshawk
