// The parser follows CPython's json scanner step by step, because its positions and messages are part of the contract.
#include "json.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "errors.hpp"

namespace mythos {
namespace {

constexpr int kDeepest = 500;  // beyond this the parser stops reading; every depth above kMaxJsonDepth is refused

struct Invalid {  // text that is not JSON: Python's ValueError
  std::string what;
};

// UTF-8 to code points, with Python's words for what is not UTF-8.
std::u32string decode(std::string_view bytes) {
  std::u32string out;
  out.reserve(bytes.size());
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  for (std::size_t i = 0; i < bytes.size();) {
    const unsigned lead = at(i);
    if (lead < 0x80) {
      out += lead;
      ++i;
      continue;
    }
    const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    const char* problem = lead < 0xC2 || lead > 0xF4 ? "invalid start byte" : nullptr;
    std::size_t bad = 1;
    char32_t c = lead & (0xFFu >> (length + 1));
    for (std::size_t k = 1; k < length && !problem; ++k) {
      bad = k;
      if (i + k >= bytes.size()) {
        problem = "unexpected end of data";
        break;
      }
      const unsigned next = at(i + k);
      const unsigned low = k > 1 ? 0x80 : lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
      const unsigned high = k > 1 ? 0xBF : lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
      if (next < low || next > high) problem = "invalid continuation byte";
      c = (c << 6) | (next & 0x3F);
    }
    if (problem) {
      char place[80];
      if (bad == 1)
        std::snprintf(place, sizeof place, "byte 0x%02x in position %zu", lead, i);
      else
        std::snprintf(place, sizeof place, "bytes in position %zu-%zu", i, i + bad - 1);
      throw Invalid{"'utf-8' codec can't decode " + std::string(place) + ": " + problem};
    }
    out += c;
    i += length;
  }
  return out;
}

class Parser {
 public:
  Parser(const std::u32string& text, const std::string& where) : s_(text), where_(where) {}

  Json document() {
    if (!s_.empty() && s_[0] == 0xFEFF) fail("Unexpected UTF-8 BOM (decode using utf-8-sig)", 0);
    skip();
    Json value = scan(0);
    skip();
    if (i_ != s_.size()) fail("Extra data", i_);
    return value;
  }

  bool too_deep() const { return too_deep_; }

 private:
  [[noreturn]] void fail(const std::string& what, std::size_t at) const {
    const auto end = s_.begin() + static_cast<std::ptrdiff_t>(std::min(at, s_.size()));
    const auto line = std::count(s_.begin(), end, U'\n') + 1;
    const std::size_t newline = at == 0 ? std::u32string::npos : s_.rfind(U'\n', at - 1);
    const std::size_t column = newline == std::u32string::npos ? at + 1 : at - newline;
    throw Invalid{what + ": line " + std::to_string(line) + " column " + std::to_string(column) + " (char " +
                  std::to_string(at) + ")"};
  }

  char32_t peek() const { return i_ < s_.size() ? s_[i_] : char32_t{0xFFFFFFFF}; }
  void skip() {
    while (i_ < s_.size() && (s_[i_] == ' ' || s_[i_] == '\t' || s_[i_] == '\n' || s_[i_] == '\r')) ++i_;
  }
  bool literal(std::u32string_view word) {
    if (s_.compare(i_, word.size(), word) != 0) return false;
    i_ += word.size();
    return true;
  }
  [[noreturn]] void constant(const char* name) const {
    throw BundleError(where_ + " holds " + name + ", which is not JSON");
  }

  Json scan(int depth) {
    if (depth >= kMaxJsonDepth) too_deep_ = true;
    if (depth > kDeepest) throw BundleError(where_ + " nests deeper than " + std::to_string(kMaxJsonDepth) + " levels");
    Json value;
    switch (peek()) {
      case '"':
        value.kind = Json::Kind::text;
        value.text = string();
        return value;
      case '{': return object(depth);
      case '[': return list(depth);
      case 'n':
        if (literal(U"null")) return value;
        break;
      case 't':
      case 'f':
        value.kind = Json::Kind::boolean;
        value.boolean = peek() == 't';
        if (literal(value.boolean ? U"true" : U"false")) return value;
        break;
      case 'N':
        if (literal(U"NaN")) constant("NaN");
        break;
      case 'I':
        if (literal(U"Infinity")) constant("Infinity");
        break;
      case '-':
        if (literal(U"-Infinity")) constant("-Infinity");
        break;
      default: break;
    }
    return number();
  }

  Json object(int depth) {
    Json value;
    value.kind = Json::Kind::object;
    ++i_;
    skip();
    while (peek() != '}' || !value.items.empty()) {
      if (peek() != '"') fail("Expecting property name enclosed in double quotes", i_);
      value.names.push_back(string());
      skip();
      if (peek() != ':') fail("Expecting ':' delimiter", i_);
      ++i_;
      skip();
      value.items.push_back(scan(depth + 1));
      skip();
      if (peek() == '}') break;
      if (peek() != ',') fail("Expecting ',' delimiter", i_);
      ++i_;
      skip();
    }
    ++i_;
    std::multiset<std::u32string_view> names(value.names.begin(), value.names.end());
    for (const auto& name : value.names)
      if (names.count(name) > 1) throw BundleError(where_ + " repeats the field " + shown(name) + " in one object");
    return value;
  }

