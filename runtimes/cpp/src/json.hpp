// What a JSON document holds, in the file's order and with the digits of integers that no type holds; read through
// nlohmann-json (see fields.py, `parse_json`).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mythos {

constexpr std::size_t kMaxJsonBytes = std::size_t{4} << 20;
constexpr std::size_t kMaxJsonDepth = 32;

struct Json {
  enum class Kind { null, boolean, integer, number, text, list, object };
  Kind kind = Kind::null;
  bool boolean = false;
  std::string digits;               // integer: in decimal, of any length
  double number = 0;                // number
  std::string text;                 // text: UTF-8
  std::vector<Json> items;          // list, or the values of an object
  std::vector<std::string> names;   // object: the name of each item

  // The integer's value; false where it is none or does not fit 64 bits.
  bool as_int64(std::int64_t& value) const;
};

// Parses what a stranger may have written: UTF-8, no NaN, no repeated names, bounded size and depth (BundleError).
Json parse_json(std::string_view bytes, const std::string& where);

// A value as it may stand in an error: short, on one line, ASCII; Python's ascii().
std::string shown(const Json& value);
// "an object", "a list", ...
std::string kind_in_words(const Json& value);

}  // namespace mythos
