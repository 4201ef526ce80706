// Text as Python shows it, and what may stand in a manifest. All of it UTF-8.
#pragma once

#include <string>
#include <string_view>

namespace mythos {

// Python's repr() or ascii() of a text, and repr() of a float.
std::string py_repr(std::string_view text, bool ascii = false);
std::string py_repr(double value);

// RequestError that names the first byte of `what` that is not UTF-8.
void check_utf8(std::string_view text, const std::string& what = "the prompt");
// What may stand in a manifest (fields.py, `is_printable`).
bool is_printable(std::string_view text);
// A name of ASCII letters, digits and underscores.
bool is_identifier(std::string_view text);

constexpr std::size_t kShown = 60;  // the most characters of a value that an error shows
std::string shorten(std::string text);

}  // namespace mythos
