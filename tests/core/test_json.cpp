#include <doctest/doctest.h>

#include "core/json.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

TEST_CASE("valid JSON is parsed") {
  const auto json =
      parse_json(R"( {"a": [1, -2.5, "x", null, true, {"a": {}}], "b": {"a": 1}} )", "op", "f.json");
  CHECK(json["a"].size() == 6);
  CHECK(json["a"][1] == -2.5);
  CHECK(json["b"]["a"] == 1);
  CHECK(parse_json("3", "op", "f.json") == 3);
}

TEST_CASE("anything else is an error in one line with the operation and the file") {
  for (const std::string& text :
       {std::string(""), std::string("{"), std::string("{} {}"), std::string("{\"a\":1,}"),
        std::string("[1 2]"), std::string("nul"), std::string("\"\xff\""), std::string("\"open\n"),
        std::string("{}\0", 3), std::string("{}\0{", 4), std::string("// comment\n1"),
        std::string("[1e999]")}) {
    CAPTURE(text);
    const std::string message = error_of([&] { parse_json(text, "op", "f.json"); });
    CAPTURE(message);
    CHECK(message.starts_with("[op] f.json does not hold valid JSON"));
    CHECK_FALSE(contains(message, "\n"));
    CHECK_FALSE(contains(message, "json.exception"));
    CHECK(message.size() < 300);
  }
  CHECK(contains(error_of([] { parse_json("{\n\"a\": x}", "op", "f.json"); }), "line 2"));
}

TEST_CASE("a key may come twice in different objects only") {
  CHECK_NOTHROW(parse_json(R"([{"a": 1}, {"a": {"a": 2}}])", "op", "f.json"));
  for (const char* text :
       {R"({"a": 1, "a": 1})", R"([{"b": {"a": 1, "c": [{"a": 1}], "a": 2}}])", R"({"a": 1, "\u0061": 1})"}) {
    const std::string message = error_of([&] { parse_json(text, "op", "f.json"); });
    CHECK(contains(message, "[op] f.json has the key \"a\" twice"));
  }
}

TEST_CASE("nesting is limited") {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  CHECK_NOTHROW(parse_json(nested(3), "op", "f.json", 3));
  CHECK(contains(error_of([&] { parse_json(nested(4), "op", "f.json", 3); }), "deeper than 3"));
  CHECK_NOTHROW(parse_json(nested(64), "op", "f.json"));
  CHECK(contains(error_of([&] { parse_json(nested(1000000), "op", "f.json"); }), "deeper than 64"));
}

TEST_CASE("text from a file is made fit for a message") {
  CHECK(printable("conv1.weight") == "\"conv1.weight\"");
  CHECK(printable("a\nb\x1b\xff") == "\"a?b??\"");
  CHECK(printable(std::string(1000, 'x')).size() < 200);
}
