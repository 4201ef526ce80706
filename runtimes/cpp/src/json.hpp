// JSON as Python's json module reads it, down to the words of its errors (see fields.py, `parse_json`).
//
// Why no library: both runtimes promise one text per error, and Python's messages, arbitrary integers, field order and
// lone surrogates are what the common C++ parsers do not keep. The input is at most 4 MiB, the parser is fuzzed
// (`make fuzz`), and nothing has to be downloaded to build.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mythos {

constexpr std::size_t kMaxJsonBytes = std::size_t{4} << 20;
constexpr int kMaxJsonDepth = 32;

struct Json {
  enum class Kind { null, boolean, integer, number, text, list, object };
  Kind kind = Kind::null;
  bool boolean = false;
  std::string digits;    // integer: in decimal, of any length, as Python would print it
  double number = 0;     // number
  std::u32string text;   // text: code points, lone surrogates included
  std::vector<Json> items;             // list, or the values of an object in the file's order
  std::vector<std::u32string> names;   // object: the name of each item

  const Json* find(std::u32string_view name) const;
  // The integer's value; false where it does not fit 64 bits.
  bool as_int64(std::int64_t& value) const;
};

// Parses what a stranger may have written: UTF-8, no NaN, no repeated names, bounded size and depth (BundleError).
Json parse_json(std::string_view bytes, const std::string& where);

// A value as it may stand in an error: short, on one line, ASCII; Python's ascii().
std::string shown(const Json& value);
std::string shown(std::u32string_view text);
// "an object", "a list", ...
std::string kind_in_words(const Json& value);

// Python's repr() of a text and of a float.
std::string py_repr(std::u32string_view text, bool ascii);
std::string py_repr(double value);

// What may stand in a manifest (fields.py, `is_printable`).
bool is_printable(char32_t c);
bool is_printable(std::u32string_view text);
// A name of ASCII letters, digits and underscores, as a symbol of a shape.
bool is_identifier(std::u32string_view text);
std::string to_utf8(std::u32string_view text);
// Code points of UTF-8; what is not UTF-8 becomes U+FFFD.
std::u32string from_utf8(std::string_view bytes);

}  // namespace mythos