  Json list(int depth) {
    Json value;
    value.kind = Json::Kind::list;
    ++i_;
    skip();
    while (peek() != ']' || !value.items.empty()) {
      value.items.push_back(scan(depth + 1));
      skip();
      if (peek() == ']') break;
      if (peek() != ',') fail("Expecting ',' delimiter", i_);
      ++i_;
      skip();
    }
    ++i_;
    return value;
  }

  std::u32string string() {
    const std::size_t begin = i_++;
    std::u32string out;
    for (;;) {
      if (i_ >= s_.size()) fail("Unterminated string starting at", begin);
      const char32_t c = s_[i_];
      if (c == '"') {
        ++i_;
        return out;
      }
      if (c <= 0x1F) fail("Invalid control character at", i_);
      ++i_;
      out += c == '\\' ? escape(begin) : c;
    }
  }

  char32_t escape(std::size_t begin) {
    if (i_ >= s_.size()) fail("Unterminated string starting at", begin);
    const char32_t c = s_[i_++];
    switch (c) {
      case '"': case '\\': case '/': return c;
      case 'b': return '\b';
      case 'f': return '\f';
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case 'u': break;
      default: fail("Invalid \\escape", i_ - 2);
    }
    if (i_ + 4 >= s_.size()) fail("Invalid \\uXXXX escape", i_);
    const char32_t high = hex();
    if (high < 0xD800 || high > 0xDBFF || i_ + 6 >= s_.size() || s_[i_] != '\\' || s_[i_ + 1] != 'u') return high;
    const std::size_t back = i_;
    i_ += 2;
    const char32_t low = hex();
    if (low >= 0xDC00 && low <= 0xDFFF) return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    i_ = back;  // not a pair: the first stays alone
    return high;
  }

  char32_t hex() {
    const std::size_t start = i_;
    char32_t value = 0;
    for (; i_ < start + 4; ++i_) {
      const char32_t c = s_[i_];
      const int digit = c >= '0' && c <= '9' ? static_cast<int>(c - '0')
                        : c >= 'a' && c <= 'f' ? static_cast<int>(c - 'a') + 10
                        : c >= 'A' && c <= 'F' ? static_cast<int>(c - 'A') + 10 : -1;
      if (digit < 0) fail("Invalid \\uXXXX escape", start - 1);
      value = value * 16 + static_cast<char32_t>(digit);
    }
    return value;
  }

  Json number() {
    const std::size_t start = i_;
    const auto digit = [&](std::size_t at) { return at < s_.size() && s_[at] >= '0' && s_[at] <= '9'; };
    std::size_t at = start + (peek() == '-' ? 1 : 0);
    if (!digit(at)) fail("Expecting value", start);
    if (s_[at] == '0')
      ++at;
    else
      while (digit(at)) ++at;
    bool whole = true;
    if (at < s_.size() && s_[at] == '.' && digit(at + 1)) {
      whole = false;
      for (++at; digit(at); ++at) {}
    }
    if (at < s_.size() && (s_[at] == 'e' || s_[at] == 'E')) {
      std::size_t next = at + 1;
      if (next < s_.size() && (s_[next] == '+' || s_[next] == '-')) ++next;
      if (digit(next)) {
        whole = false;
        for (at = next; digit(at); ++at) {}
      }
    }
    i_ = at;
    Json value;
    value.digits = to_utf8(std::u32string_view(s_).substr(start, at - start));
    if (whole) {
      value.kind = Json::Kind::integer;
      const std::size_t count = value.digits.size() - (value.digits[0] == '-');
      if (count > 4300)
        throw Invalid{"Exceeds the limit (4300 digits) for integer string conversion: value has " +
                      std::to_string(count) + " digits; use sys.set_int_max_str_digits() to increase the limit"};
      if (value.digits == "-0") value.digits = "0";
      return value;
    }
    value.kind = Json::Kind::number;
    value.number = std::strtod(value.digits.c_str(), nullptr);
    if (std::isinf(value.number))
      throw BundleError(where_ + " holds " + value.digits.substr(0, 30) + ", which is too large for a number");
    return value;
  }

  const std::u32string& s_;
  const std::string& where_;
  std::size_t i_ = 0;
  bool too_deep_ = false;
};

}  // namespace

const Json* Json::find(std::u32string_view name) const {
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return &items[i];
  return nullptr;
}

bool Json::as_int64(std::int64_t& value) const {
  errno = 0;
  value = std::strtoll(digits.c_str(), nullptr, 10);
  return kind == Kind::integer && errno == 0;
}

Json parse_json(std::string_view bytes, const std::string& where) {
  if (bytes.size() > kMaxJsonBytes)
    throw BundleError(where + " has " + std::to_string(bytes.size()) + " bytes, more than the " +
                      std::to_string(kMaxJsonBytes) + " that a manifest may have");
  try {
    const std::u32string text = decode(bytes);
    Parser parser(text, where);
    Json value = parser.document();
    if (parser.too_deep())
      throw BundleError(where + " nests deeper than " + std::to_string(kMaxJsonDepth) + " levels");
    return value;
  } catch (const Invalid& error) {
    throw BundleError(where + " is not valid JSON: " + error.what.substr(0, 200));
  }
}

}  // namespace mythos
