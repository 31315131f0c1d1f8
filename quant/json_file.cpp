#include "quant/json_file.hpp"

#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "core/json.hpp"

namespace goshawk {

using Json = nlohmann::json;

JsonObject JsonObject::parse(std::string_view text, const std::string& source) {
  Json json = parse_json(text, "json", source);
  check(json.is_object(), "[json] {} holds a JSON {} where an object belongs; write the file again", source,
        json.type_name());
  return {std::move(json), source};
}

const Json& JsonObject::at(const char* key, const char* type) const {
  const auto it = json_.find(key);
  check(it != json_.end(), "[json] {} lacks \"{}\" ({})", where_, key, type);
  return *it;
}

std::string JsonObject::string(const char* key) const {
  const Json& value = at(key, "a string");
  check(value.is_string(), "[json] {}: \"{}\" must be a string, not {}", where_, key, value.dump());
  return value.get<std::string>();
}

std::int64_t JsonObject::integer(const char* key) const {
  const Json& value = at(key, "an integer");
  check(value.is_number_integer() && (!value.is_number_unsigned() ||
                                      value.get<std::uint64_t>() <= std::numeric_limits<std::int64_t>::max()),
        "[json] {}: \"{}\" must be an integer, not {}", where_, key, value.dump());
  return value.get<std::int64_t>();
}

std::int64_t JsonObject::integer(const char* key, std::int64_t low, std::int64_t high) const {
  const std::int64_t value = integer(key);
  check(value >= low && value <= high, "[json] {}: \"{}\" is {} and must lie in {} … {}", where_, key, value,
        low, high);
  return value;
}

double JsonObject::number(const char* key) const {
  const Json& value = at(key, "a number");
  check(value.is_number() && std::isfinite(value.get<double>()),
        "[json] {}: \"{}\" must be a finite number, not {}", where_, key, value.dump());
  return value.get<double>();
}

double JsonObject::number(const char* key, double low, double high) const {
  const double value = number(key);
  check(value >= low && value <= high, "[json] {}: \"{}\" is {} and must lie in {} … {}", where_, key, value,
        low, high);
  return value;
}

bool JsonObject::boolean(const char* key) const {
  const Json& value = at(key, "true or false");
  check(value.is_boolean(), "[json] {}: \"{}\" must be true or false, not {}", where_, key, value.dump());
  return value.get<bool>();
}

JsonObject JsonObject::object(const char* key) const {
  const Json& value = at(key, "an object");
  check(value.is_object(), "[json] {}: \"{}\" must be an object, not {}", where_, key, value.dump());
  return {value, fmt::format("{}: {}", where_, key)};
}

std::vector<JsonObject> JsonObject::objects(const char* key) const {
  const Json& value = at(key, "an array");
  check(value.is_array(), "[json] {}: \"{}\" must be an array, not {}", where_, key, value.dump());
  std::vector<JsonObject> out;
  for (std::size_t i = 0; i < value.size(); ++i) {
    check(value[i].is_object(), "[json] {}: {}[{}] must be an object, not {}", where_, key, i,
          value[i].dump());
    std::string place = fmt::format("{}: {}[{}]", where_, key, i);
    if (const auto name = value[i].find("name"); name != value[i].end() && name->is_string()) {
      place += " " + printable(name->get_ref<const std::string&>());
    }
    out.push_back({value[i], std::move(place)});
  }
  return out;
}

std::vector<std::string> JsonObject::strings(const char* key) const {
  const Json& value = at(key, "an array");
  check(value.is_array(), "[json] {}: \"{}\" must be an array, not {}", where_, key, value.dump());
  std::vector<std::string> out;
  for (const Json& item : value) {
    check(item.is_string(), "[json] {}: \"{}\" must hold strings, not {}", where_, key, item.dump());
    out.push_back(item.get<std::string>());
  }
  return out;
}

void JsonObject::require_format(std::string_view format) const {
  const std::string found = string("format");
  check(found == format, "[json] {} is a \"{}\" file where a \"{}\" file belongs", where_, found, format);
}

double finite(double value, const std::string& what) {
  check(std::isfinite(value), "[json] {} is {}, which cannot be written; measure it again", what, value);
  return value;
}

std::string json_text(const nlohmann::ordered_json& json) {
  return json.dump(2) + "\n";
}

}  // namespace goshawk
