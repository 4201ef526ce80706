// Text as Python shows it: repr(), ascii(), isprintable(), UTF-8.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "json.hpp"

namespace mythos {
namespace {

struct Run {
  char32_t first, last;
};
// As fields.py has it.
constexpr Run kUnprintable[] = {{0x00, 0x1F},     {0x7F, 0xA0},     {0xAD, 0xAD},     {0x61C, 0x61C},
                                {0x200B, 0x200F}, {0x2028, 0x202F}, {0x2060, 0x206F}, {0xD800, 0xDFFF},
                                {0xFEFF, 0xFEFF}, {0xFFF9, 0xFFFB}};

void append_utf8(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

constexpr std::size_t kShown = 60;

// Appends ascii(value), but stops soon after more than what is shown: a value may be megabytes long.
void append_ascii(std::string& out, const Json& value) {
  if (out.size() > kShown) return;
  switch (value.kind) {
    case Json::Kind::null: out += "None"; return;
    case Json::Kind::boolean: out += value.boolean ? "True" : "False"; return;
    case Json::Kind::integer: out += value.digits; return;
    case Json::Kind::number: out += py_repr(value.number); return;
    case Json::Kind::text: out += py_repr(value.text, true); return;
    case Json::Kind::list:
    case Json::Kind::object: break;
  }
  const bool object = value.kind == Json::Kind::object;
  out += object ? '{' : '[';
  for (std::size_t i = 0; i < value.items.size() && out.size() <= kShown; ++i) {
    if (i) out += ", ";
    if (object) out += py_repr(value.names[i], true) + ": ";
    append_ascii(out, value.items[i]);
  }
  out += object ? '}' : ']';
}

std::string shorten(std::string text) { return text.size() <= kShown ? text : text.substr(0, kShown - 3) + "..."; }

}  // namespace

bool is_printable(char32_t c) {
  return std::none_of(std::begin(kUnprintable), std::end(kUnprintable),
                      [c](const Run& run) { return run.first <= c && c <= run.last; });
}

bool is_printable(std::u32string_view text) {
  return std::all_of(text.begin(), text.end(), [](char32_t c) { return is_printable(c); });
}

bool is_identifier(std::u32string_view text) {
  const auto letter = [](char32_t c) {
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  if (text.empty() || !letter(text.front())) return false;
  return std::all_of(text.begin(), text.end(), [&](char32_t c) { return letter(c) || (c >= '0' && c <= '9'); });
}

std::string to_utf8(std::u32string_view text) {
  std::string out;
  for (const char32_t c : text) append_utf8(out, c);
  return out;
}

std::u32string from_utf8(std::string_view bytes) {
  std::u32string out;
  for (std::size_t i = 0; i < bytes.size();) {
    const auto lead = static_cast<unsigned char>(bytes[i]);
    const int more = lead < 0x80 ? 0 : lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    if ((lead >= 0x80 && lead < 0xC2) || lead > 0xF4 || i + static_cast<std::size_t>(more) >= bytes.size()) {
      out += U'\uFFFD';
      ++i;
      continue;
    }
    char32_t c = more == 0 ? lead : lead & (0x3F >> more);
    for (int k = 1; k <= more; ++k) c = (c << 6) | (static_cast<unsigned char>(bytes[i + static_cast<std::size_t>(k)]) & 0x3F);
    out += c;
    i += static_cast<std::size_t>(more) + 1;
  }
  return out;
}

std::string py_repr(std::u32string_view text, bool ascii) {
  const bool single = text.find(U'\'') != std::u32string_view::npos;
  const bool twice = text.find(U'"') != std::u32string_view::npos;
  const char quote = single && !twice ? '"' : '\'';
  std::string out(1, quote);
  char buffer[16];
  for (const char32_t c : text) {
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (c >= 0x20 && c < 0x7F) {
      out += static_cast<char>(c);
    } else if (!ascii && is_printable(c)) {
      append_utf8(out, c);
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

std::string shown(const Json& value) {
  std::string text;
  append_ascii(text, value);
  return shorten(text);
}

std::string shown(std::u32string_view text) { return shorten(py_repr(text, true)); }

std::string kind_in_words(const Json& value) {
  switch (value.kind) {
    case Json::Kind::null: return "null";
    case Json::Kind::boolean: return "a boolean";
    case Json::Kind::integer: return "an integer";
    case Json::Kind::number: return "a number";
    case Json::Kind::text: return "text";
    case Json::Kind::list: return "a list";
    case Json::Kind::object: return "an object";
  }
  return "null";
}

}  // namespace mythos
