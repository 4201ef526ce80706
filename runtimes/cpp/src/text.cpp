#include "text.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "mythos_runtime.hpp"

namespace mythos {
namespace {

struct Run {
  char32_t first, last;
};
// As fields.py has it.
constexpr Run kUnprintable[] = {{0x00, 0x1F},     {0x7F, 0xA0},     {0xAD, 0xAD},     {0x61C, 0x61C},
                                {0x200B, 0x200F}, {0x2028, 0x202F}, {0x2060, 0x206F}, {0xD800, 0xDFFF},
                                {0xFEFF, 0xFEFF}, {0xFFF9, 0xFFFB}};
constexpr char32_t kInvalid = 0x110000;  // more than any code point

// The code point at the start of a text, and its bytes; kInvalid of one byte where it is not UTF-8.
char32_t decode(std::string_view text, std::size_t& bytes) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = at(0);
  bytes = 1;
  if (lead < 0x80) return lead;
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || length > text.size()) return kInvalid;
  char32_t c = lead & (0xFFu >> (length + 1));
  for (std::size_t k = 1; k < length; ++k) {
    if ((at(k) & 0xC0) != 0x80) return kInvalid;
    c = (c << 6) | (at(k) & 0x3F);
  }
  if ((length == 3 && c < 0x800) || (length == 4 && (c < 0x10000 || c > 0x10FFFF)) || (c >= 0xD800 && c <= 0xDFFF))
    return kInvalid;
  bytes = length;
  return c;
}

bool printable(char32_t c) {
  return std::none_of(std::begin(kUnprintable), std::end(kUnprintable),
                      [c](const Run& run) { return run.first <= c && c <= run.last; });
}

}  // namespace

void check_utf8(std::string_view text, const std::string& what) {
  for (std::size_t at = 0, bytes = 0; at < text.size(); at += bytes)
    if (decode(text.substr(at), bytes) == kInvalid) {
      char byte[8];
      std::snprintf(byte, sizeof byte, "0x%02x", static_cast<unsigned char>(text[at]));
      throw RequestError(what + " is not UTF-8: byte " + byte + " at " + std::to_string(at));
    }
}

bool is_printable(std::string_view text) {
  for (std::size_t bytes = 0; !text.empty(); text.remove_prefix(bytes))
    if (const char32_t c = decode(text, bytes); c == kInvalid || !printable(c)) return false;
  return true;
}

bool is_identifier(std::string_view text) {
  const auto letter = [](char c) { return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (text.empty() || !letter(text.front())) return false;
  return std::all_of(text.begin(), text.end(), [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

std::string py_repr(std::string_view text, bool ascii) {
  const bool single = text.find('\'') != text.npos, twice = text.find('"') != text.npos;
  const char quote = single && !twice ? '"' : '\'';
  std::string out(1, quote);
  char buffer[16];
  for (std::size_t bytes = 0; !text.empty(); text.remove_prefix(bytes)) {
    char32_t c = decode(text, bytes);
    if (c == kInvalid) c = 0xFFFD;
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (c >= 0x20 && c < 0x7F) {
      out += static_cast<char>(c);
    } else if (!ascii && bytes > 1 && printable(c)) {
      out += text.substr(0, bytes);
    } else {
      std::snprintf(buffer, sizeof buffer, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x",
                    static_cast<unsigned>(c));
      out += buffer;
    }
    if (ascii && out.size() > 4 * kShown) break;  // the rest would not be shown
  }
  return out + quote;
}

std::string py_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  std::string text(buffer, end), sign = text[0] == '-' ? "-" : "";
  const std::size_t e = text.find('e');
  const int exponent = std::atoi(text.c_str() + e + 1);
  std::string digits;
  for (std::size_t i = 0; i < e; ++i)
    if (text[i] >= '0' && text[i] <= '9') digits += text[i];
  if (exponent < -4 || exponent >= 16) {
    std::snprintf(buffer, sizeof buffer, "e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
    return sign + digits.substr(0, 1) + (digits.size() > 1 ? "." + digits.substr(1) : "") + buffer;
  }
  if (exponent < 0) return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string shorten(std::string text) { return text.size() <= kShown ? text : text.substr(0, kShown - 3) + "..."; }

}  // namespace mythos
